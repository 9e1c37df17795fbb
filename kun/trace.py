"""The life of one record: `find(run, stages, subsets, key)`, by its id or by a line of a final file, `"wudao:18"`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.runs import RunFolder, read_whole
from kun.store import shards
from kun.text import printable


def find(run: RunFolder, stages: list[str], subsets: list[str], key: str) -> dict[str, Any]:
    """What each of `stages` (record stages, in order) did with the record, and where it is in the final files. Where
    the file that would tell is gone or damaged, the outcome is `unknown`, and the reason names it.

    Raises InputError where no subset of the run has it.
    """
    record_id = _id_of_line(run, key) if ":" in key else key
    for subset in subsets:
        index = _shard_of([run.path / stage / subset for stage in stages], record_id)
        if index is not None:
            break
    else:
        raise InputError(f"{run.path}: no record has the id {record_id}; ids are in the shards and in lineage.parquet")
    life: list[dict[str, Any]] = []
    for stage in stages:
        folder = run.path / stage / subset
        event = _event(folder, index, record_id)
        if event is None and (not life or life[-1]["outcome"] in ("kept", "unknown")):
            event = _unknown(run, folder, index)
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


def _shard_of(folders: list[Path], record_id: str) -> int | None:
    """The shard that has the record in the first of the folders, or, where files of that are gone, in those below."""
    for folder in folders:
        indexes = shards.finished(folder)
        for index in indexes:
            if any(True for _ in _lines(folder, index, record_id)):
                return index
        whole = read_whole(folder)
        if whole is not None and len(indexes) == whole.shards and not any(_gone(folder, index) for index in indexes):
            return None
    return None


def _lines(folder: Path, index: int, record_id: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a shard that have the record, with the outcome that they stand for."""
    needle = b'"id":' + msgspec.json.encode(record_id)
    for kind, outcome in (("", "kept"), ("rejects", "rejected"), ("failed", "failed")):
        path = shards.part(folder, index, kind)
        if path.exists():
            with path.open("rb") as file:
                yield from ((outcome, line) for line in file if needle in line)


def _event(folder: Path, index: int, record_id: str) -> dict[str, Any] | None:
    for outcome, line in _lines(folder, index, record_id):
        try:
            row = msgspec.json.decode(line)
        except ValueError:
            return {"outcome": "unknown", "reason": "the line that has it is damaged", "record": {}}
        record = row.get("record", row)
        if record["id"] == record_id:
            more = {name: row[name] for name in ("reason", "detail", "error") if row is not record and name in row}
            return {"outcome": outcome, **more, "record": record}
    return None


def _unknown(run: RunFolder, folder: Path, index: int) -> dict[str, Any] | None:
    """The event of a stage that was through with the record, and of which a file is gone; None where it was not."""
    if folder.is_symlink() and not folder.exists():
        gone = [str(folder)]
    elif read_whole(folder) is not None and shards.marker(folder, index) is None:
        gone = [str(shards.part(folder, index, "done"))]
    else:
        gone = [str(path) for path in _gone(folder, index)]
    if not gone:
        return None
    reason = f"{', '.join(gone)}: gone or damaged; `kun verify {run.path}` tells how to make it again"
    return {"outcome": "unknown", "reason": reason, "record": {}}


def _gone(folder: Path, index: int) -> list[Path]:
    """The files that the marker of a shard names and that are not there."""
    marker = shards.marker(folder, index)
    paths = [shards.part(folder, index, "" if kind == "kept" else kind) for kind in (marker.digests if marker else ())]
    return [path for path in paths if not path.exists()]


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
