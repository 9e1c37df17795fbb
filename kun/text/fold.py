"""Texts as arrays of folded characters, so that spellings of the same words compare equal: `fold(["Ａ, 體"]).codes`.

Folding applies NFKC and case folding, turns traditional characters into simplified ones, and keeps only letters and
digits. It looks characters up in a table, so that folding many texts is a few numpy calls. Only texts with characters
that become several, or join the one before them (㎏, combining accents), are first normalised as a whole.
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

_DROPPED, _SEVERAL, _LINE = 0, 1, 10  # in the table; greater values are folded characters
_LINE_ENDS = "\n\r\x0b\x0c\x85\u2028\u2029"
_ASSIGNED = 0x33480  # Unicode 17 has no letter or digit from here on
_HAN = (range(0x3400, 0xA000), range(0x20000, _ASSIGNED))  # NFKC folds the compatibility ideographs


class Folded(NamedTuple):
    """The folded characters of texts, concatenated.

    `borders`: where each text begins, and where the last one ends. `lines`: the same for lines; the end of a text also
    ends a line, and lines may be empty.
    """

    codes: Codes
    borders: Positions
    lines: Positions


def fold(texts: Sequence[str]) -> Folded:
    """Fold the texts. Lone surrogates are dropped, like everything that is neither a letter nor a digit."""
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
    before = np.concatenate([[0], np.cumsum(kept)])  # the number of kept characters before each place
    borders = np.concatenate([[0], before[ends]])
    lines = np.concatenate([[0], before[np.flatnonzero(codes == _LINE)]])
    return Folded(codes[kept], borders, lines)


def as_text(codes: Codes) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def _ends(texts: Sequence[str]) -> Positions:
    """Where each text ends, including the newline that joins it to the next."""
    return np.cumsum([len(text) + 1 for text in texts], dtype=np.intp)


def _look_up(texts: Sequence[str]) -> Codes:
    joined = "\n".join([*texts, ""])
    codes: Codes = _table()[np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")]
    return codes


@lru_cache(maxsize=1)
def _table() -> Codes:
    """For each code point, its folded one, or a mark: dropped, end of line, several. 4.5 MB, built in 0.2 s."""
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
    """The simplified form of each traditional character, taken alone: OpenCC's rules for words do not apply."""
    import opencc

    characters = [chr(code) for codes in _HAN for code in codes]
    converted = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    return {character: simple for character, simple in zip(characters, converted, strict=True) if character != simple}


def _joining() -> set[str]:
    """Characters that NFKC may join to the one before: accents, voicing marks, vowels and finals of Hangul."""
    joining = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(_ASSIGNED):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            joining.add(chr(int(parts[1], 16)))
    return joining
