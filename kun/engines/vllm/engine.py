"""The engine of vLLM: `VllmEngine(start, window, vocabulary, log).run(groups)`; see kun.engines.vllm.process.

vLLM runs in another process, so that it works on while this one makes prompts and publishes shards, and so that the run
survives its death: it is restarted, and the requests it was working on are sent once more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kun.engines.base import Answer, Failure, Request
from kun.engines.in_flight import Group, in_order
from kun.engines.vllm import wire
from kun.engines.vllm.start import devices
from kun.errors import ConfigError, KunError
from kun.text.normal import preview

TRIES = 2  # a request that vLLM was working on at so many deaths is given up
DEATHS = 3  # after so many in a row, without an answer in between, the engine is given up
PATIENCE = 20.0  # seconds for vLLM to end by itself
ERROR = re.compile(r"^(?:.*\] )?(\w+(?:Error|Exception): .+)", re.MULTILINE)  # in the log, behind its prefix
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_COMPUTE_NANS_IN_LOGITS": "1"}


@dataclass
class Pending:
    """A task without an answer: request `number` of a group, in one of several concurrent runs.

    `deaths`: how often vLLM died while working on it.
    """

    task: wire.Task
    group: Group
    number: int
    run: object
    deaths: int = 0


class VllmEngine:
    """Answers requests with a model that vLLM runs in another process. See `kun.engines.base.Engine`.

    `vocabulary`: number of rows of the model's embeddings; `log`: the file for everything that vLLM prints.
    """

    def __init__(self, start: wire.Start, window: int, vocabulary: int, log: Path) -> None:
        self.window = window
        self.start = start
        self._vocabulary = vocabulary
        self.log = log
        self._keys = 0
        self._deaths = 0
        self._pending: dict[int, Pending] = {}  # by key, in the order in which they were sent
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self._start()

    def run(
        self,
        groups: Iterable[Sequence[Request]],
        on_answer: Callable[[int], None] = lambda count: None,
        adapter: str | None = None,
    ) -> Iterator[list[Answer]]:
        """The answers of each group, in the order of its requests; vLLM works on later groups before one is complete.

        `adapter`: the folder of the LoRA adapter to use; None: the model itself.
        """
        run = object()

        def ask(requests: Sequence[Request]) -> Group:
            group = Group.of(requests, self.window, self._vocabulary, on_answer)
            self._ask(group, adapter, run)
            return group

        try:
            for group in in_order(groups, self._slots, ask, self._receive):
                yield group.answers
        finally:  # an abandoned run needs no more answers
            self._pending = {key: pending for key, pending in self._pending.items() if pending.run is not run}

    def close(self) -> None:
        """End vLLM and free its memory."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._kill()

    def _ask(self, group: Group, adapter: str | None, run: object) -> None:
        sent = []
        for number, request in group.asked:
            self._keys += 1
            sent.append(task := wire.Task(self._keys, request, adapter))
            self._pending[task.key] = Pending(task, group, number, run)
        self._send(sent)

    def _send(self, tasks: Sequence[wire.Task]) -> None:
        with contextlib.suppress(OSError):  # vLLM died: `_receive` finds out, and sends this again
            self._socket.sendall(wire.frame(tasks))

    def _receive(self) -> None:
        """Process the next answers of vLLM, or its death."""
        data = self._read()
        if data is None:
            self._restart()
            return
        for result in wire.decode_results(data):
            if result.key in self._pending:  # otherwise of an abandoned run
                self._deaths = 0
                self._settle(result.key, result.answer)

    def _settle(self, key: int, answer: Answer) -> None:
        pending = self._pending.pop(key)
        pending.group.settle(pending.number, answer)

    def _read(self) -> bytes | None:
        """The next frame from vLLM; None if it died."""
        try:
            header = self._stream.read(wire.HEADER.size)
            if len(header) == wire.HEADER.size:
                size = wire.HEADER.unpack(header)[0]
                data = self._stream.read(size)
                if len(data) == size:
                    return data
        except OSError:
            pass
        return None

    def _restart(self) -> None:
        """Restart vLLM and send what has no answer again; requests during which it died TRIES times are failures.

        Only the first requests, which it was working on, can have caused its death; the others were waiting.
        """
        self._deaths += 1
        self._kill()
        if self._deaths == DEATHS:
            raise KunError(f"vLLM died {DEATHS} times without an answer in between{self._last_words()}")
        logging.getLogger(__name__).warning("vLLM died (%s); it is started again", self.log)
        self._start()
        waiting = list(self._pending.values())
        for pending in waiting[: self._slots]:
            pending.deaths += 1
        self._send([pending.task for pending in waiting if pending.deaths < TRIES])
        failure = Failure(f"vLLM died {TRIES} times while it worked on this")
        for pending in waiting:
            if pending.deaths == TRIES:
                self._settle(pending.task.key, failure)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._process = launch(theirs.fileno(), self.log, {**environment(self.start), **os.environ})
        theirs.close()
        self._socket, self._stream = ours, ours.makefile("rb")
        with contextlib.suppress(OSError):
            ours.sendall(wire.frame([self.start]))
        data = self._read()
        started = wire.decode_started(data)[0] if data is not None else wire.Refused("")
        if isinstance(started, wire.Refused):
            self._kill()
            why = f": {started.why}" if started.why else ""
            raise ConfigError(f"engine.vllm: vLLM did not start{why}{self._last_words()}")
        self._slots = started.sequences

    def _hang_up(self) -> None:
        self._stream.close()
        self._socket.close()

    def _kill(self) -> None:
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _last_words(self) -> str:
        """The last error in the log, and where the log is."""
        log = self.log.read_text(encoding="utf-8", errors="replace")
        causes = [error for error in ERROR.findall(log) if "ngine core init" not in error and "EngineDead" not in error]
        return (f": {preview(causes[-1], 300)}" if causes else "") + f"; see {self.log}"


def launch(connection: int, log: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """vLLM's own process, which answers on the socket with this number."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "kun.engines.vllm.process", str(connection)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[connection],
            env=variables,
            start_new_session=True,  # this process handles Ctrl-C, and can end the whole group
        )


def environment(start: wire.Start) -> dict[str, str]:
    """Environment variables for vLLM's process; those already set take precedence."""
    if devices(start.options) > 1:
        return ENVIRONMENT
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return ENVIRONMENT | {"VLLM_CPU_OMP_THREADS_BIND": cores}  # by default it uses one core


@dataclass(frozen=True)
class AdaptedEngine:
    """The engine of one LoRA adapter on the model of `base`, which other adapters may share."""

    base: VllmEngine
    adapter: str

    @property
    def window(self) -> int:
        return self.base.window

    def run(
        self, groups: Iterable[Sequence[Request]], on_answer: Callable[[int], None] = lambda count: None
    ) -> Iterator[list[Answer]]:
        return self.base.run(groups, on_answer, self.adapter)

    def close(self) -> None:
        """End vLLM, for all adapters."""
        self.base.close()
