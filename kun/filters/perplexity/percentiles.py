"""Relative thresholds: `thresholds(config.filter, ppls)` turns `x6` and `p90` into numbers.

The perplexities are those of a sample of the subset's documents, `sample(documents, n)`. A multiple of the median
hardly moves with the share of noise; a percentile keeps a fixed share, whatever the text is like.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kun.config.schema import Filter, Threshold
from kun.filters.bounds import Bound
from kun.records import Document, Filtered, Reject


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


def bounds(limits: Limits) -> tuple[Bound, ...]:
    """The limits as rules."""
    low, high = limits
    found = [] if low is None else [Bound("ppl_low", "at_least", low, "perplexity")]
    found += [] if high is None else [Bound("ppl_high", "at_most", high, "perplexity")]
    return tuple(found)


def within(limits: Limits, documents: Sequence[Filtered]) -> list[Filtered | Reject]:
    """Each document, or the Reject of one whose perplexity, which was measured before, is beyond a limit."""
    rules = bounds(limits)

    def judge(document: Filtered) -> Filtered | Reject:
        ppl = document.ppl
        broken = next((bound for bound in rules if ppl is not None and bound.broken_by(ppl)), None)
        return document if broken is None or ppl is None else broken.reject(ppl)

    return [judge(document) for document in documents]


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
