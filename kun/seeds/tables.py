"""The rows of CSV, TSV and Parquet files as objects: `for number, row in read_csv(lines, ",", True): ...`.

A table whose rows cannot be told apart with certainty is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kun.corpora.readers import rows_of_groups
from kun.corpora.rows import Piece
from kun.corpora.tables import table_rows
from kun.records import Reject
from kun.seeds.pairs import Fault
from kun.text.normal import preview

Numbered = tuple[int, Any]  # from 1: the line on which a row of a text file begins; of Parquet, the row
BATCH = 64  # rows of Parquet in memory at a time


class BrokenTableError(ValueError):
    """Why a table cannot be read, and what to do."""


def read_csv(pieces: Iterable[Piece], delimiter: str, header: bool) -> Iterator[Numbered]:
    """Rows by the names in the first line, or without a header by the numbers of their columns, from 1."""
    rows = ((row.line + 1, row.cells) for row in table_rows(pieces, delimiter))
    yield from _named(rows, header)


def read_tsv(pieces: Iterable[Piece], header: bool) -> Iterator[Numbered]:
    """The same for tabs without quoting, as most TSV files are: a quote is a character like any other."""
    yield from _named(((number + 1, _cells(line)) for number, line in pieces), header)


def is_quoted(pieces: Iterable[Piece]) -> bool:
    """Whether the quotes of a table with tabs are those of CSV: whether it can be read so to its end."""
    widths = {None if isinstance(row.cells, Reject) else len(row.cells) for row in table_rows(pieces, "\t")}
    return len(widths) == 1 and None not in widths


def delimiter_of(head: str) -> str:
    """What separates the columns of a CSV file; some programs write semicolons or tabs."""
    first = head.split("\n", 1)[0]
    counts = {mark: first.count(mark) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _cells(line: bytes | Reject) -> list[str] | Reject:
    try:
        return line if isinstance(line, Reject) else _split(line.decode())
    except UnicodeDecodeError:
        return Reject("not_utf8", "bytes that are not of the file's encoding; see seeds.encoding")


def _split(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t") if line.strip() else []


def _named(rows: Iterable[tuple[int, list[str] | Reject]], header: bool) -> Iterator[Numbered]:
    names: Sequence[Any] | None = None
    for number, values in rows:
        if isinstance(values, Reject):
            if names is None and header:
                raise BrokenTableError(f"its first line, the header, cannot be read: {values.detail}")
            yield number, values
        elif names is None and header:
            names = [name.strip() for name in values]
            if twice := next((name for name in names if name and names.count(name) > 1), None):
                raise BrokenTableError(f"two columns are named {preview(twice, 40)!r}; name them differently")
        elif values:
            names = names or range(1, len(values) + 1)
            yield number, _row(names, values)


def _row(names: Sequence[Any], values: list[str]) -> dict[Any, str] | Fault:
    if len(values) != len(names):
        what = f"{len(values)} cells, where the first line has {len(names)}"
        return Fault("wrong_type", f"{what}: a cell with the delimiter or a line break must be in quotes")
    return dict(zip(names, values, strict=True))


def read_parquet(path: Path) -> Iterator[Numbered]:
    """The rows of a Parquet file, batch by batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise BrokenTableError(f"two columns are named {preview(twice, 40)!r}; name them differently")
            end = sum(rows_of_groups(table, path.stat().st_size))
            for batch in table.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    yield (number := number + 1), row
        if number != end:
            raise ValueError(f"it declares {end:,} rows, and has {number:,}")
    except BrokenTableError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None):  # of the system, not of the file
            raise
        raise BrokenTableError(f"no whole Parquet file: {preview(str(error))}") from None
