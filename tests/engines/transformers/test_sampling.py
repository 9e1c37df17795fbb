"""Drawing: exact, and within the nucleus."""

from __future__ import annotations

import torch

from kun.config.schema import Sampling
from kun.engines.base import Generate, request_seed
from kun.engines.transformers.sampling import draw, uniform


def test_the_draws_have_the_distribution_of_the_softmax() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
    numbers = torch.arange(0, 1, 1e-4)
    drawn = draw(scores.repeat(len(numbers), 1), numbers, temperature=0.5, top_p=1.0)
    shares = torch.bincount(drawn, minlength=4) / len(numbers)
    assert torch.allclose(shares, (scores / 0.5).softmax(-1), atol=2e-4)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    scores = torch.tensor([0.1, 0.5, 0.25, 0.15]).log()
    numbers = torch.arange(0, 1, 1e-3)
    drawn = draw(scores.repeat(len(numbers), 1), numbers, temperature=1.0, top_p=0.7)
    assert set(drawn.tolist()) == {1, 2}
    shares = torch.bincount(drawn, minlength=4) / len(numbers)
    assert torch.allclose(shares, torch.tensor([0, 2 / 3, 1 / 3, 0]), atol=2e-3)


def test_no_mask_is_ever_drawn() -> None:
    scores = torch.full((2, 50), -torch.inf)
    scores[:, 7] = 0.0
    assert draw(scores, torch.tensor([0.0, 1 - 2**-24]), 1.0, 1.0).tolist() == [7, 7]


def test_uniform_numbers_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    one = uniform(Generate([1], Sampling(max_tokens=20), seed=2**62))
    torch.manual_seed(6)
    assert torch.equal(one, uniform(Generate([2, 3], Sampling(max_tokens=20), seed=2**62)))
    assert not torch.equal(one, uniform(Generate([1], Sampling(max_tokens=20), seed=1)))


def test_request_seeds_differ_by_run_record_and_stage() -> None:
    seeds = {request_seed(run, record, stage) for run in (0, 1) for record in "ab" for stage in ("label", "polish")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert request_seed(0, "a", "label") == request_seed(0, "a", "label") != request_seed(0, "\ud800", "label")
