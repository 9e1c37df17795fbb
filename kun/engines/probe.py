"""How fast an engine is on this machine, in a few seconds: `prefill, decode = probe(engine, prompts, repeated=0, 30)`.

Both are measured on groups of requests that double in size, while time lasts. The last and largest group counts; the
others warm up the engine. No prompt is used twice, or an engine with a prefix cache would seem faster than it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from kun.config.schema import Sampling
from kun.engines.base import Engine, Failure, Generate, Generated
from kun.errors import InputError

Count = Callable[[Generate, Generated], int]  # the tokens to count for a request and its answer
HEAD, REPLY = 64, 64  # tokens of prompt and reply in a request that measures decoding


class Speed(msgspec.Struct, frozen=True):
    """The `requests`, `tokens` and `seconds` of the last group; `spent`: the seconds of all groups."""

    requests: int
    tokens: int
    seconds: float
    spent: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def probe(engine: Engine, prompts: Sequence[list[int]], repeated: int, seconds: float) -> tuple[Speed, Speed]:
    """The speeds of prefill and decode, each measured in about half of `seconds`.

    `repeated`: tokens of a prefix of all prompts that the engine caches, which do not count as prefill. InputError
    where a request fails, or there are no prompts.
    """
    if not prompts:
        raise InputError(
            "--probe: no sampled text is kept by the filter, so there is nothing to ask; try --sample 2000"
        )
    half = len(prompts) // 2 or 1
    read = Sampling(max_tokens=1, temperature=0.0)
    reads = [Generate(prompt, read, 0) for prompt in prompts[:half]]
    prefill = _speed(engine, reads, seconds / 2, sum_of=lambda request, _: len(request.prompt) - repeated)
    write = Sampling(max_tokens=REPLY, temperature=0.0)
    # End in the middle of a text, where no model ends its reply.
    writes = [Generate(prompt[: len(prompt) // 2][-HEAD:] or prompt, write, 0) for prompt in prompts[half:] or prompts]
    decode = _speed(engine, writes, seconds / 2, sum_of=lambda _, answer: len(answer.tokens) + answer.finished)
    before = sum(len(request.prompt) for request in writes[-decode.requests :]) / prefill.rate
    left = max(decode.seconds - before, decode.seconds / 2)  # for small groups the estimate of prefill is too rough
    return prefill, msgspec.structs.replace(decode, seconds=left)


def _speed(engine: Engine, requests: Sequence[Generate], seconds: float, sum_of: Count) -> Speed:
    begin = time.monotonic()
    for group in _doubling(requests):
        start = time.monotonic()
        answers = next(iter(engine.run([group])))
        took = time.monotonic() - start
        tokens = 0
        for request, answer in zip(group, answers, strict=True):
            if isinstance(answer, Failure):
                raise InputError(f"--probe: the engine failed: {answer.error}")
            assert isinstance(answer, Generated)
            tokens += sum_of(request, answer)
        spent = time.monotonic() - begin
        speed = Speed(len(group), tokens, took, spent)
        if spent + 2 * took > seconds:
            break
    return speed


def _doubling(requests: Sequence[Generate]) -> Iterator[list[Generate]]:
    """Groups of 1, 2, 4, ... requests; a rest too small for the next group is left out."""
    left, size = iter(requests), 1
    while len(group := list(islice(left, size))) == size:
        yield group
        size *= 2
