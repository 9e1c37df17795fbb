"""How fast an engine is on this machine, in a few seconds: `prefill, decode = probe(engine, prompts, repeated=0, 30)`.

Each of the two is measured on groups of requests that double in size, as long as the seconds last; the last and largest
group counts, so that the first ones warm everything up. No prompt is asked twice, or an engine that remembers prompts
would seem faster than it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from kun.config.schema import Sampling
from kun.engines.base import Engine, Failure, Generate, Generated
from kun.errors import InputError

Count = Callable[[Generate, Generated], int]  # what a request and its answer are worth, in tokens
HEAD, REPLY = 64, 64  # tokens of prompt and reply of a request that is nearly all reply


class Speed(msgspec.Struct, frozen=True):
    """`tokens` of the last group of `requests` in `seconds`; `spent` by all groups."""

    requests: int
    tokens: int
    seconds: float
    spent: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def probe(engine: Engine, prompts: Sequence[list[int]], repeated: int, seconds: float) -> tuple[Speed, Speed]:
    """Prefill and decode, each in about half of `seconds`. `repeated` tokens that all prompts open with are not
    counted as prefill: those that the engine remembers. InputError where a request fails, or there is no prompt.
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
    # A piece that ends in the middle of a text, where no model thinks that it is done.
    writes = [Generate(prompt[: len(prompt) // 2][-HEAD:] or prompt, write, 0) for prompt in prompts[half:] or prompts]
    decode = _speed(engine, writes, seconds / 2, sum_of=lambda _, answer: len(answer.tokens) + answer.finished)
    before = sum(len(request.prompt) for request in writes[-decode.requests :]) / prefill.rate
    left = max(decode.seconds - before, decode.seconds / 2)  # of a small group, prefill is not worth its measurement
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
        found = Speed(len(group), tokens, took, spent)
        if spent + 2 * took > seconds:
            break
    return found


def _doubling(requests: Sequence[Generate]) -> Iterator[list[Generate]]:
    """Groups of 1, 2, 4, ... requests; the rest, where it is less than the next, is left."""
    left, size = iter(requests), 1
    while len(group := list(islice(left, size))) == size:
        yield group
        size *= 2
