"""Where the log records of every process of a command go: `configure(LogSetup(logging.INFO, Path("runs/my/run.log")))`.

The console (stderr) gets bare messages; the file also gets time, level, logger, process and tracebacks. A worker
process is configured like its parent: `configure(present())`. Values of secret environment variables are replaced by
`***`, control characters are escaped. Logging never ends a run: a file that cannot be written is reported once.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import re
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from kun.text.normal import printable

FILE_ONLY = {"file_only": True}  # `extra` of a record that the console does not show
SHORTEST_SECRET = 4  # characters; replacing a shorter value would garble every message
_SECRET = re.compile(r"(^|_)(API_?KEY|(ACCESS|SECRET|PRIVATE)_?KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+(?=@)|(?<=Bearer )\S+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LogSetup:
    """The lowest level that the console shows, and the file for everything from INFO on; None: no file."""

    console: int = logging.WARNING
    file: Path | None = None


def configure(setup: LogSetup) -> None:
    """Send the log records of this process where `setup` says, instead of where an earlier call did."""
    root = logging.getLogger()
    for handler in _own_handlers():
        root.removeHandler(handler)
        handler.close()
    root.addHandler(_Console(setup.console))
    if setup.file is not None:
        root.addHandler(_File(setup.file))
    for name in ("kun", "stages"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("kun.progress").setLevel(max(setup.console, logging.INFO))
    logging.captureWarnings(True)


def present() -> LogSetup | None:
    """The setup of this process, for processes that it starts; None before `configure`."""
    levels = [handler.level for handler in _own_handlers() if isinstance(handler, _Console)]
    files = [handler.path for handler in _own_handlers() if isinstance(handler, _File)]
    return LogSetup(levels[0], files[0] if files else None) if levels else None


def safe(text: str) -> str:
    """The text without secrets, and with characters escaped that would control a terminal."""
    return printable(_CREDENTIALS.sub("***", _secrets().sub("***", text)))


def _secrets() -> re.Pattern[str]:
    """The values of secret environment variables, also as quoted in a URL or in the repr of a string."""
    values = {value.strip() for name, value in os.environ.items() if _SECRET.search(name)}
    values = {value for value in values if len(value) >= SHORTEST_SECRET}
    forms = values | {quote(value, safe="") for value in values} | {repr(value)[1:-1] for value in values}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or "(?!)")


def _own_handlers() -> list[_Console | _File]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Console | _File)]


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return "".join(traceback.format_exception(*record.exc_info)).rstrip()


class _Console(logging.Handler):
    """Bare messages on the current stderr. Only critical records, which are errors in Kun, show a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        try:
            lines = [_traceback(record)] if record.levelno >= logging.CRITICAL else []
            text = "\n".join([*filter(None, lines), record.getMessage()])
        except Exception:  # the arguments do not fit the message
            self.handleError(record)
            return
        with contextlib.suppress(OSError, ValueError):  # stderr may be closed
            print(safe(text), file=sys.stderr, flush=True)


class _File(logging.Handler):
    """A file that several processes append to, each record in one write. All lines of a record but the first are
    indented, so that no message can pass for another record."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path.absolute()
        self._descriptor: int | None = None
        self._reported = multiprocessing.parent_process() is not None  # the parent reports it

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = "\n".join(filter(None, [record.getMessage(), _traceback(record)]))
        except Exception:
            self.handleError(record)
            return
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname} {record.name} [{record.process}] "
        line = head + safe(text).replace("\n", "\n    ") + "\n"
        try:
            if self._descriptor is None:
                # In a run from elsewhere this name may be a link or a pipe: do not follow it, do not wait for it.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                self._descriptor = os.open(self.path, flags, 0o644)
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self._reported:
                self._reported = True
                _log.warning("%s: cannot be written (%s); the run goes on without it", self.path, error.strerror)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        super().close()
