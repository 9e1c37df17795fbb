"""The life of one record: `find(run, stages, subsets, key)`, by its id or by a line of a final file, `"wudao:18"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.runs import RunFolder
from kun.store import shards
from kun.text import printable


def find(run: RunFolder, stages: list[str], subsets: list[str], key: str) -> dict[str, Any]:
    """What each of `stages` (record stages, in order) did with the record, and where it is in the final files.

    Raises InputError where no subset of the run has it.
    """
    record_id = _id_of_line(run, key) if ":" in key else key
    for subset in subsets:
        index = _shard_of(run.path / stages[0] / subset, record_id)
        if index is not None:
            break
    else:
        raise InputError(f"{run.path}: no record has the id {record_id}; ids are in the shards and in lineage.parquet")
    life: list[dict[str, Any]] = []
    for stage in stages:
        event = _event(run.path / stage / subset, index, record_id)
        if event is None:
            break
        life.append({"stage": stage, **event})
    return {
        "id": record_id,
        "subset": subset,
        "shard": index,
        "life": life,
        "final": _final_line(run, subset, record_id),
    }


def render(found: dict[str, Any]) -> str:
    """The life as text: what each stage added, or why the record ended there."""
    lines = [f"{found['id']} ({found['subset']}, shard {found['shard']})"]
    known: dict[str, Any] = {"id": found["id"], "subset": found["subset"]}
    for event in found["life"]:
        why = event.get("reason") or event.get("error")
        lines.append(f"{event['stage']}: {event['outcome']}" + (f": {why}" if why else ""))
        if event.get("detail"):
            lines.append(f"    {event['detail']}")
        for name, value in event["record"].items():
            if known.get(name) != value:
                shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                lines.append(f"    {name}: {shown}")
        known |= event["record"]
    if found["final"]:
        lines.append(f"final: {found['final']['file']}, line {found['final']['line']}")
    return printable("\n".join(lines))


def _shard_of(folder: Path, record_id: str) -> int | None:
    needle = b'"id":' + msgspec.json.encode(record_id)
    for index in shards.finished(folder):
        for kind in ("", "rejects"):
            with shards.part(folder, index, kind).open("rb") as file:
                if any(needle in line for line in file):
                    return index
    return None


def _event(folder: Path, index: int, record_id: str) -> dict[str, Any] | None:
    for kind, outcome in (("", "kept"), ("rejects", "rejected"), ("failed", "failed")):
        path = shards.part(folder, index, kind)
        if not path.exists():
            continue
        with path.open("rb") as file:
            for line in file:
                row = msgspec.json.decode(line)
                record = row.get("record", row)
                if record["id"] == record_id:
                    more = {
                        name: row[name] for name in ("reason", "detail", "error") if row is not record and name in row
                    }
                    return {"outcome": outcome, **more, "record": record}
    return None


def _lineage(run: RunFolder, **where: Any) -> dict[str, Any] | None:
    import pyarrow.parquet as parquet

    path = run.path / "final" / "lineage.parquet"
    if not path.exists():
        return None
    filters = [(name, "=", value) for name, value in where.items()]
    rows = parquet.read_table(path, columns=["subset", "line", "id"], filters=filters).to_pylist()
    return rows[0] if rows else None


def _id_of_line(run: RunFolder, key: str) -> str:
    subset, _, line = key.rpartition(":")
    subset = Path(subset).name.removesuffix(".jsonl")
    row = _lineage(run, subset=subset, line=int(line)) if line.isdecimal() and len(line) < 19 else None
    if row is None:
        raise InputError(f"{run.path / 'final'}: there is no line {line} of {subset}.jsonl; give it as wudao:18")
    return str(row["id"])


def _final_line(run: RunFolder, subset: str, record_id: str) -> dict[str, Any] | None:
    row = _lineage(run, subset=subset, id=record_id)
    return {"file": f"final/{subset}.jsonl", "line": row["line"]} if row else None
