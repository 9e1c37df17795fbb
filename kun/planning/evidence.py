"""What a run has done so far, for its plan: `Evidence(run, steps).share("stage3_label", "wudao")`.

Fingerprints would say whether a step of the run is current, but they digest the corpora, which takes hours for 600 GB;
so the plain names are followed, and what is said tells which settings of the step itself are others now.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from kun.errors import InputError
from kun.pipeline.run_folder import Fingerprint, RunFolder, StepManifest, read_manifest, summarise
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
        """Of the finished shards of a step; None where there is none with rows."""
        folder = self._folder(stage, subset)
        whole = read_manifest(folder)
        if whole is None:
            markers = [shards.marker(folder, index) for index in shards.finished(folder)]
            whole = summarise([marker for marker in markers if marker is not None], "")
        return whole if whole.rows > whole.failed else None

    def whole(self, stage: str, subset: str) -> StepManifest | None:
        """Of a step that is through."""
        whole = read_manifest(self._folder(stage, subset))
        return whole if whole is not None and whole.rows > whole.failed else None

    def records(self, stage: str, subset: str, kind: type[R]) -> list[R]:
        """Some of the kept records of a step, from all of it."""
        try:
            found = list(shards.read_some(self._folder(stage, subset), kind, READ_SHARDS))
        except InputError:  # a damaged run is no reason not to plan
            return []
        return found[:: -(-len(found) // RECORDS) or 1]

    def share(self, stage: str, subset: str) -> Figure | None:
        """What a step has kept of its rows so far."""
        counts = self.counts(stage, subset)
        if counts is None:
            return None
        how = f"{counts.rows:,} rows"
        if names := self.changed(stage, subset):
            how += f", made with other settings ({', '.join(names)})"
        return Figure(counts.kept / (counts.rows - counts.failed), "run", how)

    def changed(self, stage: str, subset: str) -> list[str]:
        """The settings of the step itself that are others now."""
        step = self._steps.get(f"{stage}/{subset}")
        try:
            old = msgspec.json.decode((self._folder(stage, subset) / "fingerprint.json").read_bytes(), type=Fingerprint)
        except (FileNotFoundError, ValueError):
            return []
        if step is None:
            return ["steps"]
        new = msgspec.json.decode(msgspec.json.encode(step.decides()))
        settled = {name: part for name, part in old.parts.items() if not name.startswith(("needs.", "version of"))}
        return sorted(name for name in settled | new if settled.get(name) != new.get(name))

    def _folder(self, stage: str, subset: str) -> Path:
        return self.path / stage / subset
