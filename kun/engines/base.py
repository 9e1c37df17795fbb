"""What every engine answers, and how it is asked: `for answers in engine.run(groups, on_answer): ...`.

A new kind of request is one struct here, with its answer, and one branch in each engine (docs/engines.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from kun.config.schema import Sampling


class Generate(msgspec.Struct, frozen=True, tag=True):
    """Write a reply to `prompt` (token ids, control tokens included). Equal seeds give equal replies."""

    prompt: list[int]
    sampling: Sampling
    seed: int

    @property
    def forced(self) -> tuple[tuple[int, ...], ...]:
        """Continuations of the prompt that the model is given, not asked for."""
        return ()

    @property
    def least(self) -> int:
        """Tokens of the prompt and the shortest reply, which must fit into the window."""
        return len(self.prompt) + 1

    @property
    def longest(self) -> int:
        """Tokens of the prompt and the longest reply."""
        return len(self.prompt) + self.sampling.max_tokens


class ScoreChoices(msgspec.Struct, frozen=True, tag=True):
    """Log-probability of each of `choices` (token ids of one or more tokens) as the continuation of `prompt`."""

    prompt: list[int]
    choices: tuple[tuple[int, ...], ...]

    @property
    def forced(self) -> tuple[tuple[int, ...], ...]:
        return self.choices

    @property
    def least(self) -> int:
        return len(self.prompt) + max(map(len, self.choices))

    @property
    def longest(self) -> int:
        return self.least


Request = Generate | ScoreChoices


class Generated(msgspec.Struct, frozen=True, tag=True):
    """Token ids without the end token; `finished` is False where the length limit cut the reply."""

    tokens: list[int]
    finished: bool


class ChoiceLogprobs(msgspec.Struct, frozen=True, tag=True):
    """One log-probability (natural logarithm, fp32) per choice."""

    logprobs: tuple[float, ...]


class Failure(msgspec.Struct, frozen=True, tag=True):
    """The engine could not answer this request; the record counts as failed and is asked again by the next run."""

    error: str


Answer = Generated | ChoiceLogprobs | Failure


def until_end(tokens: list[int], end_ids: Collection[int]) -> Generated:
    """The reply up to the first token that ends it; not finished where there is none."""
    end = next((place for place, token in enumerate(tokens) if token in end_ids), None)
    return Generated(tokens, finished=False) if end is None else Generated(tokens[:end], finished=True)


class Engine(Protocol):
    """Answers groups of requests (a group is a shard) in order; an error is an answer, never an exception.

    `window` is the longest prompt plus reply, in tokens. Implementations may take further groups from the iterator
    before they yield the first, so that nothing drains between shards. `on_answer(n)` is called after n more requests
    are answered. Runs of several engines may be interleaved in one thread.
    """

    @property
    def window(self) -> int: ...

    def run(
        self, groups: Iterable[Sequence[Request]], on_answer: Callable[[int], None] = ...
    ) -> Iterator[list[Answer]]: ...

    def close(self) -> None: ...


def request_seed(run_seed: int, record_id: str, stage: str) -> int:
    """The seed of one record's request: the same in every run of the same settings, whatever stands around it."""
    digest = hashlib.blake2b(f"{run_seed}\n{stage}\n{record_id}".encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1  # 63 bits, as torch and vLLM take them
