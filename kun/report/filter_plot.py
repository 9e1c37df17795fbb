"""Distributions of what the rules measure: `histograms(sample, measures)`, the plots of the preview of stage 2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kun.pages.plots import svg
from kun.report.filter_preview import CorpusSample, Measure, SampledDocument, limit_in_words, number

BINS = 60
WIDTH, HEIGHT = 540, 150  # of the axes, in points: 9 for each bin
LEFT, BELOW, ABOVE = 10, 22, 26  # of the margins; the right one is as wide as the left
COLOURS = {"kept": "#3b82c4", "elsewhere": "#b5c0cb", "here": "#d9534f"}  # of documents, from the axis up
WORDS = {"kept": "kept", "elsewhere": "dropped by other rules only", "here": "beyond the limit"}
SOFT = "#5c6b7a"
FONT = "DejaVu Sans"  # matplotlib ships it; the page shows its own


@dataclass(frozen=True)
class Histogram:
    """A plot as an SVG element, and what to say of each of its bins, from left to right (empty: no document)."""

    svg: str
    bins: tuple[str, ...]


def histograms(sample: CorpusSample, measures: Sequence[Measure]) -> list[Histogram]:
    """The distribution of each measure, with what becomes of the documents, and the limits. Needs a document."""
    axes = _axes()  # the same for all: to make them takes longer than to draw
    return [_histogram(axes, sample, measure) for measure in measures]


def _histogram(axes: Any, sample: CorpusSample, measure: Measure) -> Histogram:
    edges, log = _edges(measure.values, [bound.limit for bound in measure.bounds])
    states = np.array([document_state(one, measure.reasons) for one in sample.judged])
    values = np.clip(measure.values, edges[0], edges[-1])
    counts = {state: np.histogram(values[states == state], edges)[0] for state in COLOURS}
    totals = np.sum(list(counts.values()), axis=0)
    second, first = np.sort(totals)[-2:]
    # One tall bin, such as that of all texts without a symbol, leaves the others room: it is cut off.
    top = min(first, max(3 * second, 1)) * 1.08
    _scale(axes, edges, log, top)
    drawn = [*_bars(axes, edges, counts, top), *_limits(axes, measure, edges, log)]
    if first > top:
        at = int(np.argmax(totals))
        side, x = ("left", edges[at + 1]) if at < BINS / 2 else ("right", edges[at])
        drawn.append(axes.text(x, top, f" {first:,} ", color=SOFT, fontsize=9, fontfamily=FONT, ha=side, va="top"))
    text = svg(axes, f"{sample.subset}.{measure.reasons[0]}")
    for artist in drawn:
        artist.remove()
    for name, colour in {**COLOURS, "soft": SOFT}.items():  # a page has its own by day and by night
        text = text.replace(colour, f"var(--{name})")
    return Histogram(text, tuple(_in_words(n, edges, counts) for n in range(BINS)))


def document_state(one: SampledDocument, reasons: Sequence[str]) -> str:
    """Which of COLOURS a document has in the plot of what these rules look at."""
    if any(reason in one.broken for reason in reasons):
        return "here"
    return "kept" if one.reason is None else "elsewhere"


def _axes() -> Any:
    from matplotlib.figure import Figure

    size = WIDTH + 2 * LEFT, BELOW + HEIGHT + ABOVE
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
    axes = figure.add_axes((LEFT / size[0], BELOW / size[1], WIDTH / size[0], HEIGHT / size[1]))
    axes.xaxis.set_tick_params(color=SOFT, labelcolor=SOFT, labelsize=10, labelfontfamily=FONT)
    axes.spines["bottom"].set_color(SOFT)
    for part in (figure.patch, axes.patch, axes.yaxis, axes.spines[["top", "left", "right"]]):
        part.set_visible(False)
    return axes


def _scale(axes: Any, edges: Any, log: bool, top: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set(xscale="log" if log else "linear", xlim=(edges[0], edges[-1]), ylim=(0, top))
    decades = LogLocator(subs=(1, 2, 5) if log and edges[-1] / edges[0] < 1000 else (1,))
    axes.xaxis.set_major_locator(decades if log else MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _bars(axes: Any, edges: Any, counts: dict[str, Any], top: float) -> Iterator[Any]:
    """Stacked bars, those of a state colour as one path: a patch for each bar takes matplotlib ten times as long."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    below = np.zeros(BINS)
    for state, colour in COLOURS.items():
        high = np.where(counts[state] > 0, np.maximum(counts[state], top / 100), 0)  # one document can be sample
        above = np.minimum(below + high, top)
        left, right = edges[:-1], edges[:-1] + 0.9 * np.diff(edges)
        corners = [(left, below), (left, above), (right, above), (right, below), (left, below)]
        shown = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)[above > below]
        if len(shown):
            yield axes.add_artist(
                PathPatch(Path.make_compound_path_from_polys(shown), color=colour, lw=0, clip_on=False)
            )
        below = above


def _limits(axes: Any, measure: Measure, edges: Any, log: bool) -> Iterator[Any]:
    middle = math.sqrt(edges[0] * edges[-1]) if log else (edges[0] + edges[-1]) / 2
    up = axes.get_xaxis_transform()
    for row, bound in enumerate(measure.bounds):
        x, y = bound.limit, 1 + (6 + 12 * row) / HEIGHT
        yield from axes.plot([x, x], [0, y], color=COLOURS["here"], lw=1.4, ls=(0, (3, 2)), transform=up, clip_on=False)
        words = f"{bound.reason}: {limit_in_words(bound)}"
        style = {"color": COLOURS["here"], "fontsize": 10, "fontweight": "bold", "fontfamily": FONT}
        side = "left" if x < middle else "right"
        yield axes.text(x, y + 3 / HEIGHT, words, ha=side, transform=up, parse_math=False, **style)


def _in_words(at: int, edges: Any, counts: dict[str, Any]) -> str:
    parts = [f"{counts[state][at]:,} {WORDS[state]}" for state in COLOURS if counts[state][at]]
    where = f"{number(edges[at])} to {number(edges[at + 1])}"
    return f"{where}: {', '.join(parts)}" if parts else ""


def _edges(values: Sequence[float], limits: Sequence[float]) -> tuple[Any, bool]:
    """The edges of the bins, and whether they are logarithmic: where they span more than two orders. The last
    thousandth is in the last bin, or one odd document would squeeze all others."""
    ordered = sorted(values)
    cut = len(ordered) // 1000
    ends = [ordered[cut], ordered[-1 - cut], *limits]
    low, high = min(ends), max(ends)
    log = low > 0 and high > 1 and high / low > 100
    first, last = (math.log10(low), math.log10(high)) if log else (low, high)
    span = (last - first) or 1.0
    first, last = first - 0.02 * span * (first != 0 or log), last + 0.02 * span
    return (np.logspace(first, last, BINS + 1) if log else np.linspace(first, last, BINS + 1)), log
