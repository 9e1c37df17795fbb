"""Texts of evaluation files in documents: `build(settings, folder)`, then `open_index(folder).find(texts)`.

An index holds the n-grams of the evaluation files over folded characters (kun.text.fold), as sorted 64-bit hashes in
memory-mapped files that all processes share. A text is contaminated if it has a stretch of these n-grams that weighs as
much as an n-gram of Chinese characters. Lighter texts of an evaluation count only where they make up a whole line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kun.config.schema import Decontaminate
from kun.corpora.evaluation import find_evaluations, read_texts
from kun.corpora.files import CorpusFile
from kun.errors import InputError
from kun.filters.decontamination import rolling
from kun.filters.decontamination.rolling import Hashes
from kun.progress import Progress
from kun.records import Reject
from kun.store import atomic
from kun.text.fold import Folded, Positions, as_text, fold
from kun.text.normal import preview

INDEX = "index.json"
SHORTEST = 8  # Chinese characters; anything shorter could be from anywhere, even as a whole line
# An n-gram in more rows of a file than this, and in a larger share of them, is part of its prompt template.
TEMPLATE_ROWS, TEMPLATE_SHARE = 20, 0.5
BITS = 32  # of the Bloom filter per n-gram, at least: at most one in 32 is looked up in vain


class Overlap(msgspec.Struct, frozen=True):
    """What a text shares with an evaluation: the file, the row (from 0), and the shared folded characters."""

    file: str
    row: int
    text: str


class IndexInfo(msgspec.Struct, frozen=True):
    """The content of `index.json`. `short`: texts that count as whole lines; `too_short`: rows with nothing to find."""

    ngram: int
    files: tuple[str, ...]
    rows: int
    ngrams: int
    short: int
    too_short: int
    templates: int


@dataclass(frozen=True)
class Index:
    """An open index. `hashes` are sorted; `hashes[i]` comes from row `owners[i]` of `rows`, which holds (file, row)."""

    info: IndexInfo
    hashes: Hashes
    owners: NDArray[np.uint32]
    rows: NDArray[np.uint32]
    bits: NDArray[np.uint8]

    def find(self, texts: Sequence[str]) -> list[Overlap | None]:
        """The longest stretch of an evaluation in each text, or None."""
        folded = fold(texts)
        found: list[Overlap | None] = [None] * len(texts)
        longest = [0] * len(texts)
        for start, end, owner in self._stretches(folded):
            number = int(folded.borders.searchsorted(start, "right")) - 1
            if end - start > longest[number]:
                longest[number] = end - start
                file, row = self.rows[owner].tolist()
                found[number] = Overlap(self.info.files[file], row, as_text(folded.codes[start:end]))
        return found

    def _stretches(self, folded: Folded) -> Iterator[tuple[int, int, int]]:
        """Begin, end and owner of stretches whose n-grams are all in the index, and of whole lines in it."""
        sums, weights = rolling.sums(folded.codes), rolling.weights(folded.codes)
        hashes, starts = rolling.ngrams(sums, folded.borders, self.info.ngram)
        places, known = self._look_up(hashes)
        starts, owners = starts[known], self.owners[places]
        firsts = np.flatnonzero(np.diff(starts, prepend=-2) != 1).tolist()
        for first, after in zip(firsts, [*firsts[1:], len(starts)], strict=False):
            start, end = int(starts[first]), int(starts[after - 1]) + self.info.ngram
            if weights[end] - weights[start] >= rolling.WIDE * self.info.ngram:
                rows, counts = np.unique(owners[first:after], return_counts=True)
                yield start, end, int(rows[counts.argmax()])
        if self.info.short:
            hashes, starts, ends = rolling.lines(sums, weights, folded.lines, SHORTEST, self.info.ngram)
            places, known = self._look_up(hashes)
            yield from zip(starts[known].tolist(), ends[known].tolist(), self.owners[places].tolist(), strict=True)

    def _look_up(self, hashes: Hashes) -> tuple[Positions, Positions]:
        """For the hashes that the index has: their places in it, and in `hashes`."""
        maybe = np.flatnonzero(_has(self.bits, hashes))
        places = np.minimum(self.hashes.searchsorted(hashes[maybe]), len(self.hashes) - 1)
        known = self.hashes[places] == hashes[maybe]
        return places[known], maybe[known]


def contaminated(index: Path | None, texts: Sequence[str]) -> list[Reject | None]:
    """For each text None, or a Reject that names the evaluation file, its row and what the text shares with it.

    `index` is the folder of an index; without one nothing is contaminated. A shard at a time is ten times as fast as
    text by text.
    """
    overlaps = [None] * len(texts) if index is None else open_index(index).find(texts)
    return [o if o is None else Reject("contaminated", f"{o.file}, row {o.row}: {preview(o.text)}") for o in overlaps]


@lru_cache(maxsize=2)
def open_index(folder: Path) -> Index:
    """The index in `folder`, mapped into memory. InputError where it cannot be read."""
    try:
        info = msgspec.json.decode((folder / INDEX).read_bytes(), type=IndexInfo)
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hashes", "owners", "rows", "bits")]
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(
            f"decontaminate: {folder} is no index of evaluation files: {error}; delete it and run the command again"
        ) from None
    return Index(info, *map(np.asarray, arrays))


def build(settings: Decontaminate, folder: Path, progress: Progress = lambda done, total: None) -> IndexInfo:
    """Write the index of the configured evaluation files to `folder`. `progress` counts rows.

    It takes 12 bytes, and 4 to 8 of its Bloom filter, per distinct n-gram; about five times as much while it is built.
    InputError, naming the setting, where a file is missing, empty or broken, or has nothing to find.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = find_evaluations(settings.files)
    parts: list[_Part] = []
    for file in files:
        parts.append(_of_file(file, settings, sum(len(part.rows) for part in parts), progress))
    hashes, places = np.unique(np.concatenate([part.hashes for part in parts]), return_index=True)
    info = IndexInfo(
        ngram=settings.ngram,
        files=tuple(file.name for file in files),
        rows=sum(len(part.rows) for part in parts),
        ngrams=len(hashes),
        short=sum(part.short for part in parts),
        too_short=sum(part.too_short for part in parts),
        templates=sum(part.templates for part in parts),
    )
    _save(folder / "hashes.npy", hashes)
    _save(folder / "owners.npy", np.concatenate([part.owners for part in parts])[places])
    rows = [(number, row) for number, part in enumerate(parts) for row in part.rows]
    _save(folder / "rows.npy", np.array(rows, np.uint32))
    _save(folder / "bits.npy", _filter(hashes))
    atomic.write(folder / INDEX, msgspec.json.format(msgspec.json.encode(info)) + b"\n")
    return info


@dataclass(frozen=True)
class _Part:
    """One file's part of the index: hashes with their owners (rows numbered over all files), and its row numbers."""

    hashes: Hashes
    owners: NDArray[np.uint32]
    rows: list[int]
    short: int
    too_short: int
    templates: int


def _of_file(file: CorpusFile, settings: Decontaminate, before: int, progress: Progress) -> _Part:
    rows: list[int] = []
    short, of_rows = [], []
    for row, strings in read_texts(file, settings.fields):
        grams, lines = _of_row(strings, settings.ngram)
        short.append(len(lines))
        of_rows.append(np.concatenate([grams, lines]))
        rows.append(row)
        progress(before + len(rows), 0)
    sizes = [len(hashes) for hashes in of_rows]
    hashes = np.concatenate(of_rows)
    owners = np.repeat(np.arange(before, before + len(rows), dtype=np.uint32), sizes)
    kept, templates = _without_templates(hashes, len(rows))
    if not kept.any():
        raise InputError(
            f"decontaminate.files: {file.path}: no text of {SHORTEST} Chinese characters or more that is not in most "
            "rows; decontaminate.fields, where it is set, names the fields of the texts"
        )
    return _Part(hashes[kept], owners[kept], rows, sum(short), sizes.count(0), templates)


def _of_row(strings: Sequence[str], ngram: int) -> tuple[Hashes, Hashes]:
    """The distinct n-grams of a row's strings, and the strings that are shorter than an n-gram."""
    folded = fold(strings)
    sums, weights = rolling.sums(folded.codes), rolling.weights(folded.codes)
    hashes, _ = rolling.ngrams(sums, folded.borders, ngram)
    short, _, _ = rolling.lines(sums, weights, folded.borders, SHORTEST, ngram)  # a string counts as one line
    return np.unique(hashes), np.unique(short)


def _without_templates(hashes: Hashes, rows: int) -> tuple[NDArray[np.bool_], int]:
    """Which n-grams of a file's rows are not part of its prompt template, and how many distinct ones are."""
    _, places, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    template = counts > max(TEMPLATE_ROWS, TEMPLATE_SHARE * rows)
    return ~template[places], int(template.sum())


def _filter(hashes: Hashes) -> NDArray[np.uint8]:
    """A Bloom filter: a bit for each of the 2^k values of the hashes' upper bits."""
    bits = np.zeros(1 << max((len(hashes) * BITS // 8 - 1).bit_length(), 3), np.uint8)
    byte, bit = _place(bits, hashes)
    np.bitwise_or.at(bits, byte, bit)
    return bits


def _has(bits: NDArray[np.uint8], hashes: Hashes) -> NDArray[np.uint8]:
    byte, bit = _place(bits, hashes)
    return bits[byte] & bit


def _place(bits: NDArray[np.uint8], hashes: Hashes) -> tuple[Hashes, NDArray[np.uint8]]:
    byte = hashes >> np.uint64(64 - (len(bits) - 1).bit_length())
    shift = ((hashes >> np.uint64(64 - (len(bits) - 1).bit_length() - 3)) & np.uint64(7)).astype(np.uint8)
    return byte, np.uint8(1) << shift


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic.replacing(path) as file:
        np.save(file, array)
