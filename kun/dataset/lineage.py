"""Where each row of the data set came from: `write(path, made_by, batches)`; all reading of `lineage.parquet` is here.

Row `line` (from 1) of `<subset>.jsonl`: its id, the file, row and piece of its origin, what was measured of it, its
instruction and source text, and what cleaning changed. What made the data set is in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kun.errors import InputError
from kun.progress import bar
from kun.records import Raw
from kun.store import atomic, digests

LINEAGE = "lineage.parquet"
T = TypeVar("T")
BATCH = 1000  # rows that are read at a time


def row(record: Raw, line: int) -> dict[str, Any]:
    """All that is known of a line of `<subset>.jsonl`; the file has most of it."""
    known = {**msgspec.structs.asdict(record), **msgspec.structs.asdict(record.origin), "line": line}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


class Contents(msgspec.Struct, frozen=True):
    """What the data set holds: the step of the rows of each subset, and the fields of a row."""

    steps: dict[str, str] = {}
    fields: tuple[str, ...] = ()


def write(
    path: Path, contents: Contents, made_by: Mapping[str, Any], batches: Iterable[Sequence[Mapping[str, Any]]]
) -> None:
    """Write the rows. `made_by` has the parts of the fingerprint of each step that the data set was made by."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    fields = {"subset": pa.string(), "line": pa.int64(), "id": pa.string()}
    fields |= {"file": pa.string(), "row": pa.int64(), "piece": pa.int64(), "ppl": pa.float64(), "tokens": pa.int64()}
    fields |= {"score": pa.float64(), "faithfulness": pa.float64(), "instruction": pa.string(), "text": pa.string()}
    fields |= {"cleaned": pa.list_(pa.string())}
    metadata = {"kun": msgspec.json.encode(made_by), "contents": msgspec.json.encode(contents)}
    schema = pa.schema(fields, metadata=metadata)
    with atomic.replacing(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in batches:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def count(folder: Path) -> int:
    """The number of rows; 0 where the file is missing or damaged."""
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(folder / LINEAGE).num_rows)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        return 0


def made_by(folder: Path) -> dict[str, str]:
    """The fingerprint of every step that the data set was made by; empty where the file cannot be read."""
    parts = _metadata(folder, b"kun", dict[str, dict[str, Any]]) or {}
    return {name: digests.of_value(value)[:16] for name, value in parts.items()}


def read_contents(folder: Path) -> Contents:
    """What the data set holds; nothing where the file cannot be read."""
    return _metadata(folder, b"contents", Contents) or Contents()


def _metadata(folder: Path, key: bytes, kind: type[T]) -> T | None:
    import pyarrow.parquet as parquet

    try:
        return msgspec.json.decode((parquet.read_schema(folder / LINEAGE).metadata or {})[key], type=kind)
    except (OSError, ValueError, KeyError):  # ArrowInvalid is a ValueError
        return None


def columns(folder: Path) -> list[str]:
    """The columns of the file, which may be that of another version of Kun."""
    import pyarrow.parquet as parquet

    return list(parquet.read_schema(folder / LINEAGE).names)


def read(folder: Path, subset: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of all subsets; or `subset`, `id` and `instruction` of those of one."""
    import pyarrow.parquet as parquet

    needed = ["subset", "id", "instruction"] if subset else None
    file = parquet.ParquetFile(folder / LINEAGE)
    total = file.metadata.num_rows
    with bar(f"verify {subset or LINEAGE}", "rows", total) as progress:
        done = 0
        for batch in file.iter_batches(BATCH, columns=needed):
            yield from (one for one in batch.to_pylist() if subset in (None, one["subset"]))
            progress(done := done + len(batch), total)


def find(folder: Path, **where: Any) -> dict[str, Any] | None:
    """`subset`, `line` and `id` of the row that has these values; None where there is none, or no data set yet.

    Raises InputError where there is a data set and its lineage is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = folder / LINEAGE
    if not path.is_file():
        if not path.exists() and not folder.exists() and not folder.is_symlink():
            return None
        raise InputError(f"{path}: gone; `kun verify {folder.parent}` tells how to make it again")
    filters = [(name, "=", value) for name, value in where.items()]
    try:
        rows = parquet.read_table(path, columns=["subset", "line", "id"], filters=filters).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(f"{path}: damaged ({why}); `kun verify {folder.parent}` tells how to make it again") from None
    return rows[0] if rows else None
