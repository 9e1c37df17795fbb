"""Runs that the tests fork from a warm process are like processes of their own, and a warm one that dies says why."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import forking
from tests.runs import environment


def gone() -> None:
    """Is no function of tests.forking."""


def forked(folder: Path, code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return forking.run(["one", "two"], folder, environment(), timeout, code=code)


def test_a_run_has_its_own_arguments_folder_output_and_status(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.getcwd()); print('wrong', file=sys.stderr); sys.exit(3)"
    done = forked(tmp_path, code)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"['one', 'two'] {tmp_path}\n", "wrong\n")
    assert forked(tmp_path, "import os; os.kill(os.getpid(), 9)").returncode == -9


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as ended:
        forked(tmp_path, "import time; print('begun', flush=True); time.sleep(60)", timeout=5)
    assert ended.value.stdout == "begun\n"
    assert forked(tmp_path, "print(1)").stdout == "1\n"


def test_a_warm_process_that_cannot_import_says_why_to_each_who_asks(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"(?s)the warm process .* has ended:\nTraceback.*KeyError: 'gone'"):
            forking.run([], tmp_path, environment(), 60, gone)
