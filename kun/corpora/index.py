"""The first pass over a corpus: its units, the number of items in each, and repeated texts.

    build(folder, "wudao", corpus, make_split, workers=8)    # fills the folder
    for unit in units(folder, "wudao", corpus): ...          # each can be read alone, numbered within the corpus

Reading and normalising costs a few percent of filtering, so doing it twice is cheap; with both counts known, any number
of processes can cut the corpus into shards in the second pass. Memory is constant, apart from 16 bytes per repeated
text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kun.config.schema import Corpus
from kun.corpora.files import CorpusFile, find
from kun.corpora.ingest import DIGEST_BYTES, Item, Split, items
from kun.corpora.readers import read_part
from kun.corpora.units import count_lines, cut
from kun.errors import InputError
from kun.execution.processes import map_unordered
from kun.progress import Progress
from kun.store import atomic

UNITS, REPEATS = "units.json", "repeats.npy"
WORD = np.dtype("<u8")
NO_DIGEST = bytes(DIGEST_BYTES)
RECORD_BYTES = 500  # about, compressed or not: to tell whether there are few
BUCKET = 2**20  # digests compared at a time, about 60 MB
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Unit:
    """A part of a corpus for one process. `first_item` is the number of its first item in the corpus."""

    subset: str
    number: int
    found: CorpusFile
    first_item: int
    items: int


class UnitRow(msgspec.Struct, frozen=True):
    """An entry of `units.json`; `file` is a number, not a path, so that the corpus can be moved."""

    file: int
    start: int
    end: int | None
    first_row: int
    first_item: int
    items: int


def build(
    folder: Path,
    subset: str,
    corpus: Corpus,
    make_split: Callable[[], Split | None],
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Read the corpus once, except for parts that the folder already has. `progress` counts megabytes.

    InputError, naming the setting, where a path matches nothing or a file cannot be opened.
    """
    files = find(subset, corpus)
    parts = [(file, part, size) for file, found in enumerate(files) for part, size in cut(found, corpus.format)]
    missing = [
        (number, part, size) for number, (_, part, size) in enumerate(parts) if not _table(folder, number).exists()
    ]
    total = sum(size for *_, size in parts)
    done = total - sum(size for *_, size in missing)
    records = (total - done) / RECORD_BYTES
    for size in map_unordered(partial(_scan, folder, subset, corpus, make_split), missing, workers, records):
        done += size
        progress(done // 10**6, total // 10**6)
    rows, lines, first_item = [], [0] * len(files), 0
    for number, (file, part, _) in enumerate(parts):
        lines_here, items_here = (int(count) for count in _rows(_table(folder, number), 0, 1)[0])
        rows.append(UnitRow(file, part.start, part.end, part.first_row or lines[file], first_item, items_here))
        lines[file] += lines_here
        first_item += items_here
    again = repeats(first_item, lambda: _digests(_table(folder, number) for number in range(len(parts))))
    with atomic.replacing(folder / REPEATS) as stream:
        np.save(stream, again)
    atomic.write(folder / UNITS, msgspec.json.encode(rows))
    return {"rows": first_item, "parts": len(parts), "repeated": len(again)}


def _scan(
    folder: Path,
    subset: str,
    corpus: Corpus,
    make_split: Callable[[], Split | None],
    number: int,
    part: CorpusFile,
    size: int,
) -> int:
    """Write the table of one part: its number of lines and items, then a digest for each item (zero for a reject)."""
    count = 0
    with atomic.replacing(_table(folder, number)) as stream:
        stream.write(NO_DIGEST)
        for item in items(read_part(subset, corpus, part), make_split()):
            stream.write(item.digest or NO_DIGEST)
            count += 1
        stream.seek(0)
        stream.write(np.array([count_lines(part), count], WORD).tobytes())
    return size


def _table(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.digests"


def _rows(path: Path, first: int, count: int) -> Array:
    return np.fromfile(path, WORD, 2 * count, offset=first * DIGEST_BYTES).reshape(-1, 2)


def _digests(paths: Iterable[Path]) -> Iterator[Array]:
    for path in paths:
        first = 1
        while len(digests := _rows(path, first, BUCKET)):
            yield digests
            first += len(digests)


def repeats(count: int, tables: Callable[[], Iterable[Array]]) -> Array:
    """A row for each of `count` digests that occurred before: (its number, how often before), in order.

    `tables()` yields all digests in order, as arrays of shape (n, 2); it is called once per `BUCKET` digests.
    """
    buckets = np.uint64(count // BUCKET + 1)
    parts = [np.empty((0, 2), np.int64)]
    for bucket in range(int(buckets)):
        digests, numbers, first = [np.empty((0, 2), WORD)], [np.empty(0, np.int64)], 0
        for table in tables():
            here = np.flatnonzero((table[:, 0] % buckets == bucket) & table.any(axis=1))
            digests.append(table[here])
            numbers.append(here + first)
            first += len(table)
        parts.append(_repeats(np.concatenate(digests), np.concatenate(numbers)))
    again: Array = np.concatenate(parts)
    ordered: Array = again[again[:, 0].argsort()]
    return ordered


def _repeats(digests: Array, numbers: Array) -> Array:
    order = np.lexsort((numbers, digests[:, 1], digests[:, 0]))
    digests, numbers = digests[order], numbers[order]
    new = np.ones(len(digests), bool)
    new[1:] = (digests[1:] != digests[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    occurrence = np.arange(len(digests)) - np.repeat(starts, np.diff(starts, append=len(digests)))
    again: Array = np.column_stack((numbers, occurrence))[~new]
    return again


def units(folder: Path, subset: str, corpus: Corpus) -> list[Unit]:
    """The units that `build` recorded. InputError where the number of files has changed."""
    files = find(subset, corpus)
    rows = msgspec.json.decode((folder / UNITS).read_bytes(), type=list[UnitRow])
    if rows and len(files) != (indexed := rows[-1].file + 1):
        raise InputError(
            f"corpora.{subset}.paths: there were {indexed} files when they were indexed, and are {len(files)} now; "
            "run the same command again"
        )
    return [
        Unit(subset, number, replace(files[row.file], start=row.start, end=row.end, first_row=row.first_row),
             row.first_item, row.items)
        for number, row in enumerate(rows)
    ]  # fmt: skip


def unchanged(folder: Path, unit: Unit, again: Iterable[Item]) -> Iterator[Item]:
    """The items of a unit, read a second time. InputError where they differ from those that `build` read."""
    changed = f"{unit.found.path}: the file changed while it was read; run the same command again"
    with _table(folder, unit.number).open("rb") as digests:
        digests.seek(DIGEST_BYTES)
        for item in again:
            if digests.read(DIGEST_BYTES) != (item.digest or NO_DIGEST):
                raise InputError(changed)
            yield item
        if digests.read(1):
            raise InputError(changed)


def occurrences(folder: Path, unit: Unit) -> Iterator[int]:
    """For each item of a unit, how often its text occurred before in the corpus."""
    again = np.load(folder / REPEATS, mmap_mode="r")
    position, end = unit.first_item, unit.first_item + unit.items
    first, last = np.searchsorted(again[:, 0], [position, end])
    for number, count in again[first:last].tolist():
        yield from repeat(0, number - position)
        yield count
        position = number + 1
    yield from repeat(0, end - position)
