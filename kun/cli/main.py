"""Entry point of the command `kun`: signals, environment, error messages, exit status.

Exit status: 0 complete, 1 failed records are left, 2 an error in the configuration or the input, 130 stopped by Ctrl-C
or SIGTERM, 70 an error in Kun.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from pathlib import Path

from kun.cli.log import console_level
from kun.cli.parser import parse
from kun.errors import KunError
from kun.execution.log import FILE_ONLY, LogSetup, configure

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of the console script."""
    if sys.getfilesystemencoding() != "utf-8":
        _start_again_in_utf8()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # where a script ignores SIGINT, too
    for stream in (sys.stdout, sys.stderr):  # a name may not be UTF-8, a terminal may have another encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a wrong path is an error at once, not after a search on the hub
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait starve each other where cores are shared: measured 5 times slower on two.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    configure(LogSetup())
    status = _run()
    _log.info("exit status %d", status, extra=FILE_ONLY)
    sys.exit(status)


def _start_again_in_utf8() -> None:
    """Replace this process by one in Python's UTF-8 mode, which cannot be entered later. Under other locales (C where
    it is not coerced, GBK) names of files in the settings could not be encoded, or were not found."""
    os.environ["PYTHONUTF8"] = "1"  # for processes started from here
    if sys.stdout.encoding not in ("ascii", "ANSI_X3.4-1968"):
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)  # of the terminal
    # An argument that names a file keeps its bytes; other words, such as a subset, become UTF-8.
    typed = [os.fsencode(word) if Path(word).exists() else word.encode("utf-8", "surrogateescape")
             for word in sys.orig_argv[1:]]  # fmt: skip
    os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *typed])


def _run() -> int:
    """Run the command that was typed; returns its exit status, however it ends."""
    try:
        arguments, overrides = parse()
        configure(LogSetup(console_level(arguments)))
        status: int = arguments.function(arguments, overrides)
        sys.stdout.flush()  # a closed pipe raises here, not after the status was decided
        return status
    except KunError as error:
        _log.error("kun: %s", error)
        return 2
    except BrokenPipeError:  # the reader, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        _log.error("kun: %s", explain(error))
        return 2
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one would stop this message
            signal.signal(number, signal.SIG_IGN)
        _log.error("kun: stopped; what is finished is kept, run the same command to go on")
        return 130
    except Exception:
        _log.critical("kun: an error in Kun or in a library, please report it; what is finished is kept", exc_info=True)
        return 70  # EX_SOFTWARE of sysexits.h


_IN_THE_WAY = "a file or folder is in the way: remove it, or choose another folder"


def explain(error: OSError) -> str:
    """The message for an error of the operating system, with its file and the remedy."""
    name = error.filename2 or error.filename  # of a rename: the target
    where = f"{name}: " if name else ""
    remedy = {
        errno.EEXIST: _IN_THE_WAY,
        errno.ENOTDIR: _IN_THE_WAY,
        errno.EISDIR: _IN_THE_WAY,
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EACCES: "no permission: change it, or choose another folder",
        errno.EROFS: "the file system is read-only: choose another folder",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"{where}{remedy}; what is finished is kept, run the same command to go on"
