"""The engine of vLLM: `VllmEngine(start, window, vocabulary, log).run(groups)`; see kun.engines.vllm.process.

vLLM works in another process, so that it goes on while this one makes prompts and publishes shards, and so that its
death costs nobody the run: it is started again, and what it was at work on is asked once more.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kun.engines.base import Answer, Failure, Request, ScoreChoices, until_end
from kun.engines.choices import Beginning, beginnings, chosen
from kun.engines.in_flight import Group, in_order
from kun.engines.vllm import process as wire
from kun.engines.vllm.start import devices
from kun.errors import ConfigError, KunError
from kun.text.normal import preview

TRIES = 2  # a request that was at work in this many deaths of the engine is given up
DEATHS = 3  # in a row, without an answer in between: the engine is given up
PATIENCE = 20.0  # seconds that vLLM has to end by itself
ERROR = re.compile(r"^(?:.*\] )?(\w+(?:Error|Exception): .+)", re.MULTILINE)  # in the log, behind its prefix
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_COMPUTE_NANS_IN_LOGITS": "1"}


@dataclass
class Question:
    """A request, in as many parts as vLLM is asked: one, or one per distinct beginning of its choices (`follow`: the
    tokens that are weighed after each)."""

    request: Request
    adapter: str | None
    group: Group
    number: int
    follow: dict[Beginning, list[int]]
    parts: dict[int, Beginning] = field(default_factory=dict)  # by their keys; those without an answer
    told: dict[Beginning, dict[int, float]] = field(default_factory=dict)
    deaths: int = 0


class VllmEngine:
    """Answers requests with a model that vLLM runs in another process. See `kun.engines.base.Engine`.

    `vocabulary`: number of rows of the model's embeddings; `log`: the file that gets all that vLLM prints. `adapter`,
    which may be set between two runs: folder of the LoRA adapter that answers, None for the model itself.
    """

    def __init__(self, start: wire.Start, window: int, vocabulary: int, log: Path) -> None:
        self.window = window
        self.adapter: str | None = None
        self.start = start
        self._vocabulary = vocabulary
        self._log = log
        self._keys = 0
        self._deaths = 0
        self._questions: dict[int, Question] = {}  # by the keys of parts that have no answer yet
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.unlink(missing_ok=True)
        self._start()

    def run(
        self, groups: Iterable[Sequence[Request]], on_answer: Callable[[int], None] = lambda count: None
    ) -> Iterator[list[Answer]]:
        """The answers of each group, in the order of its requests; later groups are at work before it is complete."""
        self._questions.clear()  # of a run that was given up
        for group in in_order(groups, self._slots, self._ask, self._receive, on_answer):
            yield group.answers

    def close(self) -> None:
        """End vLLM and give its memory back."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self._kill()

    def _ask(self, requests: Sequence[Request]) -> Group:
        group, asked = Group.of(requests, self.window, self._vocabulary), []
        for number, request in group.asked:
            follow = beginnings(request) if isinstance(request, ScoreChoices) else {(): []}
            asked.append(question := Question(request, self.adapter, group, number, follow))
            for beginning in follow:
                self._keys += 1
                question.parts[self._keys] = beginning
                self._questions[self._keys] = question
        self._send(asked)
        return group

    def _send(self, questions: Iterable[Question]) -> None:
        """Put questions, or what of them has no answer yet, to vLLM."""
        messages = [
            _message(key, question, beginning, self.window)
            for question in questions
            for key, beginning in question.parts.items()
        ]
        with contextlib.suppress(OSError):  # vLLM died: that shows when its answers are read, and this is asked again
            self._socket.sendall(wire.framed(messages))

    def _receive(self) -> int:
        """Take in what vLLM has answered, or its death; how many requests are answered by that."""
        messages = self._read()
        return self._restart() if messages is None else sum(map(self._take, messages))

    def _take(self, message: wire.Answer) -> int:
        """Take in one answer; 1 where its request is answered by that."""
        assert isinstance(message, wire.Written | wire.Weighed | wire.Broken)
        question = self._questions.pop(message.key, None)
        if question is None:  # of a run that was given up, or of a request that broke
            return 0
        self._deaths = 0
        beginning = question.parts.pop(message.key)
        match message:
            case wire.Broken():
                return self._settle(question, Failure(message.why))
            case wire.Written():
                return self._settle(question, until_end(message.tokens, self.start.end_ids))
        question.told[beginning] = dict(zip(question.follow[beginning], message.logprobs, strict=True))
        if question.parts:
            return 0
        assert isinstance(question.request, ScoreChoices)
        return self._settle(question, chosen(question.request, question.told))

    def _settle(self, question: Question, answer: Answer) -> int:
        for key in question.parts:
            del self._questions[key]
        question.group.settle(question.number, answer)
        return 1

    def _read(self) -> list[wire.Answer] | None:
        """The next answers of vLLM; None where it died."""
        try:
            header = self._stream.read(wire.HEADER.size)
            if len(header) == wire.HEADER.size:
                size = wire.HEADER.unpack(header)[0]
                data = self._stream.read(size)
                if len(data) == size:
                    answers: list[wire.Answer] = wire.decode_answers(data)
                    return answers
        except OSError:
            pass
        return None

    def _restart(self) -> int:
        """Start vLLM again and ask again what has no answer; requests that it died of TRIES times are failures.

        It may have died of those that it worked on, which are the first, and not of those that only waited.
        """
        self._deaths += 1
        self._kill()
        if self._deaths == DEATHS:
            raise KunError(f"vLLM died {DEATHS} times without an answer in between{self._last_words()}")
        print(f"vLLM died ({self._log}); it is started again", file=sys.stderr, flush=True)
        self._start()
        asked = list({id(question): question for question in self._questions.values()}.values())
        for question in asked[: self._slots]:
            question.deaths += 1
        self._send(question for question in asked if question.deaths < TRIES)
        failure = Failure(f"vLLM died {TRIES} times while it worked on this")
        return sum(self._settle(question, failure) for question in asked if question.deaths == TRIES)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kun.engines.vllm.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**environment(self.start), **os.environ},
                start_new_session=True,  # Ctrl-C is this process's affair; and its whole group can be ended
            )
        theirs.close()
        self._socket, self._stream = ours, ours.makefile("rb")
        with contextlib.suppress(OSError):
            ours.sendall(wire.framed([self.start]))
        message = next(iter(self._read() or ()), None)
        if not isinstance(message, wire.Ready):
            self._kill()
            why = f": {message.why}" if isinstance(message, wire.Refused) else ""
            raise ConfigError(f"engine.vllm: vLLM did not start{why}{self._last_words()}")
        self._slots = message.sequences

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
        log = self._log.read_text(encoding="utf-8", errors="replace")
        causes = [error for error in ERROR.findall(log) if "ngine core init" not in error and "EngineDead" not in error]
        return (f": {preview(causes[-1], 300)}" if causes else "") + f"; see {self._log}"


def environment(start: wire.Start) -> dict[str, str]:
    """Variables for vLLM's process; those that are set already go before."""
    if devices(start.options) > 1:
        return ENVIRONMENT
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    return ENVIRONMENT | {"VLLM_CPU_OMP_THREADS_BIND": cores}  # by itself it takes one core


def _message(key: int, question: Question, beginning: Beginning, window: int) -> wire.Write | wire.Weigh:
    request = question.request
    if isinstance(request, ScoreChoices):
        return wire.Weigh(key, [*request.prompt, *beginning], question.follow[beginning], question.adapter)
    settings = request.sampling
    return wire.Write(
        key,
        request.prompt,
        min(settings.max_tokens, window - len(request.prompt)),
        settings.temperature,
        settings.top_p,
        settings.repetition_penalty,
        request.seed,
        question.adapter,
    )
