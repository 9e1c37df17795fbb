"""Log records reach the console once and the file whole, from every process, without secrets."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kun.execution.log import FILE_ONLY, LogSetup, configure, present, safe
from kun.execution.processes import map_unordered
from tests.runs import environment

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR|CRITICAL) [\w.]+ \[\d+\] .+")
_log = logging.getLogger("kun.tests.log")


@pytest.fixture
def setup(tmp_path):
    """Logging as a command has it; gives the file."""
    before = logging.getLogger().handlers[:]
    configure(LogSetup(logging.WARNING, tmp_path / "run.log"))
    yield tmp_path / "run.log"
    configure(LogSetup())
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = before
    for name in ("kun", "stages", "kun.progress"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_message_is_bare_on_the_console_and_has_time_level_logger_and_process_in_the_file(setup, capsys):
    _log.info("read %d rows", 3)
    _log.warning("a warning")
    _log.warning("seen elsewhere", extra=FILE_ONLY)
    assert capsys.readouterr().err == "a warning\n"
    lines = setup.read_text(encoding="utf-8").splitlines()
    assert all(map(LINE.fullmatch, lines)) and f"[{os.getpid()}]" in lines[0]
    assert [line.split("] ")[1] for line in lines] == ["read 3 rows", "a warning", "seen elsewhere"]


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, "iwe"), (logging.WARNING, "we"), (logging.ERROR, "e")])
def test_the_console_shows_its_level_and_the_file_all(setup, capsys, level, shown):
    configure(LogSetup(level, setup))
    _log.info("i")
    _log.warning("w")
    _log.error("e")
    assert capsys.readouterr().err == "".join(f"{letter}\n" for letter in shown)
    assert len(setup.read_text().splitlines()) == 3
    assert present() == LogSetup(level, setup)


def test_a_traceback_is_in_the_file_and_of_a_critical_record_on_the_console(setup, capsys):
    try:
        raise ValueError("of this record")
    except ValueError:
        _log.warning("a record failed", exc_info=True)
        assert capsys.readouterr().err == "a record failed\n"
        _log.critical("an error in Kun", exc_info=True)
    assert re.fullmatch(
        r"Traceback .*ValueError: of this record\nan error in Kun\n", capsys.readouterr().err, flags=re.DOTALL
    )
    lines = setup.read_text().splitlines()
    assert lines.count("    ValueError: of this record") == 2
    assert sum(bool(LINE.fullmatch(line)) for line in lines) == 2


def test_no_message_passes_for_another_record_or_steers_the_terminal(setup, capsys):
    forged = "a\n2026-01-01T00:00:00.000Z ERROR kun [1] forged\x1b[2J\r\u202e"
    _log.warning(forged)
    first, second = setup.read_text(encoding="utf-8").splitlines()
    assert LINE.fullmatch(first) and second.startswith("    2026") and second.endswith(r"forged\x1b[2J\r\u202e")
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["KUN_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"])
def test_secrets_of_the_environment_are_replaced(setup, capsys, monkeypatch, name):
    monkeypatch.setenv(name, "gehe im/7\n")
    _log.warning("at %s: %r, %s", "http://me:pass@host/gehe%20im%2F7", "gehe im/7\n", "Bearer abc.def")
    try:
        raise ValueError("gehe im/7\n")
    except ValueError:
        _log.critical("gehe im/7\n", exc_info=True)
    for text in (setup.read_text(), capsys.readouterr().err):
        assert "at http://***@host/***: '***\\n', Bearer ***" in text and "ValueError: ***" in text
        assert not re.search("gehe|abc.def|pass", text)


def test_other_variables_and_short_values_are_left_alone(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("KUN_API_KEY", "a")
    assert safe("false, as it was") == "false, as it was"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "no folder", "full disk"])
def test_a_file_that_cannot_be_written_is_reported_once_and_ends_nothing(setup, capsys, kind):
    path = setup.with_name("other.log")
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(setup.with_name("target"))
        case "pipe":
            os.mkfifo(path)
        case "no folder":
            path = path / "run.log"
        case "full disk":
            path = Path("/dev/full")
    configure(LogSetup(logging.WARNING, path))
    for _ in range(3):
        _log.info("goes on")
    shown = capsys.readouterr().err
    assert re.fullmatch(rf"{path}: cannot be written \(.+\); the run goes on without it\n", shown)
    assert not setup.with_name("target").exists()


def test_a_message_that_does_not_fit_its_arguments_ends_nothing(setup, capsys, monkeypatch):
    own = [handler for handler in logging.getLogger().handlers if type(handler).__module__ == "kun.execution.log"]
    monkeypatch.setattr(logging.getLogger(), "handlers", own)  # those of pytest raise
    _log.warning("%d rows", "x")
    assert "Logging error" in capsys.readouterr().err


def _warn(number: int) -> int:
    logging.getLogger("kun.tests.log").info("begin %d", number)
    try:
        raise ValueError(f"record {number}")
    except ValueError:
        logging.getLogger("kun.tests.log").warning("task %d", number, exc_info=True)
    return os.getpid()


def test_workers_log_into_the_file_of_their_parent_and_once_on_the_console(tmp_path):
    program = (
        "import logging, pathlib; from kun.execution.log import LogSetup, configure;"
        "from tests.execution.test_log import in_workers; in_workers(pathlib.Path('run.log'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stderr.splitlines()) == [f"task {number}" for number in range(6)]
    text = (tmp_path / "run.log").read_text()
    heads = [line for line in text.splitlines() if LINE.fullmatch(line)]
    assert len(heads) == 12 and text.count("Traceback") == 6 and text.count("    ValueError: record 3") == 1
    processes = {re.search(r"\[(\d+)\]", line)[1] for line in heads}
    parent, *workers = done.stdout.split()
    assert processes == set(workers) and parent not in processes


def in_workers(path: Path) -> None:
    configure(LogSetup(file=path))
    print(os.getpid(), *map_unordered(_warn, [(number,) for number in range(6)], workers=2))
