"""The pipelines, as data: `pipeline(config, digests, engines)` returns their stages in order, for the runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

Pipeline = Callable[[Config, Digests, EngineCache, Sequence[Stage]], list[Stage]]


def back_translation(config: Config, digests: Digests, engines: EngineCache, _: Sequence[Stage]) -> list[Stage]:
    """Train two models on the seeds; then read, filter, label, judge, select and polish each corpus."""
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


PIPELINES: tuple[Pipeline, ...] = (back_translation,)  # each may build on the stages of those before it


def pipeline(config: Config, digests: Digests, engines: EngineCache) -> list[Stage]:
    """The stages of all pipelines, in the order in which they run."""
    stages: list[Stage] = []
    for add in PIPELINES:
        stages += add(config, digests, engines, stages)
    return stages
