"""Where a text is cut that is too long for a model: `longest_opening(text, lambda opening: tokens or None)`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

from kun.text.normal import split_sentences

T = TypeVar("T")


def longest_opening(text: str, attempt: Callable[[str], T | None]) -> T | None:
    """What `attempt` makes of the text, or of as many of its first sentences as it takes, by bisection; None where it
    does not even take the first."""
    if (made := attempt(text)) is not None:
        return made
    ends = [0, *accumulate(map(len, split_sentences(text)))]
    fits, too_many, best = 0, len(ends) - 1, None
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if (made := attempt(text[: ends[middle]].rstrip())) is not None:
            fits, best = middle, made
        else:
            too_many = middle
    return best
