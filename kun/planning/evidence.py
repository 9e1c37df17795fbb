"""What a run has done so far, for its plan: `Evidence(run, steps).share("stage3_label", "wudao")`.

Fingerprints would tell whether a step of the run is current, but they digest the corpora, which takes hours for 600 GB.
So the plain names are followed, and the plan names the step's own settings that have changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from kun.errors import InputError
from kun.pipeline.run_folder import VERSION, RunFolder, StepManifest, counts_so_far, is_need, read_fingerprint
from kun.pipeline.run_folder import read_manifest as finished_counts
from kun.pipeline.stage import Step
from kun.planning.figures import Figure
from kun.records import Raw
from kun.store import shards

R = TypeVar("R", bound=Raw)
READ_SHARDS, RECORDS = 20, 2000  # of a step, spread evenly, that are looked at


class Evidence:
    """A run's finished shards, by the plain names of their steps."""

    def __init__(self, run: RunFolder, steps: Mapping[str, Step]) -> None:
        self.path = run.path
        self._steps = steps

    def counts(self, stage: str, subset: str) -> StepManifest | None:
        """The counts of the finished shards of a step; None if no row has an outcome yet."""
        folder = self._folder(stage, subset)
        counts = finished_counts(folder) or counts_so_far(folder)
        return counts if counts.rows > counts.failed else None

    def finished(self, stage: str, subset: str) -> StepManifest | None:
        """The same for a finished step; None if it is not finished."""
        counts = finished_counts(self._folder(stage, subset))
        return counts if counts is not None and counts.rows > counts.failed else None

    def records(self, stage: str, subset: str, kind: type[R]) -> list[R]:
        """Some of the kept records of a step, spread evenly over it."""
        try:
            records = list(shards.read_some(self._folder(stage, subset), kind, READ_SHARDS))
        except InputError:  # a damaged run can be planned all the same
            return []
        return records[:: -(-len(records) // RECORDS) or 1]

    def share(self, stage: str, subset: str) -> Figure | None:
        """The share of its rows that a step has kept so far."""
        counts = self.counts(stage, subset)
        if counts is None:
            return None
        how = f"{counts.rows:,} rows"
        if names := self.changed(stage, subset):
            how += f", made with other settings ({', '.join(names)})"
        return Figure(counts.kept / (counts.rows - counts.failed), "run", how)

    def changed(self, stage: str, subset: str) -> list[str]:
        """The settings of the step itself that have changed since."""
        step = self._steps.get(f"{stage}/{subset}")
        old = read_fingerprint(self._folder(stage, subset))
        if old is None:
            return []
        if step is None:
            return ["steps"]
        new = msgspec.json.decode(msgspec.json.encode(step.settings().parts))
        settled = {name: part for name, part in old.parts.items() if name != VERSION and not is_need(name)}
        return sorted(name for name in settled | new if settled.get(name) != new.get(name))

    def _folder(self, stage: str, subset: str) -> Path:
        return self.path / stage / subset
