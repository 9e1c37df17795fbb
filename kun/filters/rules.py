"""The rules of the filter, applied to a shard at a time: `open_filter(config, lm_folder, limits)(documents)`.

First cleaning, which masks personal data; then the cheap rules, length in tokens, decontamination, and perplexity, each
on what the ones before it left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from kun.config.schema import Config, EngineConfig, Filter
from kun.errors import ConfigError, InputError
from kun.filters import length, quality
from kun.filters.bounds import Bound
from kun.filters.clean import clean
from kun.filters.decontamination import ngrams as decontaminate
from kun.filters.perplexity import lm, percentiles
from kun.filters.perplexity.percentiles import NO_LIMITS, Limits
from kun.filters.privacy import rules as privacy
from kun.models.folder import local_folder
from kun.records import Document, Filtered, Reject, extend
from kun.text import language
from kun.text.characters import Array, Characters

_CONTAMINATED = Bound("contaminated", "at_most", 0, "1 where an evaluation has a part of it")


@dataclass(frozen=True)
class Rules:
    """The rules of one subset. A worker process opens tokenizer and language model on first use.

    `rules(documents)` decides on documents, each by itself, cheap rules first; `rules.values(document)` measures
    everything, `rules.bounds` has the limits, and `rules.broken(document)` names all rules that reject it.
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
        """The active rules, in the order in which they are applied."""
        contaminated = [] if self.evaluations is None else [_CONTAMINATED]
        return (*self._cheap, self._too_long, *contaminated, *self._perplexity)

    @property
    def _cheap(self) -> tuple[Bound, ...]:
        settings = self.settings
        bounds = [Bound("too_short", "at_least", settings.min_chars, "characters")]
        bounds += [*privacy.bounds(settings.privacy), *quality.bounds(settings.quality)]
        if settings.languages:
            bounds += [Bound("language", "at_least", 1, f"language is {' or '.join(settings.languages)}")]
        return tuple(bounds)

    @property
    def _too_long(self) -> Bound:
        return Bound("too_long", "at_most", self.settings.max_tokens, "tokens, or more")

    @property
    def _perplexity(self) -> tuple[Bound, ...]:
        return () if self.lm is None else percentiles.bounds(self.limits)

    def clean(self, document: Document) -> tuple[str, tuple[str, ...]]:
        """The text that is judged and kept, and what cleaning changed; the kinds of personal data come last."""
        return _clean(document.text, self.settings)

    def values(self, document: Document) -> dict[str, float]:
        """The values of all rules for a document, by reason, including rules that are off; perplexity only with a
        model."""
        text, _ = self.clean(document)
        rules = (*quality.RULES, *self._language)
        kinds = [kind for kind in privacy.KINDS if getattr(self.settings.privacy, kind) != "mask"]
        values = {reason: float(numbers[0]) for reason, numbers in self._measure([text], rules, kinds).items()}
        values["too_long"] = float(self._tokens([text])[0])
        if self.evaluations is not None:
            values["contaminated"] = float(decontaminate.contaminated(self.evaluations, [text])[0] is not None)
        if self.lm is not None:
            values["ppl_low"] = values["ppl_high"] = self._ppls([text])[0]
        return values

    def broken(self, document: Document) -> list[str]:
        """The reasons to reject a document; the first one is the reason of its reject."""
        values = self.values(document)
        return [bound.reason for bound in self.bounds if bound.broken_by(values[bound.reason])]

    def __call__(self, documents: Sequence[Document]) -> list[Filtered | Reject]:
        """The outcome of each document, in order."""
        cleaned = [self.clean(document) for document in documents]
        texts = [text for text, _ in cleaned]
        outcomes: dict[int, Filtered | Reject] = {}

        def judge(bounds: Iterable[Bound], numbers: Sequence[int], measured: Mapping[str, Array]) -> list[int]:
            """Reject what breaks a bound; return the numbers of the remaining documents."""
            for bound in bounds:
                values = measured[bound.reason]
                for position in bound.broken(values):
                    outcomes.setdefault(numbers[position], bound.reject(float(values[position])))
            return [number for number in numbers if number not in outcomes]

        cheap = self._cheap
        on = {bound.reason for bound in cheap}
        rules = [rule for rule in (*quality.RULES, *self._language) if rule.reason in on]
        kinds = [kind for kind in privacy.KINDS if kind in on]
        left = judge(cheap, range(len(texts)), self._measure(texts, rules, kinds))
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
            document = msgspec.structs.replace(documents[n], text=text)
            outcomes[n] = extend(document, Filtered, ppl=ppls[n], tokens=tokens[n], cleaned=changes)
        return [outcomes[n] for n in range(len(documents))]

    def _measure(self, texts: Sequence[str], rules: Sequence[quality.Rule], kinds: Sequence[str]) -> dict[str, Array]:
        lengths = np.fromiter(map(len, texts), np.float64, len(texts))
        return {"too_short": lengths, **privacy.measure(texts, kinds), **quality.measure(texts, rules)}

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
    """The filter of one subset, for `config.of_subset(name)`.

    `model` is the artefact of the language model, or the folder of the base model; None: no perplexity. `evaluations`
    is the index of evaluation files, or None. InputError where the base model's tokenizer cannot be read.
    """
    return Rules(
        config.filter, base_folder(config), config.trust_remote_code, model, limits, config.engine, evaluations
    )


def measure(config: Config, documents: Iterable[Document], model: Path) -> tuple[Limits, int]:
    """The perplexity limits of a subset, and the number of sampled documents that they are based on.

    The sample includes what other rules drop, or else switching a rule off would move the limits. Documents are scored
    only where a limit is relative.
    """
    if not percentiles.needs_sample(config.filter):
        return percentiles.thresholds(config.filter, ()), 0
    sample = percentiles.sample(documents, config.filter.sample)
    texts = [_clean(document.text, config.filter)[0] for document in sample]
    ppls = lm.perplexities(model, texts, config.engine, config.trust_remote_code)
    low, high = limits = percentiles.thresholds(config.filter, ppls)
    if low is not None and high is not None and low > high:
        raise ConfigError(
            f"filter: on this corpus ppl_min {config.filter.ppl_min} is {low:.1f}, above ppl_max "
            f"{config.filter.ppl_max}, which is {high:.1f}: nothing could be kept"
        )
    return limits, len(ppls)


def _clean(text: str, settings: Filter) -> tuple[str, tuple[str, ...]]:
    text, changes = clean(text, settings.clean)
    text, masked = privacy.mask(text, settings.privacy)
    return text, (*changes, *masked)


def base_folder(config: Config) -> Path:
    """The folder of the base model. InputError where none is set."""
    if config.base_model is None:
        raise InputError("base_model: not set; its tokenizer says how long a text is")
    return local_folder(config.base_model)
