"""Batches: complete, within the budget, and a function of the group."""

from __future__ import annotations

import random

from kun.config.schema import Sampling
from kun.engines.base import Generate, Request, ScoreChoices
from kun.engines.batches import batches, shared_prefix


def group(count: int) -> list[Request]:
    draw = random.Random(1)
    short, long = Sampling(max_tokens=4), Sampling(max_tokens=40)
    return [
        ScoreChoices([1] * draw.randrange(1, 50), ((1,), (2, 3)))
        if draw.random() < 0.3
        else Generate([1] * draw.randrange(1, 50), draw.choice((short, long)), seed=0)
        for _ in range(count)
    ]


def test_every_request_once_of_one_kind_within_the_budget() -> None:
    requests = group(200)
    found = list(batches(requests, range(200), budget=300, window=64))
    assert sorted(number for batch in found for number in batch) == list(range(200))
    for batch in found:
        assert len({type(requests[number]) for number in batch}) == 1
        assert len({getattr(requests[number], "sampling", None) for number in batch}) == 1
        assert len(batch) == 1 or len(batch) * max(min(requests[number].longest, 64) for number in batch) <= 300
    assert found == list(batches(requests, range(200), budget=300, window=64))
    assert len(found) < 60


def test_a_request_over_the_budget_goes_alone() -> None:
    requests: list[Request] = [Generate([1] * 500, Sampling(max_tokens=1), seed=0) for _ in range(3)]
    assert list(batches(requests, [0, 1, 2], budget=10, window=600)) == [[0], [1], [2]]


def test_shared_prefix_leaves_every_prompt_a_token() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2, 4], [1, 2]]) == 1
    assert shared_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_prefix([[1, 9], [2, 9]]) == 0
