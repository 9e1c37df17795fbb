"""Cuts a corpus into units that can be read independently: `for unit in units(find("web", corpus), "jsonl"): ...`.

JSON lines are cut into ranges of bytes whose ends follow from the lines there, so that a changed or an appended row
leaves the other ranges; Parquet files into ranges of row groups. Compressed files, archives, JSON arrays and plain text
can only be read from the beginning. Small files are put together: a group ends after a file whose hashed name says so,
so that a file that comes or goes touches the group that it is in, and no other.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from kun.corpora.arrays import is_array
from kun.corpora.files import COMPRESSIONS, ROW_LIMIT, CorpusFile, open_file
from kun.corpora.readers import rows_of_groups

GROUP_BYTES = 8 * 2**20  # of small files, on average
LINES = ("wanjuan", "skypile", "jsonl")
ARCHIVES = (".tar", ".tgz")
ONE_OF = 64  # lines may end a range
PART_BYTES = 16 * 2**20  # a few seconds of reading, some minutes of filtering


Part = tuple[CorpusFile, int]  # a file, or a range of one, and its size on disk in bytes


def units(files: Sequence[CorpusFile], kind: str) -> Iterator[list[Part]]:
    """The parts of the files of a corpus, in order, put together to units."""
    group: list[Part] = []
    for found in files:
        parts = list(cut(found, kind))
        size = sum(part_size for _, part_size in parts)
        alone = size >= GROUP_BYTES or len(parts) > 1
        if alone and group:
            yield group
            group = []
        if alone:
            yield from ([part] for part in parts)
            continue
        group += parts
        if _ends_group(found.name, size):
            yield group
            group = []
    if group:
        yield group


def _ends_group(name: str, size: int) -> bool:
    chance = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
    return chance < size / GROUP_BYTES


def cut(found: CorpusFile, kind: str) -> Iterator[Part]:
    """The parts of a file of format `kind`, in order."""
    size = found.path.stat().st_size
    if size >= 2 * PART_BYTES and kind == "parquet":
        yield from _row_groups(found, size)
    elif size > PART_BYTES and is_plain_lines(found, kind):
        yield from _ranges(found, size)
    else:
        yield found, size


def is_plain_lines(found: CorpusFile, kind: str) -> bool:
    """Whether a file of format `kind` can be read from the beginning of any line."""
    packed = found.path.name.lower().endswith((*COMPRESSIONS, *ARCHIVES))
    return kind in LINES and not packed and not is_array(found)


def _ranges(found: CorpusFile, size: int) -> Iterator[Part]:
    """Each ends, some PART_BYTES on, after a line whose checksum says so: borders that a row more or less, or a longer
    one, does not move."""
    start = 0
    with found.path.open("rb") as file:
        while start < size:
            file.seek(min(start + PART_BYTES, size) - 1)
            latest = file.tell() + PART_BYTES // 4
            while line := file.readline(ROW_LIMIT):
                if line.endswith(b"\n") and (zlib.crc32(line) % ONE_OF == 0 or file.tell() > latest):
                    break
            end = file.tell()
            yield replace(found, start=start, end=end), end - start
            start = end


def _row_groups(found: CorpusFile, size: int) -> Iterator[Part]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(found.path) as file:
            rows = rows_of_groups(file, size)
    except (pa.ArrowException, OSError, ValueError):
        rows = []
    if len(rows) < 2:
        yield found, size  # the reader reports what is wrong
        return
    parts = min(len(rows), size // PART_BYTES)
    borders = [len(rows) * part // parts for part in range(parts + 1)]
    for start, end in pairwise(borders):
        yield replace(found, start=start, end=end, first_row=sum(rows[:start])), size // parts


def count_lines(found: CorpusFile) -> int:
    """The number of newlines in a byte range; 0 for a whole file or row groups."""
    if found.end is None:
        return 0
    with open_file(found) as stream:
        return sum(data.count(b"\n") for data in iter(lambda: stream.read(2**20), b""))
