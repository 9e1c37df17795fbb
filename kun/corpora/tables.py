"""Rows of CSV and TSV files: `for line, cells, data in table_rows(lines(stream, part), delimiter_of(part.path)): ...`.

Quoting is strict. Where it fails, as at a quote that is opened and never closed, one line is lost and not all those
that the quote would swallow: reading goes on with the line after it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kun.corpora.files import ROW_LIMIT
from kun.corpora.rows import Piece
from kun.records import Reject


class TableRow(NamedTuple):
    """The number of its first line in the file, from 0; its cells, or why it has none; the lines that it covers."""

    line: int
    cells: list[str] | Reject
    lines: list[bytes]


def delimiter_of(path: Path) -> str:
    """The delimiter by the ending of the file."""
    return "\t" if ".tsv" in path.name.lower() else ","


def table_rows(source: Iterable[Piece], delimiter: str) -> Iterator[TableRow]:
    """The rows of a table, without blank ones; the first may be a header."""
    csv.field_size_limit(ROW_LIMIT)  # of the whole process, which is 131,072 by default
    pieces, waiting = iter(source), deque[Piece]()
    taken: list[Piece] = []
    size = 0

    def line() -> str | None:
        nonlocal size
        if (piece := waiting.popleft() if waiting else next(pieces, None)) is None:
            return None
        taken.append(piece)
        if isinstance(piece[1], Reject):
            raise csv.Error(piece[1].detail)
        size += len(piece[1])
        if size > ROW_LIMIT:
            raise csv.Error(f"a row of more than {ROW_LIMIT:,} bytes")
        return piece[1].decode("utf-8")

    while True:
        taken, size = [], 0
        try:
            cells = next(csv.reader(iter(line, None), delimiter=delimiter, strict=True), None)
        except (csv.Error, UnicodeDecodeError) as error:
            (number, data), *after = taken
            waiting.extendleft(reversed(after))
            yield TableRow(number, data if isinstance(data, Reject) else _why(error, len(after)), _bytes(taken[:1]))
            continue
        if cells is None:
            return
        if cells:
            yield TableRow(taken[0][0], cells, _bytes(taken))


def _why(error: csv.Error | UnicodeDecodeError, lines: int) -> Reject:
    if lines:
        return Reject(
            "not_csv", f"a quote is opened and not closed ({error} {lines:,} lines below); close or double it"
        )
    if isinstance(error, UnicodeDecodeError):
        return Reject("not_utf8", f"invalid byte 0x{error.object[error.start]:02x} at byte {error.start} of the line")
    return Reject("not_csv", f"{error}; close or double its quotes")


def _bytes(pieces: list[Piece]) -> list[bytes]:
    return [data for _, data in pieces if isinstance(data, bytes)]
