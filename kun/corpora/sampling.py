"""A fair sample of the rows of a corpus of any size, in bounded time: `sample_rows("web", corpus, 2000, seed=0)`.

A small corpus is read whole. In a larger one, plain JSON lines are read at random places; files that can only be read
from the start (compressed files, archives, arrays, plain text, Parquet) contribute rows from their beginning. Files are
weighted by size.

Each sampled row has a weight, the number of rows of the corpus that it stands for, so that sums over the corpus can be
estimated without bias, whatever the lengths of rows (Horvitz and Thompson, 1952): a row is drawn by a byte of the line
before it, so its weight is the number of lines of that length in the bytes of one draw.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import IO

from kun.config.schema import Corpus
from kun.corpora.files import ROW_LIMIT, CorpusFile, Meter, find
from kun.corpora.first_rows import check_first_rows
from kun.corpora.readers import READERS
from kun.corpora.rows import Row, text_field, unusable
from kun.corpora.units import is_plain_lines
from kun.errors import InputError
from kun.records import Origin, Reject

WHOLE = 32 * 2**20  # bytes on disk: a corpus up to this size is read whole
ROWS_PER_DRAW = 20  # rows read for each one taken, in files that are read from the start
FEWEST_ROWS = 200
READS = 4  # at least so many disk reads to estimate the rows of a file that is read from the start
BACK = 2**16  # bytes read at a time to find the beginning of a line


@dataclass(frozen=True)
class Taken:
    """Sampled rows, in the order of the files, and how they were taken, in words.

    `weights`: the number of rows of the corpus that each stands for; `counted`: their sum is exact, not an estimate;
    `everywhere`: any row could have been taken, not only those at the beginning of a file. `by_byte` names the files
    read at random places: origins in them are byte offsets, not rows.
    """

    rows: tuple[Row, ...]
    how: str
    weights: tuple[float, ...]
    counted: bool
    everywhere: bool
    by_byte: frozenset[str] = frozenset()


def sample_rows(name: str, corpus: Corpus, size: int, seed: int) -> Taken:
    """At most `size` rows of the corpus `name`, each at most once; the same in every call.

    Memory holds only these rows. InputError where a path matches nothing or a file cannot be opened.
    """
    files = find(name, corpus)
    check_first_rows(name, corpus, files)
    rng = random.Random(f"kun sample {seed} {name}")
    try:
        sizes = [found.path.stat().st_size for found in files]
        if sum(sizes) <= WHOLE:
            rows, total = _reservoir(_rows(corpus, files), size, rng)
            how = f"{len(rows):,} of {total:,} rows, drawn at random; {_files(len(files))} read whole"
            return Taken(
                tuple(rows), how, (total / len(rows),) * len(rows) if rows else (), counted=True, everywhere=True
            )
        return _of_many(corpus, files, sizes, size, rng)
    except OSError as error:
        raise InputError(f"corpora.{name}.paths: {error.filename or name}: {error.strerror or error}") from None


def _of_many(corpus: Corpus, files: list[CorpusFile], sizes: list[int], size: int, rng: random.Random) -> Taken:
    ends = list(accumulate(sizes))
    drawn: dict[int, list[int]] = {}  # file -> places in it
    for _ in range(size):
        place = rng.randrange(ends[-1])
        number = bisect_right(ends, place)
        drawn.setdefault(number, []).append(place - (ends[number] - sizes[number]))
    rows: list[Row] = []
    weights: list[float] = []
    drawn_bytes = ends[-1] / size  # that each draw stands for
    by_byte: set[str] = set()
    counts = {"places": 0, "beginnings": 0}
    for number, places in sorted(drawn.items()):
        found = files[number]
        if is_plain_lines(found, corpus.format):
            for row, share in _rows_at(found, corpus.field or READERS[corpus.format][1], places):
                rows.append(row)
                weights.append(drawn_bytes * share)
            by_byte.add(found.name)
            counts["places"] += 1
        else:
            first, total = _beginning(corpus, found, max(FEWEST_ROWS, ROWS_PER_DRAW * len(places)))
            some, _ = _reservoir(first, len(places), rng)
            rows += some
            weights += [drawn_bytes * len(places) * total / sizes[number] / max(len(some), 1)] * len(some)
            counts["beginnings"] += 1
    how = [f"{len(rows):,} rows of {_files(len(drawn))} out of {len(files):,} ({ends[-1] / 1e9:,.2f} GB)"]
    how += [f"at random places of {_files(counts['places'])}"] if counts["places"] else []
    if counts["beginnings"]:
        how += [
            f"from the beginning of {_files(counts['beginnings'])}, which can only be read from the start (the first "
            f"{FEWEST_ROWS} rows, or {ROWS_PER_DRAW} for each one taken)"
        ]
    return Taken(tuple(rows), "; ".join(how), tuple(weights), False, not counts["beginnings"], frozenset(by_byte))


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _rows(corpus: Corpus, files: Iterable[CorpusFile]) -> Iterator[Row]:
    reader, field = READERS[corpus.format]
    for found in files:
        yield from reader(found, corpus.field or field)


def _reservoir(rows: Iterable[Row], size: int, rng: random.Random) -> tuple[list[Row], int]:
    """`size` rows drawn uniformly, in their order, and the total number of rows."""
    taken: list[tuple[int, Row]] = []
    total = 0
    for row in rows:
        if total < size:
            taken.append((total, row))
        elif (slot := rng.randrange(total + 1)) < size:
            taken[slot] = (total, row)
        total += 1
    return [row for _, row in sorted(taken, key=lambda item: item[0])], total


def _beginning(corpus: Corpus, found: CorpusFile, least: int) -> tuple[list[Row], float]:
    """The first `least` rows, and the number of rows in the file: its own count (Parquet), or an estimate from the
    bytes read from disk so far. Read-ahead is the same at every read, and cancels out."""
    first: list[Row] = []
    count, before = 0, 0
    reads: list[tuple[int, int]] = []  # bytes read, and rows obtained so far
    meter, size = Meter(), found.path.stat().st_size
    for row in _rows(corpus, [replace(found, meter=meter)]):
        if count < least:
            first.append(row)
        if (position := meter.position) != before:
            reads += [(before, count)] if before else []
            before = position
        count += 1
        if count >= least and corpus.format == "parquet":
            return first, _parquet_rows(found)
        if count >= least and len(reads) > READS and position < size:
            (start, skipped), (end, reached) = reads[0], reads[-1]
            return first, size * (reached - skipped) / (end - start)
    return first, count


def _parquet_rows(found: CorpusFile) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(found.path).num_rows)


def _rows_at(found: CorpusFile, field: str, places: list[int]) -> Iterator[tuple[Row, float]]:
    """The rows that follow the lines with these bytes in a file of JSON lines, numbered by byte offset; and the rows
    per byte that each stands for: one per length of the line before it, for each time that it was drawn."""
    text_of = text_field(field)
    drawn: dict[int, tuple[bytes, float]] = {}
    with found.path.open("rb") as stream:
        for place in sorted(places):
            begin = _begin(stream, place)
            end, start, line = _line_after(stream, place)
            share = drawn[start][1] if start in drawn else 0.0
            drawn[start] = line, share + 1 / (end - begin)
    for start, (line, share) in drawn.items():
        origin = Origin(found.name, start)
        if len(line) > ROW_LIMIT:
            yield Row(origin, "", Reject("too_big", f"a row of more than {ROW_LIMIT:,} bytes")), share
        elif line.strip():
            text = text_of(line)
            yield Row(origin, text) if isinstance(text, str) else unusable(origin, line, text), share


def _begin(stream: IO[bytes], place: int) -> int:
    """Where the line with byte `place` begins."""
    end = place
    while end > 0:
        first = max(0, end - BACK)
        stream.seek(first)
        if (newline := stream.read(end - first).rfind(b"\n")) >= 0:
            return first + newline + 1
        end = first
    return 0


def _line_after(stream: IO[bytes], place: int) -> tuple[int, int, bytes]:
    """The end of the line with byte `place`, and the start and bytes of the next one; after the last line, the
    first."""
    stream.seek(place)
    while (rest := stream.readline(ROW_LIMIT)) and not rest.endswith(b"\n"):
        pass
    end = start = stream.tell()
    line = stream.readline(ROW_LIMIT + 1)
    if not line:
        stream.seek(start := 0)
        line = stream.readline(ROW_LIMIT + 1)
    return end, start, line
