"""Stage 2, filter: raw corpora -> documents worth a model's time. `kun run stage2`

A document is kept if it is neither too short nor too long, does not repeat itself, reads like the text that the
language model knows, neither surprising (garbled, shuffled, menus) nor known by heart (boilerplate), and is not a
near-duplicate of one that was kept before. The rules, in their order, are in kun/filters/rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kun.config.schema import Config, Filter
from kun.filters.duplicates import near_duplicates
from kun.filters.duplicates.near_duplicates import Indexed
from kun.filters.duplicates.signatures import algorithm
from kun.filters.perplexity import lmplz
from kun.filters.perplexity.percentiles import NO_LIMITS, Limits, needs_sample, thresholds, within
from kun.filters.rules import Rules, base_folder, measure, open_filter
from kun.pipeline.stage import Build, Map, Measure, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.records import Document, Filtered, Reject
from kun.store import atomic
from kun.store.digests import Digests
from kun.store.shards import read_some
from stages.stage2_ingest import tokenizer_content

SAMPLED_SHARDS = 200  # of a subset, chosen by their keys: relative limits are measured on them
LIMITS = ("ppl_min", "ppl_max", "sample")  # settings that the rules do not read where they are relative
OF_OTHER_STEPS = ("lm", "near_duplicates", "near_duplicates_across")  # settings of `filter` that the rules do not read

LM = StageSpec("stage2", "stage2_lm", "artefact", per_subset=False)
QUALITY = StageSpec("stage2", "stage2_quality", "filter", Document, Filtered, version=4)
PERPLEXITY = StageSpec("stage2", "stage2_perplexity", "filter", Filtered, Filtered)
DUPLICATES = StageSpec("stage2", "stage2_duplicates", "artefact")
MEASURES = Measure("ppl", "perplexity of kept documents", log=True), Measure("tokens", "tokens of kept documents")
FILTER = StageSpec("stage2", "stage2_filter", "filter", Filtered, Filtered, measures=MEASURES)


def stages(config: Config, digests: Digests, ingested: Sequence[Step], evaluations: Step | None = None) -> list[Stage]:
    """The language model if one is configured, the rules, limits of perplexity that are relative to the subset, and
    near-duplicates; the last of them, which the models read, is named `stage2_filter`.

    `ingested` are the steps with the documents, `evaluations` is the step with the index of evaluation files, if any.
    """
    prepare = language_model(config, digests)
    model = prepare[0].steps[0] if prepare else None
    has_model = model is not None or config.filter.lm.base
    relative = has_model and any(needs_sample(config.of_subset(step.part).filter) for step in ingested)
    near = config.filter.near_duplicates is not None
    rules = replace(QUALITY, name=FILTER.name, measures=MEASURES) if not (relative or near) else QUALITY
    found = [*prepare, _rules(rules, config, digests, ingested, model, evaluations)]
    if relative:
        limits = PERPLEXITY if near else replace(PERPLEXITY, name=FILTER.name, measures=MEASURES)
        found.append(_relative(limits, config, digests, found[-1].steps, model))
    return [*found, *_near_duplicates(config, found[-1].steps)] if near else found


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
        elsewhere = (*OF_OTHER_STEPS, *(LIMITS if part in relative else ()))
        names = [f"filter.{name}" for name in Filter.model_fields if name not in elsewhere]
        content = tokenizer_content(config, digests)
        if config.filter.lm.base:
            content |= {"base_model": digests.path(base_folder(config), "base_model")}
        return StepSettings.of(own, [*names, "filter.lm.base", "base_model"], **content)

    relative = {step.part for step in ingested if needs_sample(config.of_subset(step.part).filter)}
    needs = tuple(step for step in (model, evaluations) if step is not None)
    steps = tuple(Step(spec, step.part, partial(settings, step.part), (step, *needs)) for step in ingested)
    return Stage(spec, Map(partial(open_rules, model, evaluations, relative)), steps)


def open_rules(
    model: Step | None, evaluations: Step | None, relative: Container[str], context: StepContext, _: Any
) -> Rules:
    """The rules for a subset, without limits of perplexity that are relative to it."""
    settings = context.settings
    artefact = _model_folder(model, context)
    limits = NO_LIMITS if context.step.part in relative else thresholds(settings.filter, ())
    return open_filter(settings, artefact, limits, context.folder_of_any(evaluations))


def _model_folder(model: Step | None, context: StepContext) -> Path | None:
    return base_folder(context.settings) if context.settings.filter.lm.base else context.folder_of_any(model)


def _relative(spec: StageSpec, config: Config, digests: Digests, judged: Sequence[Step], model: Step | None) -> Stage:
    """The stage that applies limits of perplexity which are measured on a sample of the subset as it was read."""

    def settings(part: str) -> StepSettings:
        names = [f"filter.{name}" for name in ("ppl_min", "ppl_max", "sample", "clean", "privacy", "lm.base")]
        content = {} if not config.filter.lm.base else {"base_model": digests.path(base_folder(config), "base_model")}
        names += ["base_model"] if config.filter.lm.base else []
        return StepSettings.of(config.of_subset(part), names, **content)

    needs = () if model is None else (model,)
    steps = tuple(Step(spec, step.part, partial(settings, step.part), (step, step.needs[0], *needs)) for step in judged)
    return Stage(spec, Map(open_limits, partial(decide_limits, model)), steps)


def decide_limits(model: Step | None, context: StepContext) -> dict[str, float | None]:
    """The limits of a subset, measured on a sample of what was read, also of what the rules drop."""
    artefact = _model_folder(model, context)
    assert artefact is not None
    limits, rest_on = measure(context.settings, read_some(context.need(1), Document, SAMPLED_SHARDS), artefact)
    record = {"ppl_min": limits.low, "ppl_max": limits.high, "documents": rest_on}
    atomic.write(context.folder / "thresholds.json", msgspec.json.encode(record))
    return {"low": limits.low, "high": limits.high}


def open_limits(context: StepContext, limits: dict[str, float | None]) -> Callable[..., list[Filtered | Reject]]:
    return partial(within, Limits(**limits) if needs_sample(context.settings.filter) else NO_LIMITS)


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


def open_near_duplicates(context: StepContext, _: Any) -> Callable[[Sequence[Filtered]], list[Filtered | Reject]]:
    return partial(near_duplicates.judge, context.need(1))


def _and_before(index: Step) -> list[Step]:
    """This index and those of the subsets before it, in order; each needs the one before it."""
    _, *before = index.needs
    return [*(_and_before(before[0]) if before else []), index]
