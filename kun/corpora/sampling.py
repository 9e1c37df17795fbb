"""A fair sample of the rows of a corpus of any size, in bounded time: `sample_rows("web", corpus, 2000, seed=0)`.

A small corpus is read whole. Of a larger one, plain JSON lines are read at random places; files that can only be read
from their start (compressed files, archives, arrays, plain text, Parquet) give rows of their beginning. Each file
counts by its size.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import IO

from kun.config import Corpus
from kun.corpora.files import ROW_LIMIT, Found, find
from kun.corpora.readers import READERS
from kun.corpora.rows import Row, text_field, unusable
from kun.corpora.units import is_plain_lines
from kun.errors import InputError
from kun.records import Origin, Reject

WHOLE = 32 * 2**20  # bytes on disk: a corpus of no more is read from end to end
ROWS_PER_DRAW = 20  # of a file that is read from its start, so many rows are read for each one that is taken
FEWEST_ROWS = 200


@dataclass(frozen=True)
class Taken:
    """Rows, in the order of the files, and how they were taken, in words. `by_byte` names the files that were read at
    random places: the origins of their rows number bytes, not rows."""

    rows: tuple[Row, ...]
    how: str
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
            return Taken(
                tuple(rows), f"{len(rows):,} of {total:,} rows, drawn at random; {_files(len(files))} read whole"
            )
        return _of_many(corpus, files, sizes, size, rng)
    except OSError as error:
        raise InputError(f"corpora.{name}.paths: {error.filename or name}: {error.strerror or error}") from None


def _of_many(corpus: Corpus, files: list[Found], sizes: list[int], size: int, rng: random.Random) -> Taken:
    ends = list(accumulate(sizes))
    drawn: dict[int, list[int]] = {}  # file -> places in it
    for _ in range(size):
        place = rng.randrange(ends[-1])
        number = bisect_right(ends, place)
        drawn.setdefault(number, []).append(place - (ends[number] - sizes[number]))
    rows: list[Row] = []
    by_byte: set[str] = set()
    counts = {"places": 0, "beginnings": 0}
    for number, places in sorted(drawn.items()):
        found = files[number]
        if is_plain_lines(found, corpus.format):
            rows += _rows_at(found, corpus.field or READERS[corpus.format][1], places)
            by_byte.add(found.name)
            counts["places"] += 1
        else:
            first = islice(_rows(corpus, [found]), max(FEWEST_ROWS, ROWS_PER_DRAW * len(places)))
            rows += _reservoir(first, len(places), rng)[0]
            counts["beginnings"] += 1
    said = [f"{len(rows):,} rows of {_files(len(drawn))} out of {len(files):,} ({ends[-1] / 1e9:,.2f} GB)"]
    said += [f"at random places of {_files(counts['places'])}"] if counts["places"] else []
    if counts["beginnings"]:
        said += [
            f"from the beginning of {_files(counts['beginnings'])}, which can only be read from the start (the first "
            f"{FEWEST_ROWS} rows, or {ROWS_PER_DRAW} for each one taken)"
        ]
    return Taken(tuple(rows), "; ".join(said), frozenset(by_byte))


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _rows(corpus: Corpus, files: Iterable[Found]) -> Iterator[Row]:
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


def _rows_at(found: Found, field: str, places: list[int]) -> Iterator[Row]:
    """The rows that begin after these bytes of a file of JSON lines, numbered by the byte at which they begin.

    A row is as likely as the one before it is long, whatever its own length: fair, but where lengths are sorted.
    """
    text_of = text_field(field)
    seen: set[int] = set()
    with found.path.open("rb") as stream:
        for place in sorted(places):
            start, line = _line_after(stream, place)
            if start in seen or not line.strip():
                continue
            seen.add(start)
            origin = Origin(found.name, start)
            if len(line) > ROW_LIMIT:
                yield Row(origin, "", Reject("too_big", f"a row of more than {ROW_LIMIT:,} bytes"))
                continue
            text = text_of(line)
            yield Row(origin, text) if isinstance(text, str) else unusable(origin, line, text)


def _line_after(stream: IO[bytes], place: int) -> tuple[int, bytes]:
    """Where the first whole line from byte `place` on begins, and its bytes; after the last one comes the first."""
    stream.seek(place)
    while (rest := stream.readline(ROW_LIMIT)) and not rest.endswith(b"\n"):
        pass
    start = stream.tell()
    line = stream.readline(ROW_LIMIT + 1)
    if not line:
        stream.seek(start := 0)
        line = stream.readline(ROW_LIMIT + 1)
    return start, line
