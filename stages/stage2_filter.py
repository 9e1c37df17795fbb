"""Stage 2: raw corpora -> documents worth a model's time. `kun run stage2 --config configs/demo.yaml`.

A document is kept when it is long enough and short enough, does not repeat itself, and reads like the text that the
language model knows: neither a surprise (garbled, shuffled, menus) nor known by heart (boilerplate); and when it is
nearly the same as none that was kept before. Reading, normalisation and exact duplicates come first, at ingest
(kun.corpora).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kun import language
from kun.config import Config, Corpus, EngineConfig, Filter, LanguageModel
from kun.corpora import index
from kun.corpora.files import find
from kun.corpora.ingest import documents, items, splitter
from kun.corpora.readers import read_part
from kun.errors import InputError
from kun.filters import decontaminate, length, lm, lmplz, near_duplicates, percentiles, quality
from kun.filters.bounds import Bound
from kun.filters.characters import Array, Characters
from kun.filters.clean import clean
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


_CONTAMINATED = Bound("contaminated", "at_most", 0, "1 where an evaluation has a part of it")


@dataclass(frozen=True)
class Rules:
    """The rules of one subset. A worker process opens tokenizer and language model on first use.

    `rules(documents)` decides, cheap rules first, each document by itself; `rules.values(document)` measures all that
    there is to measure, `rules.bounds` says what is allowed, and `rules.broken(document)` names all rules against it.
    """

    settings: Filter
    tokenizer: Path
    trust_remote_code: bool
    lm: Path | None
    limits: Limits
    engine: EngineConfig
    evaluations: Path | None = None

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The rules that are on, in the order in which they decide."""
        contaminated = [] if self.evaluations is None else [_CONTAMINATED]
        return (*self._cheap, self._too_long, *contaminated, *self._perplexity)

    @property
    def _cheap(self) -> tuple[Bound, ...]:
        settings = self.settings
        found = [Bound("too_short", "at_least", settings.min_chars, "characters"), *quality.bounds(settings.quality)]
        if settings.languages:
            found += [Bound("language", "at_least", 1, f"language is {' or '.join(settings.languages)}")]
        return tuple(found)

    @property
    def _too_long(self) -> Bound:
        return Bound("too_long", "at_most", self.settings.max_tokens, "tokens, or more")

    @property
    def _perplexity(self) -> tuple[Bound, ...]:
        low, high = self.limits
        found = [] if low is None else [Bound("ppl_low", "at_least", low, "perplexity")]
        found += [] if high is None else [Bound("ppl_high", "at_most", high, "perplexity")]
        return () if self.lm is None else tuple(found)

    def clean(self, document: Document) -> tuple[str, tuple[str, ...]]:
        """The text that is judged and kept, and what cleaning changed in it."""
        return clean(document.text, self.settings.clean)

    def values(self, document: Document) -> dict[str, float]:
        """What every rule measures of a document, by reason; rules that are off, too. No perplexity without a model."""
        text, _ = self.clean(document)
        rules = (*quality.RULES, *self._language)
        values = {reason: float(numbers[0]) for reason, numbers in self._measure([text], rules).items()}
        values["too_long"] = float(self._tokens([text])[0])
        if self.evaluations is not None:
            values["contaminated"] = float(decontaminate.contaminated(self.evaluations, [text])[0] is not None)
        if self.lm is not None:
            values["ppl_low"] = values["ppl_high"] = self._ppls([text])[0]
        return values

    def broken(self, document: Document) -> list[str]:
        """The reasons against a document, the one that is given first."""
        values = self.values(document)
        return [bound.reason for bound in self.bounds if bound.broken_by(values[bound.reason])]

    def __call__(self, documents: Sequence[Document]) -> list[Filtered | Reject]:
        """What each document becomes, in order."""
        cleaned = [self.clean(document) for document in documents]
        texts = [text for text, _ in cleaned]
        outcomes: dict[int, Filtered | Reject] = {}

        def judge(bounds: Iterable[Bound], numbers: Sequence[int], measured: Mapping[str, Array]) -> list[int]:
            """Reject what breaks a bound; the numbers of the documents that are left."""
            for bound in bounds:
                values = measured[bound.reason]
                for position in bound.broken(values):
                    outcomes.setdefault(numbers[position], bound.reject(float(values[position])))
            return [number for number in numbers if number not in outcomes]

        cheap = self._cheap
        on = {bound.reason for bound in cheap}
        rules = [rule for rule in (*quality.RULES, *self._language) if rule.reason in on]
        left = judge(cheap, range(len(texts)), self._measure(texts, rules))
        tokens = dict(zip(left, self._tokens([texts[n] for n in left]), strict=True))
        left = judge([self._too_long], left, {"too_long": np.array([*tokens.values()])})
        found = decontaminate.contaminated(self.evaluations, [texts[n] for n in left])
        outcomes |= {n: reject for n, reject in zip(left, found, strict=True) if reject is not None}
        left = [n for n in left if n not in outcomes]
        ppls: dict[int, float | None] = dict.fromkeys(left)
        if self.lm is not None:
            ppls = dict(zip(left, self._ppls([texts[n] for n in left]), strict=True))
            values = np.array([*ppls.values()])
            left = judge(self._perplexity, left, {"ppl_low": values, "ppl_high": values})
        for n in left:
            text, changes = cleaned[n]
            document = msgspec.structs.replace(documents[n], text=text) if changes else documents[n]
            outcomes[n] = extend(document, Filtered, ppl=ppls[n], tokens=tokens[n], cleaned=changes)
        return [outcomes[n] for n in range(len(documents))]

    def _measure(self, texts: Sequence[str], rules: Sequence[quality.Rule]) -> dict[str, Array]:
        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        return {"too_short": lengths, **quality.measure(texts, rules)}

    @property
    def _language(self) -> tuple[quality.Rule, ...]:
        wanted = self.settings.languages
        if not wanted:
            return ()

        def is_wanted(texts: Characters) -> Array:
            return np.array(language.wanted(texts, wanted), np.float64)

        return (quality.Rule("language", "at_least", is_wanted, "1 where it is a wanted one"),)

    def _tokens(self, texts: Sequence[str]) -> list[int]:
        count = length.batch_counter(self.tokenizer, self.trust_remote_code)
        return length.count_up_to(count, texts, self.settings.max_tokens)

    def _ppls(self, texts: Sequence[str]) -> list[float]:
        assert self.lm is not None
        return lm.perplexities(self.lm, texts, self.engine, self.trust_remote_code)


def open_filter(
    config: Config, model: Path | None, limits: Limits = NO_LIMITS, evaluations: Path | None = None
) -> Rules:
    """The filter of one subset, by `config.of_subset(name)`. `model` is the artefact of the language model, or the base
    model; None: no perplexity.
    `evaluations` is the index of evaluation files; None: there is none.

    InputError where the base model's tokenizer cannot be read.
    """
    return Rules(config.filter, _base(config), config.trust_remote_code, model, limits, config.engine, evaluations)


def measure(config: Config, documents: Iterable[Document], model: Path) -> tuple[Limits, int]:
    """The limits of a subset, and on how many perplexities they rest: of a sample of all its documents.

    What the other rules drop is in the sample: or else the limits would move with a rule that is switched off. Only the
    sample is scored, and only where a limit is relative.
    """
    if not percentiles.needs_sample(config.filter):
        return percentiles.thresholds(config.filter, ()), 0
    sample = percentiles.sample(documents, config.filter.sample)
    texts = [clean(document.text, config.filter.clean)[0] for document in sample]
    ppls = lm.perplexities(model, texts, config.engine, config.trust_remote_code)
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
        return index.build(
            folder, step.part, corpus, partial(piece_splitter, config.of_subset(step.part)), config.workers, progress
        )

    def decides(name: str, corpus: Corpus) -> dict[str, Any]:
        found = find(name, corpus)
        content = digests.files([file.path for file in found], f"corpora.{name}.paths")
        files = [[file.name, digest] for file, digest in zip(found, content, strict=True)]
        settings: dict[str, Any] = {f"corpora.{name}.files": files, f"corpora.{name}.format": corpus.format}
        settings |= {f"corpora.{name}.field": corpus.field, "ingest.overlong": config.ingest.overlong}
        if config.ingest.overlong == "split":
            max_tokens = config.of_subset(name).filter.max_tokens
            settings |= {"filter.max_tokens": max_tokens, **_tokenizer(config, digests)}
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
    return documents(
        unit.subset, items(rows, piece_splitter(config.of_subset(unit.subset))), repeats, config.ingest.duplicates
    )


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

    def open_index(step: Step, folders: Folders) -> Callable[[Sequence[Filtered]], list[Filtered | Reject]]:
        return partial(_without_near_duplicates, folders(step.needs[1]))

    return [
        Stage("stage2", "stage2_duplicates", Build(build, "documents"), tuple(found)),
        Stage("stage2", "stage2_filter", Map(Filtered, Filtered, open_index), tuple(steps)),
    ]


def _without_near_duplicates(index: Path, documents: Sequence[Filtered]) -> list[Filtered | Reject]:
    return [near_duplicates.judge(index, document) for document in documents]


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
    def open_rules(step: Step, folders: Folders) -> Rules:
        own = config.of_subset(step.part)
        artefact = _base(config) if config.filter.lm.base else None if model is None else folders(model)
        limits = NO_LIMITS
        if artefact is not None:
            source = read_all(folders(step.needs[0]), Document)
            limits, rest_on = measure(own, source, artefact)
            record = {"ppl_min": limits.low, "ppl_max": limits.high, "documents": rest_on}
            atomic.write(folders(step) / "thresholds.json", msgspec.json.encode(record))
        return open_filter(own, artefact, limits, None if evaluations is None else folders(evaluations))

    def decides(part: str) -> dict[str, Any]:
        own = config.of_subset(part).filter.model_copy(update={"lm": LanguageModel()})  # the model is a step of its own
        decided = {name: value for name, value in flat("filter", own).items() if name not in NEAR_DUPLICATES}
        decided |= _tokenizer(config, digests)
        if config.filter.lm.base:
            decided["filter.lm.base"] = digests.path(_base(config), "base_model")
        return decided

    needs = tuple(step for step in (model, evaluations) if step is not None)
    steps = tuple(Step(name, step.part, partial(decides, step.part), (step, *needs), 2) for step in ingested)
    return Stage("stage2", name, Map(Document, Filtered, open_rules), steps)
