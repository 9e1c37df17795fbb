"""MinHash signatures of texts: `slots = sign(texts)`; the share of equal slots of two rows estimates their similarity.

The similarity is Jaccard's, of the sets of n-grams of folded characters. rensa (Rust) does the hashing: measured as 300
times as fast as datasketch, and unbiased (docs/measurements.md). All functions take many texts at once, in numpy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kun.text.fold import fold

Array = np.ndarray[Any, Any]

GRAM = 5  # characters: two or three Chinese words, so that texts on one topic are not similar
SLOTS = 128  # at a similarity of 0.7 the standard deviation of the estimate is at most 0.04
SEED = 1  # of rensa
RECALL = 0.98  # of pairs that are 0.1 above the limit
GAP = GRAM - 1  # zeros after each text, so that no n-gram reaches into the next
# Random odd numbers: at most one pair of n-grams in 2^43 has the same sum of products.
WEIGHTS = np.frombuffer(hashlib.shake_128(b"near-duplicates").digest(8 * SLOTS), "<u8") | np.uint64(1)


@dataclass(frozen=True)
class Bands:
    """A signature cut into `count` bands of `rows` slots: texts that agree in a whole band are compared."""

    count: int
    rows: int

    def found(self, similarity: float) -> float:
        """The share of pairs of this similarity that are compared: 1 - (1 - s^rows)^count."""
        return float(1 - (1 - similarity**self.rows) ** self.count)


def bands(limit: float) -> Bands:
    """The longest bands, for the fewest comparisons, that find RECALL of the pairs 0.1 above the limit."""
    near = min(limit + 0.1, 0.97)
    choices = (Bands(SLOTS // rows, rows) for rows in range(SLOTS, 0, -1))
    return next(choice for choice in choices if choice.found(near) >= RECALL)


def algorithm() -> str:
    """The algorithm behind a signature; signatures of different algorithms cannot be compared."""
    import rensa

    return f"rensa.RMinHash {rensa.RMinHash.ALGORITHM_VERSION}"


def sign(texts: Sequence[str]) -> Array:
    """A row of SLOTS 16-bit values for each text; all are 0xFFFF where a text has no letters or digits.

    Takes about 60 bytes of memory per character. One thread: the caller has processes.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # read at the first large batch
    import rensa

    hashes, starts = grams(texts)
    made = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, SLOTS, SEED)
    # 16 of the 32 bits are enough: unequal slots agree in them once in 65,536.
    return np.array(made.to_rows(), np.uint32).reshape(-1, SLOTS).astype(np.uint16)


def unsigned(slots: Array) -> Array:
    """Which rows belong to texts without letters and digits, which are similar to nothing."""
    empty: Array = (slots == 0xFFFF).all(axis=1)
    return empty


def band_keys(slots: Array, bands: Bands) -> Array:
    """A 64-bit key for each band and row, shape (bands, rows); 0 in all bands of an unsigned row."""
    parts = slots[:, : bands.count * bands.rows].reshape(-1, bands.count, bands.rows)
    keys = np.zeros((bands.count, len(slots)), np.uint64)
    for row in range(bands.rows):
        keys += parts[:, :, row].T * WEIGHTS[row]
    keys ^= keys >> np.uint64(32)  # so that the high bits, used for sorting, depend on all
    keys *= WEIGHTS[-1]
    keys[:, unsigned(slots)] = 0
    return keys


def grams(texts: Sequence[str]) -> tuple[Array, Array]:
    """64-bit hashes of the n-grams of all texts, concatenated, and where each text begins, the end included.

    A text of fewer than GRAM characters is one n-gram; repeated n-grams are repeated here.
    """
    folded, gaps = fold(texts), np.arange(len(texts)) * GAP
    lengths = np.diff(folded.borders)
    codes = np.zeros(len(folded.codes) + len(texts) * GAP, np.uint64)
    codes[np.arange(len(folded.codes)) + np.repeat(gaps, lengths)] = folded.codes
    begins = folded.borders[:-1] + gaps
    counts = np.where(lengths < GRAM, lengths > 0, lengths - GAP)
    windows = max(len(codes) - GAP, 0)
    hashes = np.zeros(windows, np.uint64)
    for place in range(GRAM):
        hashes += codes[place : place + windows] * WEIGHTS[place]
    inside = np.zeros(len(codes) + 1, np.int8)
    inside[begins] += 1
    inside[begins + counts] -= 1
    starts = np.concatenate(([0], counts.cumsum())).astype(np.uint64)
    return hashes[inside.cumsum(dtype=np.int8)[:windows].astype(bool)], starts


def gram_set(text: str) -> Array:
    """The distinct n-grams of a text, as sorted hashes."""
    return np.unique(grams([text])[0])


def similarity(one: Array, other: Array) -> float:
    """The exact Jaccard similarity of two sets of n-grams that are not both empty."""
    places = np.minimum(np.searchsorted(one, other), len(one) - 1)
    both = int((one[places] == other).sum()) if len(one) else 0
    return both / (len(one) + len(other) - both)
