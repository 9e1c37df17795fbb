"""Repetition: `repeated_share(count(texts))` is high for menus, doubled pages and one unit repeated to the end."""

from __future__ import annotations

import numpy as np

from kun.text.characters import BLANK, Array, Characters

# Characters of a stretch that counts as repeated. Measured on real text (docs/measurements.md): with 5, menus of
# shuffled entries stand at 0.46 to 0.84 and repeated units at 0.9 and more, and 99 % of web, technical and legal prose
# below 0.5; 8 and more lose the menus, 4 reaches into legal prose.
LENGTH = 5

_BUCKETS = 16  # bits
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing


def repeated_share(texts: Characters) -> Array:
    """Share of the characters, white space aside, that lie in a stretch of `LENGTH` that the text had before.

    A unit of any length that comes n times gives 1 - 1/n, for n characters on end as for n pages. Time is that of
    sorting. A stretch is known by the hash bits that its position leaves free in 64, 40 and more: of 1,000 different
    ones in a text, two are taken for the same once in two million texts.
    """
    shown = texts.kinds != BLANK
    codes, owners = texts.codes[shown], texts.owners[shown]
    size = len(codes) - LENGTH + 1
    if size < 2:
        return np.zeros(len(texts.texts))
    hashes = _hashes(codes, size)
    # Most stretches come once in their text: those that are alone in their bucket need no sorting.
    buckets = ((hashes + owners[:size].astype(np.uint64) * _MIX) >> np.uint64(64 - _BUCKETS)).astype(np.int64)
    crowded = np.flatnonzero((np.bincount(buckets, minlength=1 << _BUCKETS)[buckets] > 1) & _whole(owners, size))
    places = np.uint64((size - 1).bit_length())
    keys = np.sort(hashes[crowded] >> places << places | crowded.astype(np.uint64))
    positions = (keys & ((np.uint64(1) << places) - np.uint64(1))).astype(np.int64)
    # Equal ones stand in the order of their positions, so those of one text side by side; its first is no repetition.
    again = (keys[1:] >> places == keys[:-1] >> places) & (owners[positions[1:]] == owners[positions[:-1]])
    covered = np.zeros(len(codes), np.bool_)
    for offset in range(LENGTH):
        covered[positions[1:][again] + offset] = True
    return np.bincount(owners[covered], minlength=len(texts.texts)) / texts.visible


def _whole(owners: Array, size: int) -> Array:
    """Whether a stretch lies in one text."""
    whole: Array = owners[:size] == owners[LENGTH - 1 :]
    return whole


def _hashes(codes: Array, size: int) -> Array:
    """64 bits for each stretch of `LENGTH` code points, the upper ones the best."""
    wide = codes.astype(np.uint64)
    hashes = wide[:size]
    for offset in range(1, LENGTH):
        hashes = hashes * _MIX + wide[offset : offset + size]
    return (hashes ^ hashes >> np.uint64(32)) * _MIX
