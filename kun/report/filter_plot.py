"""Distributions of what the rules measure, as SVG: `histogram(seen, measure)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from kun.filters.bounds import Bound
from kun.report.filter_preview import CorpusSample, Measure, limit_in_words, number

BINS = 60
WIDTH, HEIGHT, MARGIN = 520, 150, 10  # of a plot, in its own units
STATES = ("kept", "elsewhere", "here")  # of a document in a plot, from the axis up
WORDS = {"kept": "kept", "elsewhere": "dropped by other rules only", "here": "beyond the limit"}


def histogram(seen: CorpusSample, measure: Measure) -> str:
    """The distribution of a value as SVG, with what becomes of the documents and with the limits; of one or more."""
    limits = [bound.limit for bound in measure.bounds]
    scale, ticks = _scale(measure.values, limits)
    counts = {state: [0] * BINS for state in STATES}
    for one, value in zip(seen.judged, measure.values, strict=True):
        here = any(reason in one.broken for reason in measure.reasons)
        state = "here" if here else "kept" if one.reason is None else "elsewhere"
        counts[state][min(BINS - 1, int(scale(value) * BINS))] += 1
    totals = sorted(map(sum, zip(*counts.values(), strict=True)))
    # One tall bin, such as that of all texts without a symbol, leaves the others room: it is cut off.
    top = min(totals[-1], max(3 * totals[-2], 1)) * 1.08
    bars = "".join(_stack(n, [counts[state][n] for state in STATES], top) for n in range(BINS))
    axis = "".join(
        f'<line class=tick x1="{_x(at)}" x2="{_x(at)}" y1="{HEIGHT}" y2="{HEIGHT + 4}"/>'
        f'<text x="{_x(at)}" y="{HEIGHT + 16}">{label}</text>'
        for at, label in ticks
    )
    lines = "".join(_limit(bound, _x(scale(bound.limit)), row) for row, bound in enumerate(measure.bounds))
    name = escape(f"Distribution of {measure.meaning}")
    return (
        f'<svg viewBox="0 -26 {WIDTH + 2 * MARGIN} {HEIGHT + 48}" role="img" aria-label="{name}">{bars}'
        f'<line class=axis x1="{MARGIN}" x2="{WIDTH + MARGIN}" y1="{HEIGHT}" y2="{HEIGHT}"/>{axis}{lines}</svg>'
    )


def _x(at: float) -> str:
    return f"{MARGIN + at * WIDTH:.1f}"


def _stack(at: int, counts: list[int], top: float) -> str:
    if not sum(counts):
        return ""
    said = ", ".join(f"{count:,} {WORDS[state]}" for state, count in zip(STATES, counts, strict=True) if count)
    parts, y = [], float(HEIGHT)
    for state, count in zip(STATES, counts, strict=True):
        if count:
            height = min(max(1.5, HEIGHT * count / top), y)
            y -= height
            left, wide = MARGIN + at * WIDTH / BINS, WIDTH / BINS - 0.8
            parts.append(f'<rect class={state} x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{height:.1f}"/>')
    if sum(counts) > top:
        parts.append(f'<text class=cut x="{left + wide / 2:.1f}" y="10">{sum(counts):,}</text>')
    return f"<g><title>{said}</title>{''.join(parts)}</g>"


def _limit(bound: Bound, x: str, row: int) -> str:
    side = "start" if float(x) < WIDTH / 2 else "end"
    words = escape(f"{bound.reason}: {limit_in_words(bound)}")
    return (
        f'<line class=limit x1="{x}" x2="{x}" y1="{-6 - 12 * row}" y2="{HEIGHT}"/>'
        f'<text class=limit x="{x}" y="{-9 - 12 * row}" text-anchor="{side}">{words}</text>'
    )


def _scale(
    values: Sequence[float], limits: Sequence[float]
) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """Values to [0, 1], and ticks; logarithmic where they span more than two orders. The last thousandth is in the last
    bin, or one odd document would squeeze all others."""
    ordered = sorted(values)
    cut = len(ordered) // 1000
    ends = [ordered[cut], ordered[-1 - cut], *limits]
    low, high = min(ends), max(ends)
    positive = min((value for value in [*ordered, *limits] if value > 0), default=0.0)
    log = low >= 0 and high > 0 and high / max(low, positive) > 100 and high > 1 and low > 0
    first, last = (math.log10(low), math.log10(high)) if log else (low, high)
    span = (last - first) or 1.0
    first, last = first - 0.02 * span * (first != 0 or log), last + 0.02 * span

    def scale(value: float) -> float:
        at = math.log10(max(value, 10**first)) if log else value
        return min(max((at - first) / (last - first), 0.0), 1.0)

    marks = _decades(first, last) if log else _steps(first, last)
    return scale, [(scale(mark), number(mark)) for mark in marks]


def _decades(first: float, last: float) -> list[float]:
    factors = (1, 2, 5) if last - first < 3 else (1,)
    marks = [factor * 10.0**power for power in range(math.floor(first), math.ceil(last) + 1) for factor in factors]
    return [mark for mark in marks if 10**first <= mark <= 10**last]


def _steps(first: float, last: float) -> list[float]:
    rough = (last - first) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
