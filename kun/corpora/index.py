"""The first pass over a corpus: its units, the number of items in each, and repeated texts.

    build(folder, "wudao", corpus, file_digests, make_split, workers=8)    # fills the folder
    for unit in units(folder, "wudao", corpus): ...                        # each can be read alone

Reading and normalising costs a few percent of filtering, so doing it twice is cheap; with both counts known, any number
of processes can cut the corpus into shards in the second pass. A unit whose bytes are known is not read again: its
table is named by their digest. Memory is constant, apart from 16 bytes per repeated text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kun.config.schema import Corpus
from kun.corpora.files import CorpusFile, find, open_file
from kun.corpora.ingest import DIGEST_BYTES, Item, Split, items
from kun.corpora.readers import read_part
from kun.corpora.rows import Row
from kun.corpora.units import count_lines
from kun.corpora.units import units as cut_into_units
from kun.errors import InputError
from kun.execution.processes import map_unordered
from kun.progress import Progress
from kun.store import atomic, digests

UNITS, REPEATS = "units.json", "repeats.npy"
WORD = np.dtype("<u8")
NO_DIGEST = bytes(DIGEST_BYTES)
RECORD_BYTES = 500  # about, compressed or not: to tell whether there are few
BUCKET = 2**20  # digests compared at a time, about 60 MB
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Unit:
    """Parts of a corpus for one process, and the digest of their bytes. `first_item` is the number of its first item in
    the corpus."""

    subset: str
    digest: str
    parts: tuple[CorpusFile, ...]
    first_item: int
    items: int

    def rows(self, corpus: Corpus) -> Iterator[Row]:
        return chain.from_iterable(read_part(self.subset, corpus, part) for part in self.parts)


class PartRow(msgspec.Struct, frozen=True):
    """A part of a unit. `file` is a number, and `name` relative to the corpus, so that the corpus can be moved;
    `file_digest` is that of the whole file, `digest` that of the part."""

    file: int
    name: str
    start: int
    end: int | None
    first_row: int
    file_digest: str
    digest: str


class UnitRow(msgspec.Struct, frozen=True):
    """An entry of `units.json`."""

    digest: str
    parts: list[PartRow]
    first_item: int
    items: int


def build(
    folder: Path,
    subset: str,
    corpus: Corpus,
    file_digests: Sequence[str],
    make_split: Callable[[], Split | None],
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Read the units of the corpus that the folder does not know. `progress` counts megabytes; `file_digests` are those
    of the files of the corpus, in order.

    InputError, naming the setting, where a path matches nothing or a file cannot be opened.
    """
    files = find(subset, corpus)
    numbers = {found.path: number for number, found in enumerate(files)}
    known = {(row.file_digest, row.start, row.end): row.digest for unit in _read_units(folder) for row in unit.parts}
    cuts = []
    for parts in cut_into_units(files, corpus.format):
        rows = [_part_row(part, numbers[part.path], file_digests, known) for part, _ in parts]
        cuts.append((digests.of_value([row.digest for row in rows]), rows, parts))
    missing = {digest: parts for digest, _, parts in cuts if not _table(folder, digest).exists()}
    tasks = [(digest, [part for part, _ in parts]) for digest, parts in missing.items()]
    sizes = {digest: sum(size for _, size in parts) for digest, _, parts in cuts}
    total = sum(sizes.values())
    done = total - sum(sizes[digest] for digest in missing)
    records = (total - done) / RECORD_BYTES
    for digest in map_unordered(partial(_scan, folder, subset, corpus, make_split), tasks, workers, records):
        progress((done := done + sizes[digest]) // 10**6, total // 10**6)
    units, lines, first_item = [], [0] * len(files), 0
    for digest, rows, _ in cuts:
        lines_here, items_here = (int(count) for count in _rows(_table(folder, digest), 0, 1)[0])
        first = rows[0]
        rows[0] = msgspec.structs.replace(first, first_row=first.first_row or lines[first.file])
        units.append(UnitRow(digest, rows, first_item, items_here))
        lines[first.file] += lines_here
        first_item += items_here
    again = repeats(first_item, lambda: _digests(_table(folder, digest) for digest, _, _ in cuts))
    with atomic.replacing(folder / REPEATS) as stream:
        np.save(stream, again)
    atomic.write(folder / UNITS, msgspec.json.encode(units))
    for table in folder.glob("*.digests"):
        if table.stem not in sizes:
            table.unlink()
    return {"rows": first_item, "parts": len(units), "repeated": len(again)}


def _part_row(
    part: CorpusFile, number: int, file_digests: Sequence[str], known: Mapping[tuple[str, int, int | None], str]
) -> PartRow:
    """What is to be known of a part: its digest, which is that of its bytes and of how they are read."""
    whole = file_digests[number]
    digest = known.get((whole, part.start, part.end))
    if digest is None:
        ending = "".join(part.path.suffixes[-2:]).lower()
        lines = part.end is not None and not ending.endswith(".parquet")
        content = _of_range(part) if lines else whole
        place = part.start == 0 if lines else (part.start, part.end)
        digest = digests.of_value([ending, content, place])
    return PartRow(number, part.name, part.start, part.end, part.first_row, whole, digest)


def _of_range(part: CorpusFile) -> str:
    with open_file(part) as stream:
        digest = hashlib.blake2b(digest_size=16)
        while data := stream.read(2**20):
            digest.update(data)
    return digest.hexdigest()


def _scan(
    folder: Path,
    subset: str,
    corpus: Corpus,
    make_split: Callable[[], Split | None],
    digest: str,
    parts: Sequence[CorpusFile],
) -> str:
    """Write the table of a unit: its number of lines and items, then a digest for each item (zero for a reject)."""
    count = 0
    with atomic.replacing(_table(folder, digest)) as stream:
        stream.write(NO_DIGEST)
        rows = chain.from_iterable(read_part(subset, corpus, part) for part in parts)
        for item in items(rows, make_split()):
            stream.write(item.digest or NO_DIGEST)
            count += 1
        stream.seek(0)
        stream.write(np.array([sum(map(count_lines, parts)), count], WORD).tobytes())
    return digest


def _table(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.digests"


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


def _read_units(folder: Path) -> list[UnitRow]:
    """The units of an earlier build; none where there was none, or it is damaged."""
    try:
        return msgspec.json.decode((folder / UNITS).read_bytes(), type=list[UnitRow])
    except (OSError, ValueError):
        return []


def units(folder: Path, subset: str, corpus: Corpus) -> list[Unit]:
    """The units that `build` recorded. InputError where the number of files has changed."""
    files = find(subset, corpus)
    rows = msgspec.json.decode((folder / UNITS).read_bytes(), type=list[UnitRow])
    indexed = 1 + max((part.file for row in rows for part in row.parts), default=-1)
    if rows and len(files) != indexed:
        raise InputError(
            f"corpora.{subset}.paths: there were {indexed} files when they were indexed, and are {len(files)} now; "
            "run the same command again"
        )

    def part_of(row: PartRow) -> CorpusFile:
        found = files[row.file]
        if found.name != row.name:
            raise _changed(str(found.path))
        return replace(found, start=row.start, end=row.end, first_row=row.first_row)

    return [Unit(subset, row.digest, tuple(map(part_of, row.parts)), row.first_item, row.items) for row in rows]


def slices(folder: Path, units: Iterable[Unit], shard_rows: int) -> Iterator[tuple[Unit, list[tuple[str, int, str]]]]:
    """The shards of each unit: the key of each, its number of rows, and the digest of what decides them: the bytes, the
    names, and how often the texts occurred before.

    A key tells the place: the name of the first file, the row with which the unit begins, unless that is the first one
    of the file, and the number in the unit. So it moves with the rows.
    """
    again = np.load(folder / REPEATS, mmap_mode="r")
    met: Counter[tuple[str, str]] = Counter()
    for unit in units:
        first_part = unit.parts[0]
        begins = "" if first_part.start == 0 else _rows(_table(folder, unit.digest), 1, 1).tobytes().hex()
        place = (first_part.name, begins)
        made_from = digests.of_value([unit.digest, [(part.name, part.first_row) for part in unit.parts]])
        found = []
        for number, first in enumerate(range(0, unit.items, shard_rows)):
            rows = min(shard_rows, unit.items - first)
            position = unit.first_item + first
            here = slice(*np.searchsorted(again[:, 0], [position, position + rows]))
            occurred = [(again[here, 0] - position).tolist(), again[here, 1].tolist()]
            key = digests.of_value([*place, met[place], number])[:16]
            found.append((key, rows, digests.of_value([made_from, first, rows, *occurred])))
        met[place] += 1
        yield unit, found


def unchanged(folder: Path, unit: Unit, again: Iterable[Item]) -> Iterator[Item]:
    """The items of a unit, read a second time. InputError where they differ from those that `build` read."""
    paths = list(dict.fromkeys(str(part.path) for part in (unit.parts[0], unit.parts[-1])))
    with _table(folder, unit.digest).open("rb") as table:
        table.seek(DIGEST_BYTES)
        for item in again:
            if table.read(DIGEST_BYTES) != (item.digest or NO_DIGEST):
                raise _changed(" to ".join(paths))
            yield item
        if table.read(1):
            raise _changed(" to ".join(paths))


def _changed(place: str) -> InputError:
    return InputError(f"{place}: the file changed while it was read; run the same command again")


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
