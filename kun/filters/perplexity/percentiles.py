"""Relative thresholds: `thresholds(config.filter, ppls)` turns `x6` and `p90` into numbers.

The perplexities are those of a sample of the subset's documents, `sample(documents, n)`. A multiple of the median
hardly moves with the share of noise; a percentile keeps a fixed share, whatever the text is like.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kun.config.schema import Filter, Threshold
from kun.records import Document


class Limits(NamedTuple):
    """Perplexities outside [low, high] are rejected; None: no limit."""

    low: float | None = None
    high: float | None = None


NO_LIMITS = Limits()


def sample(documents: Iterable[Document], size: int) -> list[Document]:
    """The documents with the smallest ids. Ids are hashes, so this is a fair sample, independent of order.

    Memory: `size` documents.
    """
    return heapq.nsmallest(size, documents, key=lambda document: document.id)


def thresholds(settings: Filter, ppls: Sequence[float]) -> Limits:
    """The limits as numbers. Without measured perplexities, relative ones are None."""
    ordered = sorted(ppls)
    return Limits(_number(settings.ppl_min, ordered), _number(settings.ppl_max, ordered))


def needs_sample(settings: Filter) -> bool:
    """Whether a limit is relative to other documents."""
    return isinstance(settings.ppl_min, str) or isinstance(settings.ppl_max, str)


def _number(threshold: Threshold | None, ordered: Sequence[float]) -> float | None:
    if not isinstance(threshold, str):
        return threshold
    if not ordered:
        return None
    number = float(threshold[1:])
    return percentile(ordered, number) if threshold[0] == "p" else number * percentile(ordered, 50)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Percentile of sorted numbers, interpolated linearly, as numpy does."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
