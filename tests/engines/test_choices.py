"""Choices of several tokens."""

from __future__ import annotations

import math

from kun.engines.base import ChoiceLogprobs, Failure, ScoreChoices
from kun.engines.choices import beginnings, chosen


def test_choices_are_summed_over_their_beginnings() -> None:
    request = ScoreChoices([1], ((10,), (20, 30), (20, 40)))
    assert beginnings(request) == {(): [10, 20], (20,): [30, 40]}
    follow = {(): {10: -1.0, 20: -0.5}, (20,): {30: -2.0, 40: -math.inf}}
    assert chosen(request, follow) == ChoiceLogprobs((-1.0, -2.5, -math.inf))
    follow[20,][30] = math.nan
    assert chosen(request, follow) == Failure("the model returned NaN")
