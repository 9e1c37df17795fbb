"""Texts as arrays of folded characters, for comparing what two spellings have in common: `fold(["Ａ, 體"]).codes`.

Folded: NFKC and case folded, traditional characters as their simplified ones, letters and digits alone. A character at
a time from a table, so that many texts are a few calls of numpy; only texts with characters that become several, or
that join the one before them (㎏, combining accents), are normalised as a whole first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint32]
Positions = NDArray[np.intp]

_DROPPED, _SEVERAL, _LINE = 0, 1, 10  # in the table; what is greater is a folded character
_LINE_ENDS = "\n\r\x0b\x0c\x85\u2028\u2029"
_ASSIGNED = 0x33480  # no letter and no digit of Unicode 17 is above
_HAN = (range(0x3400, 0xA000), range(0x20000, _ASSIGNED))  # compatibility ideographs are folded by NFKC


class Folded(NamedTuple):
    """The folded characters of texts, one text after the other.

    `borders`: the place where each text begins, and the end of the last. `lines`: the same of the lines, where a text
    always ends one; some are empty.
    """

    codes: Codes
    borders: Positions
    lines: Positions


def fold(texts: Sequence[str]) -> Folded:
    """The folded texts. Lone surrogates are dropped like any character that is neither letter nor digit."""
    ends = _ends(texts)
    codes = _look_up(texts)
    several = np.flatnonzero(codes == _SEVERAL)
    if several.size:
        texts = list(texts)
        for number in np.unique(ends.searchsorted(several, "right")).tolist():
            texts[number] = unicodedata.normalize("NFKC", texts[number]).casefold()
        ends = _ends(texts)
        codes = _look_up(texts)
    kept = codes > _LINE
    before = np.concatenate([[0], np.cumsum(kept)])  # how many are kept before each place
    borders = np.concatenate([[0], before[ends]])
    lines = np.concatenate([[0], before[np.flatnonzero(codes == _LINE)]])
    return Folded(codes[kept], borders, lines)


def as_text(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _ends(texts: Sequence[str]) -> Positions:
    """Where each text ends, with the line end that joins it to the next."""
    return np.cumsum([len(text) + 1 for text in texts], dtype=np.intp)


def _look_up(texts: Sequence[str]) -> Codes:
    joined = "\n".join([*texts, ""])
    codes: Codes = _table()[np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")]
    return codes


@lru_cache(maxsize=1)
def _table() -> Codes:
    """For each code point the folded one, or that it is dropped, ends a line, or is several. 4.5 MB, made in 0.2 s."""
    table = np.full(0x110000, _DROPPED, np.uint32)
    simplified, joining = _simplified(), _joining()
    for code in range(_ASSIGNED):
        composed = unicodedata.normalize("NFKC", chr(code))
        folded = composed.casefold()
        if composed[0] in joining or (len(folded) > 1 and any(map(str.isalnum, folded))):
            table[code] = _SEVERAL
        elif len(folded) == 1 and folded.isalnum():
            table[code] = ord(simplified.get(folded, folded))
    for end in _LINE_ENDS:
        table[ord(end)] = _LINE
    return table


def _simplified() -> dict[str, str]:
    """The simplified character of each traditional one, by itself: words that OpenCC would tell apart are not."""
    import opencc

    characters = [chr(code) for codes in _HAN for code in codes]
    converted = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    return {one: other for one, other in zip(characters, converted, strict=True) if one != other}


def _joining() -> set[str]:
    """The characters that NFKC may join to the one before them: accents, voicing marks, vowels and ends of Hangul."""
    found = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(_ASSIGNED):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return found
