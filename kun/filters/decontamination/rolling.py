"""Hashes of stretches of folded characters: `ngrams(sums(folded.codes), folded.borders, 20)`.

A polynomial hash modulo 2^64 over mixed characters: the hash of a stretch is the difference of two prefix sums times a
power of the inverse base, so that hashing all n-grams of a shard takes a few numpy calls. The chance of a false match
is (n-grams of the index) / 2^64: of a trillion n-grams looked up among ten million, less than one matches by chance.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kun.text.fold import Codes, Positions

Hashes = NDArray[np.uint64]

# A Chinese character weighs as much as three Latin letters or digits: 20 characters as 60 letters, about twelve words;
# 20 letters are no more than `https://en.wikipedia.org/wiki` (docs/measurements.md).
WIDE, _FIRST_WIDE = 3, 0x2E80
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_LINE = np.uint64(0x94D049BB133111EB)  # distinguishes whole lines from n-grams


def sums(codes: Codes) -> Hashes:
    """Prefix sums over the first 0, 1, ... characters, each mixed and multiplied by a power of the base."""
    mixed = codes.astype(np.uint64)
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MIX
    mixed *= _powers(len(codes))[0][: len(codes)]
    return np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed)])


def weights(codes: Codes) -> Positions:
    """Prefix sums of the weights of the first 0, 1, ... characters, in Latin letters."""
    return np.concatenate([[0], np.cumsum(np.where(codes >= _FIRST_WIDE, WIDE, 1))])


def ngrams(sums: Hashes, borders: Positions, ngram: int) -> tuple[Hashes, Positions]:
    """The hashes of all n-grams that cross no border, and where they begin."""
    count = max(len(sums) - ngram, 0)
    hashes = _hash(sums, slice(0, count), slice(ngram, ngram + count))
    inside = np.ones(count, bool)
    for border in borders[1:-1].tolist():
        inside[max(border - ngram + 1, 0) : border] = False
    starts = np.flatnonzero(inside)
    return hashes[starts], starts


def lines(
    sums: Hashes, weights: Positions, borders: Positions, lightest: int, heaviest: int
) -> tuple[Hashes, Positions, Positions]:
    """The hashes of the whole lines that weigh from `lightest` to less than `heaviest` Chinese characters, and where
    they begin and end."""
    own = np.diff(weights[borders])
    chosen = np.flatnonzero((own >= WIDE * lightest) & (own < WIDE * heaviest))
    starts, ends = borders[:-1][chosen], borders[1:][chosen]
    return _hash(sums, starts, ends) ^ ((ends - starts).astype(np.uint64) * _LINE), starts, ends


def _hash(sums: Hashes, starts: Any, ends: Any) -> Hashes:
    """The hashes of stretches, independent of their positions."""
    hashes: Hashes = sums[ends] - sums[starts]
    hashes *= _powers(len(sums))[1][: len(sums)][starts]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    return hashes


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """At least `size` powers of the base, and of its inverse."""
    return _made_powers(1 << max(size, 2**16).bit_length())


@cache
def _made_powers(size: int) -> tuple[Hashes, Hashes]:
    both = []
    for base in (_BASE, _INVERSE):
        powers = np.full(size, base, np.uint64)
        powers[0] = 1
        both.append(np.multiply.accumulate(powers))
    return both[0], both[1]
