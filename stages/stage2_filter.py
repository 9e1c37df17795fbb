"""Stage 2, filter: raw corpora -> documents worth a model's time. `kun run stage2`

A document is kept if it is neither too short nor too long, does not repeat itself, reads like the text that the
language model knows, neither surprising (garbled, shuffled, menus) nor known by heart (boilerplate), and is not a
near-duplicate of one that was kept before. The rules, in their order, are in kun/filters/rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from kun.config.schema import Config, Filter
from kun.filters.duplicates import near_duplicates
from kun.filters.duplicates.near_duplicates import Indexed
from kun.filters.duplicates.signatures import algorithm
from kun.filters.perplexity import lmplz
from kun.filters.perplexity.percentiles import NO_LIMITS
from kun.filters.rules import Rules, base_folder, measure, open_filter
from kun.pipeline.stage import Build, Map, Measure, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.records import Document, Filtered, Reject
from kun.store import atomic
from kun.store.digests import Digests
from kun.store.shards import read_some
from stages.stage2_ingest import tokenizer_content

SAMPLED_SHARDS = 200  # of a subset, spread evenly: relative limits are measured on them before any shard is judged
OF_OTHER_STEPS = ("lm", "near_duplicates", "near_duplicates_across")  # settings of `filter` that the rules do not read

LM = StageSpec("stage2", "stage2_lm", "artefact", per_subset=False)
QUALITY = StageSpec("stage2", "stage2_quality", "filter", Document, Filtered, version=3)
DUPLICATES = StageSpec("stage2", "stage2_duplicates", "artefact")
MEASURES = Measure("ppl", "perplexity of kept documents", log=True), Measure("tokens", "tokens of kept documents")
FILTER = StageSpec("stage2", "stage2_filter", "filter", Filtered, Filtered, measures=MEASURES)


def stages(config: Config, digests: Digests, ingested: Sequence[Step], evaluations: Step | None = None) -> list[Stage]:
    """The language model if one is configured, the rules, and near-duplicates.

    `ingested` are the steps with the documents, `evaluations` is the step with the index of evaluation files, if any.
    """
    prepare = language_model(config, digests)
    model = prepare[0].steps[0] if prepare else None
    if config.filter.near_duplicates is None:
        spec = replace(QUALITY, name=FILTER.name, measures=MEASURES)
        return [*prepare, _rules(spec, config, digests, ingested, model, evaluations)]
    rules = _rules(QUALITY, config, digests, ingested, model, evaluations)
    return [*prepare, rules, *_near_duplicates(config, rules.steps)]


def language_model(config: Config, digests: Digests) -> list[Stage]:
    """One stage, which prepares the KenLM model; none where no model is configured, or it is the base model."""
    lm = config.filter.lm
    if lm.model is None and lm.estimate_from is None:
        return []

    def settings() -> StepSettings:
        paths = {"model": lm.model, "sentencepiece": lm.sentencepiece, "estimate_from": lm.estimate_from}
        names = {f"filter.lm.{name}": path for name, path in paths.items() if path}
        return StepSettings.of(config, ["filter.lm"], **{n: digests.path(path, n) for n, path in names.items()})

    return [Stage(LM, Build(make_language_model, "texts"), (Step(LM, "kenlm", settings),))]


def make_language_model(context: StepContext, progress: Progress) -> dict[str, Any]:
    return lmplz.make(context.settings.filter.lm, context.folder, progress).made


def _rules(
    spec: StageSpec,
    config: Config,
    digests: Digests,
    ingested: Sequence[Step],
    model: Step | None,
    evaluations: Step | None,
) -> Stage:
    """The stage that judges each document by itself (kun.filters.rules)."""

    def settings(part: str) -> StepSettings:
        own = config.of_subset(part)
        names = [f"filter.{name}" for name in Filter.model_fields if name not in OF_OTHER_STEPS]
        content = tokenizer_content(config, digests)
        if config.filter.lm.base:
            content |= {"base_model": digests.path(base_folder(config), "base_model")}
        return StepSettings.of(own, [*names, "filter.lm.base", "base_model"], **content)

    needs = tuple(step for step in (model, evaluations) if step is not None)
    steps = tuple(Step(spec, step.part, partial(settings, step.part), (step, *needs)) for step in ingested)
    return Stage(spec, Map(partial(open_rules, model, evaluations)), steps)


def open_rules(model: Step | None, evaluations: Step | None, context: StepContext) -> Rules:
    """The rules for a subset, with its perplexity limits measured on a sample of it."""
    settings = context.settings
    artefact = base_folder(settings) if settings.filter.lm.base else context.folder_of_any(model)
    limits = NO_LIMITS
    if artefact is not None:
        sample = read_some(context.need(0), Document, SAMPLED_SHARDS)
        limits, rest_on = measure(settings, sample, artefact)
        record = {"ppl_min": limits.low, "ppl_max": limits.high, "documents": rest_on}
        atomic.write(context.folder / "thresholds.json", msgspec.json.encode(record))
    return open_filter(settings, artefact, limits, context.folder_of_any(evaluations))


def _near_duplicates(config: Config, judged: Sequence[Step]) -> list[Stage]:
    """For each subset, an index of its near-duplicates, also with the subsets before it; then the filter by index."""

    def settings() -> StepSettings:
        return StepSettings.of(config, ["filter.near_duplicates"], signatures=algorithm())

    def no_settings() -> StepSettings:
        return StepSettings.of(config, [])

    indexes: list[Step] = []
    for step in judged:
        before = indexes[-1:] if config.filter.near_duplicates_across else []
        indexes.append(Step(DUPLICATES, step.part, settings, (step, *before)))
    steps = [Step(FILTER, step.part, no_settings, (step, index)) for step, index in zip(judged, indexes, strict=True)]
    build = Build(index_near_duplicates, "documents")
    return [Stage(DUPLICATES, build, tuple(indexes)), Stage(FILTER, Map(open_near_duplicates), tuple(steps))]


def index_near_duplicates(context: StepContext, progress: Progress) -> dict[str, int]:
    place, chain = context.folder_of, _and_before(context.step)
    subsets = [Indexed(index.part, place(index.needs[0]), place(index)) for index in chain]
    limit = context.settings.filter.near_duplicates
    assert limit is not None
    return near_duplicates.build(subsets, limit, context.settings.workers, progress)


def open_near_duplicates(context: StepContext) -> Callable[[Sequence[Filtered]], list[Filtered | Reject]]:
    return partial(near_duplicates.judge, context.need(1))


def _and_before(index: Step) -> list[Step]:
    """This index and those of the subsets before it, in order; each needs the one before it."""
    _, *before = index.needs
    return [*(_and_before(before[0]) if before else []), index]
