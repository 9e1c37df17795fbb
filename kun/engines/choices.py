"""Choices of several tokens, a token at a time: `beginnings(request)` to ask for, `chosen(request, logprobs)` the sums.

A choice is forced upon the model: its log-probability is the sum of those of its tokens, each after the ones before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kun.engines.base import ChoiceLogprobs, Failure, ScoreChoices

Beginning = tuple[int, ...]


def beginnings(request: ScoreChoices) -> dict[Beginning, list[int]]:
    """What the choices open with (nothing, their first token, ...), and the tokens that follow it in one of them."""
    follow: dict[Beginning, list[int]] = {}
    for choice in request.choices:
        for place, token in enumerate(choice):
            tokens = follow.setdefault(choice[:place], [])
            if token not in tokens:
                tokens.append(token)
    return follow


def chosen(request: ScoreChoices, logprobs: Mapping[Beginning, Mapping[int, float]]) -> ChoiceLogprobs | Failure:
    """The log-probabilities of the whole choices, from those of the tokens after each beginning."""
    sums = tuple(
        sum(logprobs[choice[:place]][token] for place, token in enumerate(choice)) for choice in request.choices
    )
    return Failure("the model returned NaN") if any(map(math.isnan, sums)) else ChoiceLogprobs(sums)
