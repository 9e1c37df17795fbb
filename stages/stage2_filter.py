"""Stage 2: raw corpora -> documents worth a model's time. `kun run stage2 --config configs/demo.yaml`.

A document is kept when it is long enough and short enough, does not repeat itself, and reads like the text that the
language model knows: neither a surprise (garbled, shuffled, menus) nor known by heart (boilerplate); and when it is
nearly the same as none that was kept before. The rules themselves, in order, are in kun/filters/rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kun.config.schema import Config, LanguageModel
from kun.filters.duplicates import near_duplicates
from kun.filters.duplicates.near_duplicates import Indexed
from kun.filters.duplicates.signatures import algorithm
from kun.filters.perplexity import lmplz
from kun.filters.perplexity.percentiles import NO_LIMITS
from kun.filters.rules import Rules, base_folder, measure, open_filter
from kun.pipeline.stage import Build, Folders, Map, Stage, Step, flatten_settings
from kun.progress import Progress
from kun.records import Document, Filtered, Reject
from kun.store import atomic
from kun.store.digests import Digests
from kun.store.shards import read_some
from stages.stage2_ingest import tokenizer_decides

SAMPLED_SHARDS = 200  # of a subset, spread evenly: what relative limits are measured on is read before any work is done
NEAR_DUPLICATES = ("filter.near_duplicates", "filter.near_duplicates_across")  # which do not touch the rules


def stages(config: Config, digests: Digests, ingested: Sequence[Step], evaluations: Step | None = None) -> list[Stage]:
    """The language model where one is configured, the rules, and near-duplicates; a step per corpus.

    `ingested` are the steps with the documents, `evaluations` the one with the index of evaluation files, if any.
    """
    prepare = language_model(config, digests)
    model = prepare[0].steps[0] if prepare else None
    if config.filter.near_duplicates is None:
        return [*prepare, _rules("stage2_filter", config, digests, ingested, model, evaluations)]
    rules = _rules("stage2_quality", config, digests, ingested, model, evaluations)
    return [*prepare, rules, *_near_duplicates(config, config.filter.near_duplicates, rules.steps)]


def language_model(config: Config, digests: Digests) -> list[Stage]:
    """The one stage that makes the model ready; nothing where none is configured, or it is the base model."""
    if config.filter.lm.model is None and config.filter.lm.estimate_from is None:
        return []

    def decides() -> dict[str, Any]:
        settings = flatten_settings("filter.lm", config.filter.lm)
        for name in ("filter.lm.model", "filter.lm.sentencepiece", "filter.lm.estimate_from"):
            if path := settings[name]:
                settings[name] = digests.path(path, name)
        return settings

    build = Build(lambda step, folder, folders, progress: lmplz.make(config.filter.lm, folder, progress).made, "texts")
    return [Stage("stage2", "stage2_lm", build, (Step("stage2_lm", "kenlm", decides),))]


def _rules(
    name: str,
    config: Config,
    digests: Digests,
    ingested: Sequence[Step],
    model: Step | None,
    evaluations: Step | None,
) -> Stage:
    """What is decided of each document by itself (kun.filters.rules)."""

    def open_rules(step: Step, folders: Folders) -> Rules:
        own = config.of_subset(step.part)
        artefact = base_folder(config) if config.filter.lm.base else None if model is None else folders(model)
        limits = NO_LIMITS
        if artefact is not None:
            limits, rest_on = measure(own, read_some(folders(step.needs[0]), Document, SAMPLED_SHARDS), artefact)
            record = {"ppl_min": limits.low, "ppl_max": limits.high, "documents": rest_on}
            atomic.write(folders(step) / "thresholds.json", msgspec.json.encode(record))
        return open_filter(own, artefact, limits, None if evaluations is None else folders(evaluations))

    def decides(part: str) -> dict[str, Any]:
        own = config.of_subset(part).filter.model_copy(update={"lm": LanguageModel()})  # the model is a step of its own
        decided = {
            name: value for name, value in flatten_settings("filter", own).items() if name not in NEAR_DUPLICATES
        }
        # Runs from before there was such a rule stay current while it is off.
        decided = {name: value for name, value in decided.items() if value or not name.startswith("filter.privacy.")}
        decided |= tokenizer_decides(config, digests)
        if config.filter.lm.base:
            decided["filter.lm.base"] = digests.path(base_folder(config), "base_model")
        return decided

    needs = tuple(step for step in (model, evaluations) if step is not None)
    steps = tuple(Step(name, step.part, partial(decides, step.part), (step, *needs), 3) for step in ingested)
    return Stage("stage2", name, Map(Document, Filtered, open_rules), steps)


def _near_duplicates(config: Config, limit: float, judged: Sequence[Step]) -> list[Stage]:
    """An index for each subset, of its documents and those of the subsets before it, and what the index leaves."""

    def build(step: Step, folder: Path, folders: Folders, progress: Progress) -> dict[str, int]:
        subsets = [Indexed(one.part, folders(one.needs[0]), folders(one)) for one in _and_before(step)]
        return near_duplicates.build(subsets, limit, config.workers, progress)

    def decides() -> dict[str, Any]:
        return {"filter.near_duplicates": limit, "signatures": algorithm()}

    found: list[Step] = []
    for step in judged:
        before = found[-1:] if config.filter.near_duplicates_across else []
        found.append(Step("stage2_duplicates", step.part, decides, (step, *before)))
    steps = [Step("stage2_filter", step.part, dict, (step, own)) for step, own in zip(judged, found, strict=True)]

    def open_index(step: Step, folders: Folders) -> Callable[[Sequence[Filtered]], list[Filtered | Reject]]:
        return partial(near_duplicates.judge, folders(step.needs[1]))

    return [
        Stage("stage2", "stage2_duplicates", Build(build, "documents"), tuple(found)),
        Stage("stage2", "stage2_filter", Map(Filtered, Filtered, open_index), tuple(steps)),
    ]


def _and_before(index: Step) -> list[Step]:
    """The indexes of the subsets before, in order, and this one; each needs the one before it."""
    _, *before = index.needs
    return [*(_and_before(before[0]) if before else []), index]
