"""Plots of a run, from a sample of its shards: `draw(run, stages, states)` fills `runs/<name>/report/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kun.pages.plots import new_axes, png
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.stage import Stage
from kun.pipeline.status import State
from kun.records import Raw
from kun.store import atomic, shards

MOST_SHARDS = 50  # per subset: enough for a histogram of any run


def draw(run: RunFolder, stages: Sequence[Stage], states: Sequence[State]) -> Path:
    """Write funnel.png, and a histogram of each measure that a stage declares and the run has. Returns the folder."""
    folder = run.path / "report"
    drawing = atomic.temporary_of(folder)
    drawing.mkdir(exist_ok=True)
    axes = new_axes(ylabel="rows kept")
    _funnel(axes, states)
    (drawing / "funnel.png").write_bytes(png(axes))
    for stage, measure in [(one, measure) for one in stages for measure in one.spec.measures]:
        values = {
            state.part: list(_values(run.path / stage.name / state.part, stage.spec.writes, measure.field))
            for state in states
            if state.stage == stage.name and state.counts.kept
        }
        if any(values.values()):
            axes = new_axes(xlabel=measure.title, ylabel="rows")
            _histogram(axes, values, measure.log)
            (drawing / f"{measure.field}.png").write_bytes(png(axes))
    if folder.exists():
        shutil.rmtree(folder)
    drawing.rename(folder)
    return folder


def _funnel(axes: Any, states: Sequence[State]) -> None:
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
    for record in shards.read_some(folder, kind, MOST_SHARDS):
        if (value := getattr(record, field)) is not None:
            yield value
