"""Choices of several tokens, scored token by token: ask for `beginnings(request)`, sum up by `chosen(request,
logprobs)`.

The log-probability of a choice is the sum of those of its tokens, each given the ones before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kun.engines.base import ChoiceLogprobs, Failure, ScoreChoices

Beginning = tuple[int, ...]


def beginnings(request: ScoreChoices) -> dict[Beginning, list[int]]:
    """The beginnings of the choices (empty, their first token, ...), each with the tokens that follow it in a
    choice."""
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
