"""A fair sample of the rows of a corpus of any size, in bounded time: `sample_rows("web", corpus, 2000, seed=0)`.

A small corpus is read whole. Of a larger one, plain JSON lines are read at random places; files that can only be read
from their start (compressed files, archives, arrays, plain text, Parquet) give rows of their beginning. Each file
counts by its size.

How many rows of the corpus each sampled row stands for is told with it, so that sums over the corpus can be estimated
without bias, whatever the lengths of rows (Horvitz and Thompson, 1952): a row is drawn by a byte of the line before it,
so it stands for as many rows as lines of that length would be in the bytes of one draw.
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
from kun.corpora.readers import READERS
from kun.corpora.rows import Row, text_field, unusable
from kun.corpora.units import is_plain_lines
from kun.errors import InputError
from kun.records import Origin, Reject

WHOLE = 32 * 2**20  # bytes on disk: a corpus of no more is read from end to end
ROWS_PER_DRAW = 20  # of a file that is read from its start, so many rows are read for each one that is taken
FEWEST_ROWS = 200
READS = 4  # of the disk, at least, from which the rows of a file that is read from its start are estimated
BACK = 2**16  # bytes that are read at a time to find where a line begins


@dataclass(frozen=True)
class Taken:
    """Rows, in the order of the files, and how they were taken, in words. `weights`: how many rows of the corpus each
    stands for; `counted`: their sum is the number of rows, and no estimate; `everywhere`: any row could have been
    taken, not just one at the beginning of a file. `by_byte` names the files that were read at random places: the
    origins of their rows number bytes, not rows."""

    rows: tuple[Row, ...]
    how: str
    weights: tuple[float, ...]
    counted: bool
    everywhere: bool
    by_byte: frozenset[str] = frozenset()


def sample_rows(name: str, corpus: Corpus, size: int, seed: int) -> Taken:
    """At most `size` rows of the corpus `name`, each at most once; the same from call to call.

    Memory: that of the rows taken. InputError where a path gives nothing or a file cannot be opened.
    """
    files = find(name, corpus)
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
    drawn_bytes = ends[-1] / size  # that one draw stands for
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
    said = [f"{len(rows):,} rows of {_files(len(drawn))} out of {len(files):,} ({ends[-1] / 1e9:,.2f} GB)"]
    said += [f"at random places of {_files(counts['places'])}"] if counts["places"] else []
    if counts["beginnings"]:
        said += [
            f"from the beginning of {_files(counts['beginnings'])}, which can only be read from the start (the first "
            f"{FEWEST_ROWS} rows, or {ROWS_PER_DRAW} for each one taken)"
        ]
    return Taken(tuple(rows), "; ".join(said), tuple(weights), False, not counts["beginnings"], frozenset(by_byte))


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _rows(corpus: Corpus, files: Iterable[CorpusFile]) -> Iterator[Row]:
    reader, field = READERS[corpus.format]
    for found in files:
        yield from reader(found, corpus.field or field)


def _reservoir(rows: Iterable[Row], size: int, rng: random.Random) -> tuple[list[Row], int]:
    """`size` rows, each of all equally likely, in their order; and how many there were."""
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
    """The first `least` rows, and how many the file has: by its own account (Parquet), or as many as the bytes on the
    disk behind the first ones say. What is read ahead, compressed or not, is the same at each read, and cancels out."""
    first: list[Row] = []
    count, before = 0, 0
    reads: list[tuple[int, int]] = []  # bytes that were read, rows that came of them
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
    """The rows that begin after these bytes of a file of JSON lines, numbered by the byte at which they begin; and for
    how many rows per byte each stands: one for the bytes of the line before it, and again where it is drawn again."""
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
    """Where the line that holds byte `place` begins."""
    end = place
    while end > 0:
        first = max(0, end - BACK)
        stream.seek(first)
        if (newline := stream.read(end - first).rfind(b"\n")) >= 0:
            return first + newline + 1
        end = first
    return 0


def _line_after(stream: IO[bytes], place: int) -> tuple[int, int, bytes]:
    """Where the line that holds byte `place` ends, where the one after it begins, and that one's bytes; after the last
    line comes the first."""
    stream.seek(place)
    while (rest := stream.readline(ROW_LIMIT)) and not rest.endswith(b"\n"):
        pass
    end = start = stream.tell()
    line = stream.readline(ROW_LIMIT + 1)
    if not line:
        stream.seek(start := 0)
        line = stream.readline(ROW_LIMIT + 1)
    return end, start, line
