"""Stage 2: raw corpora -> documents worth a model's time. `kun run stage2 --config configs/demo.yaml`.

A document is kept when it is long enough and short enough, does not repeat itself, and reads like the text that the
language model knows: neither a surprise (garbled, shuffled, menus) nor known by heart (boilerplate); and when it is
nearly the same as none that was kept before. Reading, normalisation and exact duplicates come first, at ingest
(kun.corpora).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kun.config import Config, Corpus, EngineConfig, Filter, LanguageModel
from kun.corpora import index
from kun.corpora.files import find
from kun.corpora.ingest import documents, items, splitter
from kun.corpora.readers import read_part
from kun.errors import InputError
from kun.filters import decontaminate, length, lm, lmplz, near_duplicates, percentiles, repetition
from kun.filters.near_duplicates import Indexed
from kun.filters.percentiles import NO_LIMITS, Limits
from kun.filters.signatures import algorithm
from kun.progress import Progress
from kun.records import Document, Filtered, Raw, Reject, extend
from kun.steps import Build, Folders, Ingest, Map, Stage, Step, flat
from kun.store import atomic
from kun.store.digests import Digests, of_value
from kun.store.shards import read_all
from kun.tokenizer import FILES, local_folder

NEAR_DUPLICATES = ("filter.near_duplicates", "filter.near_duplicates_across")  # which do not touch the rules


@dataclass(frozen=True)
class Rules:
    """The rules in order, cheap ones first; a worker process opens tokenizer and language model on first use."""

    settings: Filter
    tokenizer: Path
    trust_remote_code: bool
    lm: Path | None
    limits: Limits
    engine: EngineConfig
    evaluations: Path | None = None

    def __call__(self, document: Document) -> Filtered | Reject:
        settings, text = self.settings, document.text
        if reject := length.too_short(text, settings.min_chars):
            return reject
        # Before the rules that look at every character: from here on texts are short.
        count = length.token_counter(self.tokenizer, self.trust_remote_code)
        tokens = length.count_up_to(count, text, settings.max_tokens)
        if reject := length.too_long(tokens, settings.max_tokens):
            return reject
        if settings.repetition is not None and (reject := repetition.repetitive(text, settings.repetition)):
            return reject
        if reject := decontaminate.contaminated(self.evaluations, [text])[0]:
            return reject
        ppl = None if self.lm is None else self._perplexity(text)
        if ppl is not None and (reject := lm.outside(ppl, self.limits)):
            return reject
        return extend(document, Filtered, ppl=ppl, tokens=tokens)

    def _perplexity(self, text: str) -> float:
        assert self.lm is not None
        return lm.perplexities(self.lm, [text], self.engine, self.trust_remote_code)[0]


def open_filter(
    config: Config, model: Path | None, limits: Limits = NO_LIMITS, evaluations: Path | None = None
) -> Rules:
    """The filter of one subset. `model` is the artefact of the language model, or the base model; None: no perplexity.
    `evaluations` is the index of evaluation files; None: there is none.

    InputError where the base model's tokenizer cannot be read.
    """
    return Rules(config.filter, _base(config), config.trust_remote_code, model, limits, config.engine, evaluations)


def measure(config: Config, documents: Iterable[Document], model: Path) -> tuple[Limits, int]:
    """The limits of a subset, and on how many perplexities they rest: of a sample, as far as the other rules keep it.

    Only the sample is scored, and only where a limit is a percentile.
    """
    if not percentiles.needs_sample(config.filter):
        return percentiles.thresholds(config.filter, ()), 0
    judge = open_filter(config, model)
    judged = [judge(document) for document in percentiles.sample(documents, config.filter.sample)]
    ppls = [kept.ppl for kept in judged if isinstance(kept, Filtered) and kept.ppl is not None]
    return percentiles.thresholds(config.filter, ppls), len(ppls)


def piece_splitter(config: Config) -> Callable[[str], list[str]] | None:
    """How ingest cuts over-long texts, where the settings ask for it."""
    if config.ingest.overlong == "drop":
        return None
    return splitter(length.token_counter(_base(config), config.trust_remote_code), config.filter.max_tokens)


def _base(config: Config) -> Path:
    if config.base_model is None:
        raise InputError("base_model: not set; its tokenizer says how long a text is")
    return local_folder(config.base_model)


def stages(config: Config, digests: Digests, evaluations: Step | None = None) -> list[Stage]:
    """Reading, the language model where one is configured, the rules, and near-duplicates; a step per corpus.

    `evaluations` is the step with the index of evaluation files, where some are named.
    """
    indexing = _index(config, digests)
    ingest = _ingest(config, indexing.steps)
    if config.filter.lm.model is None and config.filter.lm.estimate_from is None:
        return [indexing, ingest, *_filter(config, digests, ingest.steps, None, evaluations)]
    model = Step("stage2_lm", "kenlm", lambda: _lm_decides(config, digests))
    build = Build(lambda step, folder, folders, progress: lmplz.make(config.filter.lm, folder, progress).made, "texts")
    lm_stage = Stage("stage2", "stage2_lm", build, (model,))
    return [indexing, ingest, lm_stage, *_filter(config, digests, ingest.steps, model, evaluations)]


def _index(config: Config, digests: Digests) -> Stage:
    def build(step: Step, folder: Path, folders: Folders, progress: Progress) -> Mapping[str, Any]:
        corpus = config.corpora[step.part]
        return index.build(folder, step.part, corpus, partial(piece_splitter, config), config.workers, progress)

    def decides(name: str, corpus: Corpus) -> dict[str, Any]:
        found = find(name, corpus)
        content = digests.files([file.path for file in found], f"corpora.{name}.paths")
        files = [[file.name, digest] for file, digest in zip(found, content, strict=True)]
        settings: dict[str, Any] = {f"corpora.{name}.files": files, f"corpora.{name}.format": corpus.format}
        settings |= {f"corpora.{name}.field": corpus.field, "ingest.overlong": config.ingest.overlong}
        if config.ingest.overlong == "split":
            settings |= {"filter.max_tokens": config.filter.max_tokens, **_tokenizer(config, digests)}
        return settings

    corpora = config.corpora.items()
    steps = tuple(Step("stage2_index", name, partial(decides, name, corpus)) for name, corpus in corpora)
    return Stage("stage2", "stage2_index", Build(build, "MB"), steps)


def _ingest(config: Config, indexed: tuple[Step, ...]) -> Stage:
    def units(step: Step, folders: Folders) -> list[tuple[tuple[Path, index.Unit], int]]:
        folder = folders(step.needs[0])
        return [((folder, unit), unit.items) for unit in index.units(folder, step.part, config.corpora[step.part])]

    def decides() -> dict[str, Any]:
        return {"ingest.duplicates": config.ingest.duplicates, "ingest.shard_rows": config.ingest.shard_rows}

    steps = tuple(Step("stage2_ingest", step.part, decides, (step,)) for step in indexed)
    return Stage("stage2", "stage2_ingest", Ingest(units, partial(read_unit, config), config.ingest.shard_rows), steps)


def read_unit(config: Config, indexed: tuple[Path, index.Unit]) -> Iterator[tuple[Raw, Document | Reject]]:
    """The documents of one unit of a corpus, and what gave none; by the index of the corpus in a folder."""
    folder, unit = indexed
    rows = read_part(unit.subset, config.corpora[unit.subset], unit.found)
    repeats = index.occurrences(folder, unit)
    return documents(unit.subset, items(rows, piece_splitter(config)), repeats, config.ingest.duplicates)


def _lm_decides(config: Config, digests: Digests) -> dict[str, Any]:
    settings = flat("filter.lm", config.filter.lm)
    for name in ("model", "sentencepiece", "estimate_from"):
        if path := settings[f"filter.lm.{name}"]:
            settings[f"filter.lm.{name}"] = digests.path(path, f"filter.lm.{name}")
    return settings


def _tokenizer(config: Config, digests: Digests) -> dict[str, str]:
    folder = _base(config)
    files = {name: digests.path(folder / name, "base_model") for name in FILES if (folder / name).exists()}
    return {"tokenizer of base_model": of_value(files)}


def _filter(
    config: Config, digests: Digests, ingested: tuple[Step, ...], model: Step | None, evaluations: Step | None
) -> list[Stage]:
    """The rules; where near-duplicates are off that is the filter, otherwise they come after, and are the filter."""
    if config.filter.near_duplicates is None:
        return [_rules("stage2_filter", config, digests, ingested, model, evaluations)]
    rules = _rules("stage2_quality", config, digests, ingested, model, evaluations)
    return [rules, *_near_duplicates(config, rules.steps)]


def _near_duplicates(config: Config, judged: tuple[Step, ...]) -> list[Stage]:
    """An index for each subset, of its documents and those of the subsets before it, and what the index leaves."""
    limit = config.filter.near_duplicates
    assert limit is not None

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

    def open_index(step: Step, folders: Folders) -> Callable[[Filtered], Filtered | Reject]:
        return partial(near_duplicates.judge, folders(step.needs[1]))

    return [
        Stage("stage2", "stage2_duplicates", Build(build, "documents"), tuple(found)),
        Stage("stage2", "stage2_filter", Map(Filtered, Filtered, open_index), tuple(steps)),
    ]


def _and_before(index: Step) -> list[Step]:
    """The indexes of the subsets before, in order, and this one; each needs the one before it."""
    _, *before = index.needs
    return [*(_and_before(before[0]) if before else []), index]


def _rules(
    name: str,
    config: Config,
    digests: Digests,
    ingested: tuple[Step, ...],
    model: Step | None,
    evaluations: Step | None,
) -> Stage:
    own = config.filter.model_copy(update={"lm": LanguageModel()})  # the model is a step of its own
    settings = {name: value for name, value in flat("filter", own).items() if name not in NEAR_DUPLICATES}

    def open_rules(step: Step, folders: Folders) -> Rules:
        artefact = _base(config) if config.filter.lm.base else None if model is None else folders(model)
        limits = NO_LIMITS
        if artefact is not None:
            source = read_all(folders(step.needs[0]), Document)
            limits, rest_on = measure(config, source, artefact)
            record = {"ppl_min": limits.low, "ppl_max": limits.high, "documents": rest_on}
            atomic.write(folders(step) / "thresholds.json", msgspec.json.encode(record))
        return open_filter(config, artefact, limits, None if evaluations is None else folders(evaluations))

    def decides() -> dict[str, Any]:
        decided = {**settings, **_tokenizer(config, digests)}
        if config.filter.lm.base:
            decided["filter.lm.base"] = digests.path(_base(config), "base_model")
        return decided

    needs = tuple(step for step in (model, evaluations) if step is not None)
    steps = tuple(Step(name, step.part, decides, (step, *needs)) for step in ingested)
    return Stage("stage2", name, Map(Document, Filtered, open_rules), steps)
