"""Stage 2: raw corpora -> documents worth a model's time. `kun run stage2 --config configs/demo.yaml`.

A document is kept when it is long enough and short enough, does not repeat itself, and reads like the text that the
language model knows: neither a surprise (garbled, shuffled, menus) nor known by heart (boilerplate). Reading,
normalisation and exact duplicates come before, at ingest (kun.corpora).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kun.config import Config, Filter
from kun.errors import InputError
from kun.filters import length, lm, percentiles, repetition
from kun.filters.percentiles import NO_LIMITS, Limits
from kun.records import Document, Filtered, Reject, extend
from kun.tokenizer import local_folder


@dataclass(frozen=True)
class Rules:
    """The rules in order, cheap ones first; a worker process opens tokenizer and language model on first use."""

    settings: Filter
    tokenizer: Path
    trust_remote_code: bool
    lm: Path | None
    limits: Limits

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
        ppl = None if self.lm is None else lm.open_lm(self.lm)(text)
        if ppl is not None and (reject := lm.outside(ppl, self.limits)):
            return reject
        return extend(document, Filtered, ppl=ppl, tokens=tokens)


def open_filter(config: Config, model: Path | None, limits: Limits = NO_LIMITS) -> Rules:
    """The filter of one subset. `model` is the artefact of the language model; None: no perplexity.

    InputError where the base model's tokenizer cannot be read.
    """
    return Rules(config.filter, _base(config), config.trust_remote_code, model, limits)


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
    from kun.corpora.ingest import splitter

    if config.ingest.overlong == "drop":
        return None
    return splitter(length.token_counter(_base(config), config.trust_remote_code), config.filter.max_tokens)


def _base(config: Config) -> Path:
    if config.base_model is None:
        raise InputError("base_model: not set; its tokenizer says how long a text is")
    return local_folder(config.base_model)
