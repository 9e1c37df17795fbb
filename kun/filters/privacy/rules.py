"""Personal data in Chinese text: `text, kinds = mask(text, config.filter.privacy)`, `find(text)` finds all of it.

It finds what has a distinctive form, with a valid checksum if there is one, or follows a word that says what it is.
Numbers count only as a whole: never as part of a longer number, a decimal, a name with digits or a web address.

phone            mobile and fixed numbers of the mainland, Hong Kong, Macau and Taiwan, others with + and blanks or
                 hyphens; local numbers after a word such as 电话. Not 400 and 800 numbers, 95588, 110: not personal.
identity_number  18 digits (GB 11643: province, date, ISO 7064 MOD 11-2); the old 15, and those of Taiwan, after
                 身份证; those of Hong Kong with their check digit in brackets
email            also name＠qq.com, name(at)qq.com, name#qq.com; not example.com (RFC 2606), git@github.com:a/b
bank_card        ISO/IEC 7812: 15 to 19 digits, prefix of a network, Luhn
wechat, qq       ids after 微信号, 加V, VX, QQ群, 扣扣 and the like; not public accounts
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from kun.config.schema import Privacy
from kun.filters.bounds import Bound
from kun.filters.privacy.formats import FORMS, MAYBE, PLAIN, WEB_ADDRESS
from kun.records import Reject
from kun.text import language
from kun.text.characters import Array

# Placeholders in simplified and traditional Chinese, and in text without Chinese characters.
PLACEHOLDERS = {
    "email": ("[邮箱]", "[郵箱]", "[e-mail]"),
    "identity_number": ("[身份证号]", "[身分證號]", "[identity number]"),
    "bank_card": ("[银行卡号]", "[銀行卡號]", "[bank card]"),
    "phone": ("[电话]", "[電話]", "[phone]"),
    "wechat": ("[微信号]", "[微信號]", "[WeChat]"),
    "qq": ("[QQ号]", "[QQ號]", "[QQ]"),
}
KINDS = tuple(PLACEHOLDERS)


class PersonalData(NamedTuple):
    """`text[start:end]` is of this kind."""

    kind: str
    start: int
    end: int


_GAP = "\x00"  # replaces earlier matches in the search for the next kind


def find(text: str) -> list[PersonalData]:
    """The personal data in a text, in order. Linear time, whatever the text."""
    if not MAYBE.search(text):
        return []
    found, start = [], 0
    for line in text.split("\n"):
        if MAYBE.search(line):
            found += [PersonalData(kind, start + begin, start + end) for kind, begin, end in _in_line(line)]
        start += len(line) + 1
    return found


def _in_line(line: str) -> list[PersonalData]:
    plain, found = WEB_ADDRESS.sub(lambda match: _GAP * len(match[0]), line.translate(PLAIN)), []
    for kind, (pattern, is_valid) in FORMS.items():
        spans = [match.span(match.lastindex or 0) for match in pattern.finditer(plain)]
        own = [PersonalData(kind, start, end) for start, end in spans if is_valid(plain[start:end])]
        plain = _replaced(plain, own, lambda datum: _GAP * (datum.end - datum.start))
        found += own
    return sorted(found, key=lambda datum: datum.start)


def mask(text: str, settings: Privacy) -> tuple[str, tuple[str, ...]]:
    """The text with placeholders for the kinds that the settings mask, and the kinds found. Idempotent."""
    kinds = [kind for kind in KINDS if getattr(settings, kind) == "mask"]
    found = [datum for datum in find(text) if datum.kind in kinds] if kinds else []
    if not found:
        return text, ()
    column = 2 if not _HAN.search(text) else 1 if language.script(text) == "traditional" else 0
    masked = {datum.kind for datum in found}
    return _replaced(text, found, lambda datum: PLACEHOLDERS[datum.kind][column]), tuple(
        k for k in kinds if k in masked
    )


_HAN = re.compile("[\u3400-\u9fff]")


def _replaced(text: str, found: Sequence[PersonalData], by: Callable[[PersonalData], str]) -> str:
    parts, end = [], 0
    for datum in found:
        parts += [text[end : datum.start], by(datum)]
        end = datum.end
    return "".join([*parts, text[end:]])


def bounds(settings: Privacy) -> list[Bound]:
    """The rules that drop a text."""
    return [Bound(kind, "at_most", 0, MEANINGS[kind]) for kind in KINDS if getattr(settings, kind) == "drop"]


MEANINGS = {
    "email": "e-mail addresses",
    "identity_number": "identity numbers",
    "bank_card": "numbers of bank cards",
    "phone": "phone numbers",
    "wechat": "WeChat ids",
    "qq": "QQ numbers",
}


def measure(texts: Sequence[str], kinds: Sequence[str]) -> dict[str, Array]:
    """The number of matches of each of these kinds in each text."""
    counts = [Counter(datum.kind for datum in find(text)) for text in texts] if kinds else []
    return {kind: np.array([count[kind] for count in counts], np.float64) for kind in kinds}


def personal(text: str, settings: Privacy) -> Reject | None:
    """A Reject where a model's reply has a kind that is masked or dropped: memorised or made up."""
    kinds = [kind for kind in KINDS if getattr(settings, kind) is not None]
    found = next((datum for datum in find(text) if datum.kind in kinds), None) if kinds else None
    return None if found is None else Reject(found.kind, text[found.start : found.end])
