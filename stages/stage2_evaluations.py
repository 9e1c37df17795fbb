"""Stage 2, before the filter: an index of the evaluation files, whose texts must not leak into the data.

The filter looks up documents in it; stages 3 and 5 look up the instructions and outputs that the models write.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kun.config.schema import Config
from kun.corpora.evaluation import SETTING, find_evaluations
from kun.filters.decontamination import ngrams as decontaminate
from kun.pipeline.stage import Build, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.store.digests import Digests

EVALUATIONS = StageSpec("stage2", "stage2_evaluations", "artefact", version=2, per_subset=False)


def stages(config: Config, digests: Digests) -> list[Stage]:
    """One stage, which builds the index; none where no evaluation file is configured."""
    if not config.decontaminate.files:
        return []

    def settings() -> StepSettings:
        found = find_evaluations(config.decontaminate.files)
        content = digests.files([file.path for file in found], SETTING)
        files = [[file.name, digest] for file, digest in zip(found, content, strict=True)]
        return StepSettings.of(config, ["decontaminate"], **{SETTING: files})

    return [Stage(EVALUATIONS, Build(build, "rows"), (Step(EVALUATIONS, "index", settings),))]


def build(context: StepContext, progress: Progress) -> dict[str, Any]:
    info = decontaminate.build(context.settings.decontaminate, context.folder, progress)
    return {**msgspec.structs.asdict(info), "files": len(info.files)}
