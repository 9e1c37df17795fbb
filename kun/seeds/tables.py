"""The rows of CSV, TSV and Parquet files as objects: `for number, row in read_csv(stream, ",", header=True): ...`.

A table whose rows cannot be told apart with certainty is an error, never a guess.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from kun.corpora.files import ROW_LIMIT
from kun.corpora.readers import rows_of_groups
from kun.seeds.pairs import Fault
from kun.text.normal import preview

Numbered = tuple[int, Any]  # from 1: the line on which a row of a text file begins; of Parquet, the row
BATCH = 64  # rows of Parquet in memory at a time


class BrokenTableError(ValueError):
    """Why a table cannot be read, and what to do."""


def read_csv(stream: IO[bytes], delimiter: str, header: bool) -> Iterator[Numbered]:
    """Rows by the names in the first line, or without a header by the numbers of their columns, from 1."""
    yield from _rows(csv.reader(_lines(stream), delimiter=delimiter, strict=True), header)


def read_tsv(stream: IO[bytes], header: bool, quoted: bool) -> Iterator[Numbered]:
    """The same for tabs. Without quoting, as most TSV files are, a quote is a character like any other."""
    if quoted:
        yield from read_csv(stream, "\t", header)
    else:
        yield from _rows(csv.reader(_lines(stream), delimiter="\t", quoting=csv.QUOTE_NONE), header)


def is_quoted(stream: IO[bytes]) -> bool:
    """Whether the quotes of a table with tabs are those of CSV: whether it can be read so to its end."""
    try:
        widths = {len(row) for row in csv.reader(_lines(stream), delimiter="\t", strict=True) if row}
    except csv.Error:
        return False
    return len(widths) == 1


def delimiter_of(head: str) -> str:
    """What separates the columns of a CSV file; some programs write semicolons or tabs."""
    first = head.split("\n", 1)[0]
    counts = {mark: first.count(mark) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _lines(stream: IO[bytes]) -> io.TextIOWrapper:
    csv.field_size_limit(ROW_LIMIT)  # of the whole process; the default of 131,072 is less than an answer may have
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")


def _rows(table: Any, header: bool) -> Iterator[Numbered]:
    names: Sequence[Any] | None = None
    begin = 1
    try:
        for values in table:
            number, begin = begin, table.line_num + 1
            if not values:
                continue
            if names is None and header:
                if any(map(_is_damaged, values)):
                    raise BrokenTableError("its first line has bytes that are not of its encoding; see seeds.encoding")
                names = [name.strip() for name in values]
                if twice := next((name for name in names if name and names.count(name) > 1), None):
                    raise BrokenTableError(f"two columns are named {preview(twice, 40)!r}; name them differently")
                continue
            names = names or range(1, len(values) + 1)
            yield number, _row(names, values)
    except csv.Error as error:
        raise BrokenTableError(
            f"the row that begins on line {begin} is not CSV ({error}): a quote inside a quoted cell is written twice; "
            "mend the line, or save the table as JSON lines"
        ) from None


def _row(names: Sequence[Any], values: list[str]) -> dict[Any, str] | Fault:
    if len(values) != len(names):
        what = f"{len(values)} cells, where the first line has {len(names)}"
        return Fault("wrong_type", f"{what}: a cell with the delimiter or a line break must be in quotes")
    if any(map(_is_damaged, values)):
        return Fault("not_utf8", "bytes that are not of the file's encoding; see seeds.encoding")
    return dict(zip(names, values, strict=True))


def _is_damaged(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell)


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
