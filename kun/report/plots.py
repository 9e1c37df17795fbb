"""Plots of a run, from a sample of its shards: `draw(run, states)` fills `runs/<name>/report/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kun.pipeline.run_folder import RunFolder
from kun.pipeline.status import State
from kun.plots import new_axes, png
from kun.records import Filtered, Polished, Raw, Scored
from kun.store import atomic, shards

MOST_SHARDS = 50  # per subset: enough for a histogram of any run


def draw(run: RunFolder, states: list[State]) -> Path:
    """Write funnel.png and a histogram of each measure that the run has. Returns the folder."""
    folder = run.path / "report"
    drawing = atomic.temporary_of(folder)
    drawing.mkdir(exist_ok=True)
    axes = new_axes(ylabel="rows kept")
    _funnel(axes, states)
    (drawing / "funnel.png").write_bytes(png(axes))
    for stage, kind, field, title, log in (
        ("stage2_filter", Filtered, "ppl", "perplexity of kept documents", True),
        ("stage2_filter", Filtered, "tokens", "tokens of kept documents", False),
        ("stage4_verdicts", Scored, "score", "score of instructions, before selection", False),
        ("stage5_polish", Polished, "faithfulness", "faithfulness of kept replies", False),
    ):
        values = {
            state.part: [value for value in _values(run.path / stage / state.part, kind, field) if value is not None]
            for state in states
            if state.stage == stage and state.counts.kept
        }
        if any(values.values()):
            axes = new_axes(xlabel=title, ylabel="rows")
            _histogram(axes, values, log)
            (drawing / f"{field}.png").write_bytes(png(axes))
    if folder.exists():
        shutil.rmtree(folder)
    drawing.rename(folder)
    return folder


def _funnel(axes: Any, states: list[State]) -> None:
    records = [state for state in states if state.records]
    stages = list(dict.fromkeys(state.stage for state in records))
    for part in dict.fromkeys(state.part for state in records):
        kept = {state.stage: state.counts.kept for state in records if state.part == part}
        axes.plot(stages, [kept.get(stage, 0) for stage in stages], marker="o", label=part)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", rotation=20)
    axes.legend()


def _histogram(axes: Any, values: dict[str, list[float]], log: bool) -> None:
    if log:
        axes.set_xscale("log")
    for part, numbers in values.items():
        if numbers:
            axes.hist(numbers, bins=40, histtype="step", label=f"{part} ({len(numbers):,})")
    axes.legend()


def _values(folder: Path, kind: type[Raw], field: str) -> Iterator[Any]:
    finished = shards.finished(folder)
    for index in finished[:: max(1, -(-len(finished) // MOST_SHARDS))]:
        for record in shards.read_kept(folder, index, kind):
            yield getattr(record, field)
