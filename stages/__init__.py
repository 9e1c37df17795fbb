"""The five stages in order: `pipeline(config, digests, engines)` gives them as data, for `kun.pipeline` to run."""

from __future__ import annotations

from kun.config.schema import Config
from kun.engines.cache import EngineCache
from kun.pipeline.stage import Stage
from kun.store.digests import Digests
from stages import (
    stage1_train,
    stage2_evaluations,
    stage2_filter,
    stage2_ingest,
    stage3_label,
    stage4_score,
    stage5_polish,
)


def pipeline(config: Config, digests: Digests, engines: EngineCache) -> list[Stage]:
    """Seeds make two models; each corpus is read, filtered, labelled, judged, selected and polished."""
    train = stage1_train.stage(config, digests)
    label_model, primary_chat = train.steps
    evaluations = stage2_evaluations.stages(config, digests)
    index = evaluations[0].steps[0] if evaluations else None
    ingest = stage2_ingest.stages(config, digests)
    *prepare, filtered = stage2_filter.stages(config, digests, ingest[-1].steps, index)
    labelled = stage3_label.stage(config, engines, label_model, filtered.steps, index)
    *judging, scored = stage4_score.stages(config, digests, engines, primary_chat, labelled.steps)
    polished = stage5_polish.stage(config, engines, primary_chat, scored.steps, index)
    return [train, *evaluations, *ingest, *prepare, filtered, labelled, *judging, scored, polished]
