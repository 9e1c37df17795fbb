"""The rows of evaluation files with their texts: `for row, strings in read_texts(file, fields=("question",)): ...`.

JSON lines, a JSON array, a single JSON document, Parquet, CSV and plain text (texts separated by blank lines); all but
Parquet also as .gz or .zst. Unlike in a corpus, nothing may be missed here: what cannot be read is an error, and the
first row of a CSV file, which may be a header or a question, is kept out as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from kun.corpora import arrays
from kun.corpora.files import BOM, COMPRESSIONS, ROW_LIMIT, CorpusFile, damaged, expand, lines, open_file
from kun.corpora.readers import filled_lines, read_text, rows_of_groups
from kun.corpora.rows import Piece
from kun.corpora.tables import delimiter_of, table_rows
from kun.errors import InputError
from kun.records import Reject
from kun.store.substitutes import refuse
from kun.text.normal import normalise, preview

SETTING = "decontaminate.files"
_PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
ENDINGS = (".parquet", *(ending + more for ending in _PLAIN for more in ("", *COMPRESSIONS)))


def find_evaluations(entries: Sequence[str]) -> list[CorpusFile]:
    """The evaluation files of paths, folders and globs. InputError where an entry matches none."""
    return expand(entries, ENDINGS, SETTING)


def read_texts(file: CorpusFile, fields: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Row number (from 0, as in kun.corpora) and texts of each row: the strings under `fields`, or all strings. A row
    that can be read in two ways is given twice.

    InputError, naming the setting and the row, where a row cannot be read or has none of the fields, or the file has no
    rows.
    """
    row, has_rows = 0, False
    try:
        for row, value in _values(file, fields):
            strings = list(_strings(value, frozenset(fields), wanted=not fields or isinstance(value, str)))
            if fields and not strings:
                names = preview(", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__)
                wanted = ", ".join(fields)
                raise InputError(
                    f"decontaminate.fields: {file.path}: row {row} has no text in {wanted}; it has: {names}"
                )
            has_rows = True
            yield row, [normalise(text) for text in strings]
    except Exception as error:
        if (reject := damaged(error)) is not None:
            raise _broken(file, row, f"{reject.reason}, {reject.detail}") from None
        if isinstance(error, OSError):
            raise InputError(f"{SETTING}: {file.path}: {error.strerror or error}") from None
        raise
    if not has_rows:
        raise InputError(f"{SETTING}: {file.path} has no rows; take it out of the list, or put its content there")


def _values(file: CorpusFile, fields: Sequence[str]) -> Iterator[tuple[int, Any]]:
    refuse(file.path, SETTING)
    name = file.path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    if name.endswith(".parquet"):
        return _parquet(file)
    if name.endswith((".csv", ".tsv")):
        return _table(file, fields)
    if name.endswith((".jsonl", ".ndjson")):
        return _lines(file)
    if name.endswith(".json"):
        return _json(file)
    return _text(file)


def _lines(file: CorpusFile) -> Iterator[tuple[int, Any]]:
    with open_file(file) as stream:
        yield from _decoded(filled_lines(stream, file), file)


def _json(file: CorpusFile) -> Iterator[tuple[int, Any]]:
    """An array, a single document (SQuAD), or JSON lines despite the name."""
    with open_file(file) as stream:
        head = stream.read(2**16).removeprefix(BOM).lstrip()
    first_line = head.split(b"\n", 1)[0]
    if head.startswith(b"["):
        with open_file(file) as stream:
            yield from _decoded(arrays.elements(stream), file)
    elif len(first_line) < len(head) and not _is_json(first_line):
        with open_file(file) as stream:
            whole = stream.read(ROW_LIMIT + 1)
            too_big = Reject("too_big", f"one JSON document of more than {ROW_LIMIT:,} bytes; give it as JSON lines")
            yield from _decoded([(0, whole.removeprefix(BOM) if len(whole) <= ROW_LIMIT else too_big)], file)
    else:
        yield from _lines(file)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(pieces: Iterable[Piece], file: CorpusFile) -> Iterator[tuple[int, Any]]:
    for row, data in pieces:
        if isinstance(data, Reject):
            raise _broken(file, row, f"{data.reason}, {data.detail}")
        try:
            yield row, json.loads(data, strict=False, object_pairs_hook=_all)
        except (ValueError, RecursionError) as error:
            raise _broken(file, row, f"no JSON: {preview(str(error))}") from None


def _all(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object or row as a dict, with all values of a repeated name instead of the last one."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        values[name] = [values[name], value] if name in values else value
    return values


def _parquet(file: CorpusFile) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file.path) as table:
            end = sum(rows_of_groups(table, file.path.stat().st_size))
            names = table.schema_arrow.names  # which may have a name twice
            for batch in table.iter_batches(batch_size=1024):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield row, _all(zip(names, values, strict=True))
                    row += 1
        if row != end:
            raise ValueError(f"it declares {end:,} rows, and has {row:,}")
    except (pa.ArrowException, ValueError) as error:
        raise _broken(file, row, f"no whole Parquet file: {preview(str(error))}") from None


def _table(file: CorpusFile, fields: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """The rows of a table, numbered by their first line. The first one counts as a row too, unless `fields` are named
    in it: it may be no header."""
    delimiter = delimiter_of(file.path)
    names: list[str] | None = None
    with open_file(file) as stream:
        for row, cells, data in table_rows(lines(stream, file), delimiter):
            if isinstance(cells, Reject):
                raise _broken(file, row, f"{cells.reason}, {cells.detail}")
            if names is None:
                names = cells
                if not fields:
                    yield row, cells
                elif not set(fields) & set(names):
                    raise InputError(
                        f"decontaminate.fields: {file.path}: row {row}, its header, has no text in "
                        f"{', '.join(fields)}; it has: {preview(', '.join(names))} (no header: leave the setting empty)"
                    )
                continue
            # Lines that a quote has joined, each of which could be a row of its own, are read as such, too.
            apart = [line.decode().rstrip("\r\n").split(delimiter) for line in data] if len(data) > 1 else []
            for values in (cells, *(apart if all(len(line) == len(names) for line in apart) else ())):
                yield row, _all(zip_longest(names[: len(values)], values, fillvalue="more"))


def _text(file: CorpusFile) -> Iterator[tuple[int, Any]]:
    for row in read_text(file, ""):
        if row.reject is not None:
            raise _broken(file, row.origin.row, f"{row.reject.reason}, {row.reject.detail}")
        yield row.origin.row, row.text


def _strings(value: Any, fields: frozenset[str], wanted: bool) -> Iterator[str]:
    """The strings in a value, at any depth: all of them if it is wanted, or else those under the fields."""
    left = [(value, wanted)]  # a stack, since deep values would exceed the recursion limit
    while left:
        value, wanted = left.pop()
        if isinstance(value, str) and wanted:
            yield value
        elif isinstance(value, dict):
            left += [(inner, wanted or key in fields) for key, inner in reversed(value.items())]
        elif isinstance(value, list):
            left += [(inner, wanted) for inner in reversed(value)]


def _broken(file: CorpusFile, row: int, what: str) -> InputError:
    return InputError(f"{SETTING}: {file.path}: row {row}: {what}; what cannot be read cannot be kept out")
