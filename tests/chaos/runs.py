"""Runs of Kun that can be struck: `start(["run", "stage3"], folder, spec).end()`, forked or as a process of its own.

A forked run starts at once, as this process has imported all libraries; one of its own takes the seconds of any run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.strike import sitecustomize as strike
from tests.runs import REPOSITORY, command, environment

HANGS = 300.0  # seconds after which a run is said to hang
STRIKE = REPOSITORY / "tests" / "chaos" / "strike"


@dataclass(frozen=True)
class Ended:
    """`code` is minus the signal where one ended it. `left`: processes of the run that outlived it for long."""

    code: int
    said: str
    seconds: float
    left: int = 0


@dataclass
class Run:
    pid: int
    output: Path
    started: float

    def running(self) -> bool:
        return self._wait(os.WNOHANG) is None

    def stopped(self) -> bool:
        """Wait until the run has stopped (SIGSTOP) or ended; whether it has stopped."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self._code = os.waitstatus_to_exitcode(status)
        return os.WIFSTOPPED(status)

    def end(self) -> Ended:
        """Wait for the end, and for that of its worker processes; one that hangs is killed, and code is 124."""
        while (code := self._wait(os.WNOHANG)) is None:
            if time.monotonic() - self.started > HANGS:
                os.killpg(self.pid, signal.SIGKILL)
                self._wait(0)
                code = self._code = 124
            time.sleep(0.01)
        seconds = time.monotonic() - self.started
        left = [p for p in psutil.process_iter() if _group(p.pid) == self.pid]
        _, alive = psutil.wait_procs(left, timeout=30)
        for process in alive:
            process.kill()
        return Ended(code, self.output.read_text(errors="replace"), seconds, len(alive))

    def _wait(self, options: int) -> int | None:
        if getattr(self, "_code", None) is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def start(arguments: list[str], folder: Path, spec: dict[str, Any] | None = None, own: bool = False) -> Run:
    """`kun` with the arguments, in `folder`, in a session of its own. `spec` goes to tests/chaos/strike."""
    output = folder.with_name(f"{folder.name}.txt")  # beside it: the folder may be a full file system
    spec = spec and {"folder": str(folder / "run"), **spec}
    started = time.monotonic()
    with output.open("wb") as file:
        if own:
            process = subprocess.Popen(
                command(*arguments),
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            process.returncode = 0  # it is waited for here
            return Run(process.pid, output, started)
        pid = os.fork()
        if pid == 0:
            _become_kun(arguments, folder, file.fileno(), spec)
        return Run(pid, output, started)


def _become_kun(arguments: list[str], folder: Path, output: int, spec: dict[str, Any] | None) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment())
        sys.argv = ["kun", *arguments]
        sys.modules["__main__"] = types.ModuleType("__main__")  # or worker processes would import this program
        if spec:
            os.environ["PYTHONPATH"] = f"{STRIKE}:{REPOSITORY}"
            os.environ["KUN_STRIKE"] = json.dumps(spec)
            if not spec.get("worker"):
                strike.arm(spec)
        from kun.cli.main import main

        main()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
