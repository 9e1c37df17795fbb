"""How far the source supports a reply: `faithfulness(output, text, instruction)` gives a share and what is unsupported.

It looks up the items that can be looked up: numbers, Latin names and identifiers, titles, quoted spans, Chinese names
of persons, places and organisations; and it compares language and script with the source. The idea comes from
DoG-Instruct and FineInstructions. Ordinary words are not items, so honest paraphrase costs nothing, and doubtful names
do not count as names (kun/text/names.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from kun.checks.answers import folded
from kun.text.language import script
from kun.text.names import altered_names, chinese_names
from kun.text.numerals import numbers, unsupported_numbers

TITLE = re.compile(r"《([^《》\n]{1,60})》")
QUOTE = re.compile(r"“([^“”\n]{5,200})”|「([^「」\n]{5,200})」|『([^『』\n]{5,200})』|\"([^\"\n]{5,200})\"")
LATIN = re.compile(r"[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ0-9]*(?:[-_.+#/&'][A-Za-zÀ-ɏ0-9]+)*[+#]*")
UNITS = frozenset(
    """
    km cm mm nm kg mg ml ms kb mb gb tb hz khz mhz ghz kw kwh mah rpm dpi etc vs the and for http https www com
    """.split()  # noqa: SIM905
)
TRANSLATION = re.compile(
    r"翻译|翻譯|译成|譯成|英文|英语|英語|繁体|繁體|简体|簡體|用.{1,4}语|translat|in english|in chinese", re.IGNORECASE
)


@dataclass(frozen=True)
class Faithfulness:
    """`score` is the supported share of the `items` that were looked up (1.0 for no items, 0.0 for a wrong
    language)."""

    score: float
    items: int
    unsupported: tuple[str, ...]

    @property
    def detail(self) -> str:
        shown = ", ".join(self.unsupported[:10])
        return f"{self.score:.2f}: {len(self.unsupported)} of {self.items} not in the source: {shown}"


def faithfulness(output: str, text: str, instruction: str = "") -> Faithfulness:
    """Look up the items of `output` in the text and the instruction. Time is linear in their lengths for each item."""
    source = _plain(f"{instruction}\n{text}")
    reply = _plain(output)
    if wrong := _wrong_language(reply, _plain(text), instruction):
        return Faithfulness(0.0, 1, (wrong,))
    items, missing = len(numbers(reply)), unsupported_numbers(reply, source)
    bare = folded(source)
    for item in _spans(reply):
        items += 1
        if not _has(bare, item):
            missing.append(item)
    names = chinese_names(reply, source)
    altered = [name for name in altered_names(reply, source) if name not in names]
    items += len(names) + len(altered)
    missing += [name for name, found in names.items() if not found] + altered
    return Faithfulness(1.0 if not items else 1 - len(missing) / items, items, tuple(missing))


def _has(bare: str, item: str) -> bool:
    """Whether the folded source has the item, or the singular of an English plural or possessive."""
    item = folded(item.removesuffix("'s"))
    return item in bare or (len(item) > 4 and item.isascii() and item.endswith("s") and item[:-1] in bare)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _spans(reply: str) -> Iterator[str]:
    """Titles and quoted spans of a reply, each once, and Latin names."""
    yield from dict.fromkeys(title for title in TITLE.findall(reply) if folded(title))
    quotes = (next(filter(None, groups)) for groups in QUOTE.findall(reply))
    yield from dict.fromkeys(
        part for quote in quotes for part in re.split(r"…+|\.{3,}", quote) if len(folded(part)) >= 5
    )
    is_chinese = language(reply) == "zh"
    for match in LATIN.finditer(TITLE.sub(" ", QUOTE.sub(" ", reply))):
        word = match[0]
        if len(word) >= 2 and word.casefold() not in UNITS and (is_chinese or _is_name(word, reply, match.start())):
            if is_chinese and len(word) == 2 and word.islower():
                continue
            yield word


def _is_name(word: str, text: str, start: int) -> bool:
    """For Latin text: capitals or digits inside the word, or a capital that does not begin a sentence."""
    if any(c.isupper() or c.isdigit() for c in word[1:]):
        return True
    before = text[max(start - 50, 0) : start].rstrip(" \t\"'(*“‘")[-1:]
    return word[0].isupper() and len(word) > 2 and before not in ("", ".", "!", "?", ":", "\n", "-", "#", "。", "：")


def language(text: str) -> str | None:
    """`zh`, `ja`, `ko` or `latin` if over two thirds of at least 10 units (one character, or one Latin word) are."""
    counts = {
        "zh": len(re.findall(r"[\u3400-\u9fff]", text)),
        "ja": len(re.findall(r"[\u3041-\u30fa]", text)),
        "ko": len(re.findall(r"[\uac00-\ud7a3]", text)),
        "latin": len(LATIN.findall(text)),
    }
    if counts["ja"] > counts["zh"] / 4:
        counts["ja"] += counts.pop("zh")
    name = max(counts, key=lambda key: counts[key])
    total = sum(counts.values())
    return name if total >= 10 and counts[name] > total * 2 / 3 else None


def _wrong_language(reply: str, text: str, instruction: str) -> str | None:
    """The mismatch, unless the instruction asks for a translation or is itself in the language of the reply."""
    if TRANSLATION.search(instruction):
        return None
    for measure in (language, script):
        of_reply, of_text = measure(reply), measure(text)
        if of_reply and of_text and of_reply != of_text and measure(_plain(instruction)) != of_reply:
            return f"{of_reply} in place of {of_text}"
    return None
