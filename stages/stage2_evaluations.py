"""Stage 2, before the filter: the index of the evaluation files that the data must not give away.

The filter looks documents up in it; stages 3 and 5 look up the instructions and outputs that models write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kun.config.schema import Config
from kun.corpora.evaluation import SETTING, find_evaluations
from kun.filters.decontamination import ngrams as decontaminate
from kun.pipeline.stage import Build, Folders, Stage, Step, flatten_settings
from kun.progress import Progress
from kun.store.digests import Digests


def stages(config: Config, digests: Digests) -> list[Stage]:
    """The one step that makes the index; nothing where no evaluation file is named."""
    if not config.decontaminate.files:
        return []

    def decides() -> dict[str, Any]:
        found = find_evaluations(config.decontaminate.files)
        content = digests.files([file.path for file in found], SETTING)
        files = [[file.name, digest] for file, digest in zip(found, content, strict=True)]
        return {**flatten_settings("decontaminate", config.decontaminate), SETTING: files}

    def build(step: Step, folder: Path, folders: Folders, progress: Progress) -> dict[str, Any]:
        info = decontaminate.build(config.decontaminate, folder, progress)
        return {**msgspec.structs.asdict(info), "files": len(info.files)}

    return [
        Stage("stage2", "stage2_evaluations", Build(build, "rows"), (Step("stage2_evaluations", "index", decides),))
    ]
