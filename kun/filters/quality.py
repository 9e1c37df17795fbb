"""Quality rules for Chinese web text: `measure(texts)["digits"]` has a number for each text.

A rule is a measure, a row of `RULES`, and the limit under the same name in `filter.quality` (null: off). A measure is a
pure function of counted texts; its value for a text depends on that text alone. Figures on real text are in
docs/measurements.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kun.config.schema import Quality
from kun.filters.boilerplate import boilerplate_share
from kun.filters.bounds import Bound, Side
from kun.filters.repetition import repeated_share
from kun.text import characters as c
from kun.text.characters import Array, Characters, count

PART = 1 << 14  # characters counted together: more do not fit the caches of a core, and sorting is slower
_NONE: Array = np.zeros(0)
_BULLET = re.compile(r"\s*(?:[-*+•●■◆▪·※★☆►▶○◎]|\d{1,3}[.、．)）]|[（(][一二三四五六七八九十\d]{1,3}[)）])")


@dataclass(frozen=True)
class Rule:
    """`measure` gives a number for each text; `meaning` describes it to users."""

    reason: str
    side: Side
    measure: Callable[[Characters], Array]
    meaning: str


def rare_characters(texts: Characters) -> Array:
    """High for wrongly decoded text and random characters; below 0.1 for names and terms."""
    return texts.share(c.RARE)


def random_codes(texts: Characters) -> Array:
    """At least 0.65 for strings such as 3+3/;%DBAB__D44#, at most 0.35 for formulas, addresses and program code."""
    before, after = texts.kinds[:-1], texts.kinds[1:]
    changes = (before != after) & (np.minimum(before, after) >= c.UPPER) & (texts.owners[:-1] == texts.owners[1:])
    return texts.number(np.flatnonzero(changes)) / texts.visible


def digits(texts: Characters) -> Array:
    return texts.share(c.DIGIT)


def symbols(texts: Characters) -> Array:
    return texts.share(c.SYMBOL, c.ASCII_SYMBOL)


def ellipses(texts: Characters) -> Array:
    return _each(texts, lambda text: text.count("…") + text.count("...")) / texts.visible


def unique_characters(texts: Characters) -> Array:
    """Texts count as 1,000 characters at most: Chinese prose has only about 800 different ones."""
    different: Array = np.bincount(texts.different, minlength=len(texts.texts))
    share: Array = different / np.clip(texts.lengths, 1, 1000)
    return share


def entropy(texts: Characters) -> Array:
    """In bits: 3.0 for eight characters that occur equally often."""
    shares = texts.times / texts.lengths[texts.different]
    return np.bincount(texts.different, weights=-shares * np.log2(shares), minlength=len(texts.texts))


def unbroken(texts: Characters) -> Array:
    """Symbols do not break a run: the rule is for walls of characters and encoded files."""
    kinds = texts.kinds
    here = np.arange(len(kinds))
    breaks = (kinds == c.BLANK) | (kinds == c.PUNCTUATION) | (kinds == c.ASCII_PUNCTUATION)
    run = here - np.maximum.accumulate(np.where(breaks, here, texts.starts[texts.owners] - 1))
    longest = np.zeros(len(texts.texts))
    some = texts.lengths > 0
    if some.any():
        longest[some] = np.maximum.reduceat(run, texts.starts[some])
    return longest


def boilerplate(texts: Characters) -> Array:
    return _each(texts, boilerplate_share)


def duplicate_lines(texts: Characters) -> Array:
    return _each(texts, _duplicate_lines)


def bullet_lines(texts: Characters) -> Array:
    return _each(texts, _bullet_lines)


def _each(texts: Characters, number: Callable[[str], float]) -> Array:
    return np.fromiter(map(number, texts.texts), np.float64, len(texts.texts))


def _duplicate_lines(text: str) -> float:
    lines = [line for line in text.split("\n") if line] if "\n" in text else []
    return 1 - sum(map(len, set(lines))) / sum(map(len, lines)) if lines else 0.0


def _bullet_lines(text: str) -> float:
    lines = [line for line in text.split("\n") if line]
    return sum(_BULLET.match(line) is not None for line in lines) / (len(lines) or 1)


RULES = (
    Rule("rare_characters", "at_most", rare_characters, "share of uncommon Han and of damaged characters"),
    Rule("random_codes", "at_most", random_codes, "changes between letters, digits and symbols, per character"),
    Rule("digits", "at_most", digits, "share of digits"),
    Rule("symbols", "at_most", symbols, "share of symbols and emoji"),
    Rule("ellipses", "at_most", ellipses, "ellipses per character"),
    Rule("unique_characters", "at_least", unique_characters, "different characters per character"),
    Rule("entropy", "at_least", entropy, "bits of information per character"),
    Rule("unbroken", "at_most", unbroken, "characters of the longest run without punctuation or blank"),
    Rule("boilerplate", "at_most", boilerplate, "share of words of navigation, sharing and page footers"),
    Rule("duplicate_lines", "at_most", duplicate_lines, "share of lines that came before"),
    Rule("bullet_lines", "at_most", bullet_lines, "share of lines that are items of a list"),
    Rule("repetition", "at_most", repeated_share, "share of the text that it had before"),
)


def bounds(settings: Quality) -> tuple[Bound, ...]:
    """The active rules, in the order of `RULES`."""
    limits = [(rule, getattr(settings, rule.reason)) for rule in RULES]
    return tuple(Bound(rule.reason, rule.side, limit, rule.meaning) for rule, limit in limits if limit is not None)


def measure(texts: Sequence[str], rules: Sequence[Rule] = RULES) -> dict[str, Array]:
    """The values of every rule for each text, by reason."""
    parts = [count(texts[start:end]) for start, end in _parts(texts)]
    return {rule.reason: np.concatenate([_NONE, *map(rule.measure, parts)]) for rule in rules}


def _parts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Cut the texts into parts, to bound memory, which is about 100 bytes per character of a part."""
    start = size = 0
    for end, text in enumerate(texts):
        size += len(text)
        if size > PART and end > start:
            yield start, end
            start, size = end, len(text)
    if texts:
        yield start, len(texts)
