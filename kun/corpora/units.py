"""Cuts a file into parts that can be read independently: `for part, size in cut(file, "skypile"): ...`.

JSON lines are cut into byte ranges, Parquet files into ranges of row groups. Compressed files, archives, JSON arrays
and plain text can only be read from the beginning, and are one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from kun.corpora.arrays import is_array
from kun.corpora.files import COMPRESSIONS, ROW_LIMIT, CorpusFile, open_file
from kun.corpora.readers import rows_of_groups

LINES = ("wanjuan", "skypile", "jsonl")
ARCHIVES = (".tar", ".tgz")
PART_BYTES = 16 * 2**20  # a few seconds of reading, some minutes of filtering


def cut(found: CorpusFile, kind: str) -> Iterator[tuple[CorpusFile, int]]:
    """The parts of a file of format `kind`, in order, each with its size on disk in bytes."""
    size = found.path.stat().st_size
    if size >= 2 * PART_BYTES and kind == "parquet":
        yield from _row_groups(found, size)
    elif size >= 2 * PART_BYTES and is_plain_lines(found, kind):
        yield from _ranges(found, size)
    else:
        yield found, size


def is_plain_lines(found: CorpusFile, kind: str) -> bool:
    """Whether a file of format `kind` can be read from the beginning of any line."""
    packed = found.path.name.lower().endswith((*COMPRESSIONS, *ARCHIVES))
    return kind in LINES and not packed and not is_array(found)


def _ranges(found: CorpusFile, size: int) -> Iterator[tuple[CorpusFile, int]]:
    start = 0
    with found.path.open("rb") as file:
        while start < size:
            end = min(start + PART_BYTES, size)
            file.seek(end - 1)
            while (line := file.readline(ROW_LIMIT)) and not line.endswith(b"\n"):
                pass
            end = file.tell()
            yield replace(found, start=start, end=end), end - start
            start = end


def _row_groups(found: CorpusFile, size: int) -> Iterator[tuple[CorpusFile, int]]:
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
