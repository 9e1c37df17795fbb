"""The life of one record: `find(run, key)`, by its id or by a line of a final file, `"wudao:18"`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kun.dataset import lineage
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder, read_manifest
from kun.store import shards
from kun.text.normal import printable
from kun.verify.steps import StepFolder, other_settings, outdated, output_steps
from kun.verify.steps import find as find_steps


def find(run: RunFolder, key: str) -> dict[str, Any]:
    """What each step of records, in the order of the pipeline, did with the record, and where it is in the final files.
    Where the file that would tell is gone or damaged, the outcome is `unknown`, and the reason names it. `note`, of a
    step or a final file, tells that it was made from other settings than the present ones of a step above it.

    Raises InputError where no step of the run has it, or where `lineage.parquet`, which knows the lines, is gone.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in key):  # bytes of the command line that are no UTF-8
        raise InputError(f"{run.path}: no record has the id {key}, which is no UTF-8")
    steps, _ = find_steps(run.path)
    outputs = output_steps(run.path, steps)
    record_id = _id_of_line(run, outputs, key) if ":" in key else key
    records = [step for step in steps if step.makes_records]
    place = _place(run, records, record_id)
    if place is None:
        raise InputError(f"{run.path}: no record has the id {record_id}; ids are in the shards and in lineage.parquet")
    subset, index = place
    notes = {name: {"note": other_settings(above)} for name, above in outdated([*steps, *outputs]).items()}
    life: list[dict[str, Any]] = []
    known: dict[str, Any] = {"id": record_id, "subset": subset}
    for step in records:
        if step.info.part != subset:
            continue
        folder = run.path / step.name
        event = _event(folder, index, record_id, known)
        if event is None and (not life or life[-1]["outcome"] in ("kept", "unknown")):
            event = _unknown(run, folder, index, step.name in notes)
        if event is not None:
            life.append({"stage": step.stage, **event, **notes.get(step.name, {})})
            known |= event["record"]
    lines = {output.name: _final_line(output, subset, record_id) for output in outputs}
    return {
        "id": record_id,
        "subset": subset,
        "shard": index,
        "life": life,
        "outputs": {name: {**line, **notes.get(name, {})} for name, line in lines.items() if line},
    }


def render(found: dict[str, Any]) -> str:
    """The life as text: what each stage added, or why the record ended there."""
    lines = [f"{found['id']} ({found['subset']}, shard {found['shard']})"]
    known: dict[str, Any] = {"id": found["id"], "subset": found["subset"]}
    for event in found["life"]:
        why = event.get("reason") or event.get("error")
        lines.append(f"{event['stage']}: {event['outcome']}" + (f": {why}" if why else ""))
        lines += [f"    {event[key]}" for key in ("detail", "note") if event.get(key)]
        for name, value in event["record"].items():
            if known.get(name) != value:
                shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
                lines.append(f"    {name}: {shown}")
        known |= event["record"]
    for name, final in found["outputs"].items():
        where = f"unknown: {final['reason']}" if final["line"] is None else f"{final['file']}, line {final['line']}"
        lines.append(f"{name}: {where}")
        lines += [f"    {final['note']}"] if "note" in final else []
    return printable("\n".join(lines))


def _place(run: RunFolder, steps: Sequence[StepFolder], record_id: str) -> tuple[str, str] | None:
    """The subset and shard of a record; a later step is asked only where none of those before has it."""
    for step in steps:
        folder = run.path / step.name
        for index in shards.order(folder) or sorted(shards.finished(folder)):
            if any(True for _ in _lines(folder, index, record_id)):
                return step.info.part, index
    return None


def _lines(folder: Path, index: str, record_id: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a shard that have the record, with the outcome that they stand for."""
    needle = b'"id":' + msgspec.json.encode(record_id)
    for kind, outcome in (("", "kept"), ("rejects", "rejected"), ("failed", "failed")):
        with contextlib.suppress(OSError), shards.part(folder, index, kind).open("rb") as file:  # `_gone` names it
            yield from ((outcome, line) for line in file if needle in line)


def _event(folder: Path, index: str, record_id: str, known: dict[str, Any]) -> dict[str, Any] | None:
    """What a step did with the record; `known` is what those above it say of it."""
    for outcome, line in _lines(folder, index, record_id):
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            return {"outcome": "unknown", "reason": "the line that has it is damaged", "record": {}}
        if row.get("id") == record_id:
            row.pop(shards.OF, None)
            names = ("reason", "detail", "error") if outcome != "kept" else ()
            more: dict[str, Any] = {name: row.pop(name) for name in names if name in row}
            return {"outcome": outcome, **more, "record": known | row}
    return None


def _unknown(run: RunFolder, folder: Path, index: str, other: bool) -> dict[str, Any] | None:
    """The event of a stage that was through with the shard and does not have the record; None where it was not.
    `other`: it was made from other settings, by which the record may not have come so far."""
    marker = shards.marker(folder, index)
    if folder.is_symlink() and not folder.exists():
        gone = f"{folder}: gone or damaged"
    elif marker is None:
        if read_manifest(folder) is None:
            return None
        gone = f"{shards.part(folder, index, 'done')}: gone or damaged"
    elif files := _gone(folder, index, marker):
        gone = f"{', '.join(map(str, files))}: gone or damaged"
    elif other:
        return {"outcome": "unknown", "reason": f"{folder}: shard {index} was made without the record", "record": {}}
    else:
        gone = f"{folder}: shard {index} is there without the record"
    reason = f"{gone}; `kun verify {run.path}` tells how to make it again"
    return {"outcome": "unknown", "reason": reason, "record": {}}


def _gone(folder: Path, index: str, marker: shards.ShardManifest) -> list[Path]:
    """The files that the marker of a shard names and that are not there, or cannot be read."""
    found = []
    for kind in marker.digests:
        path = shards.part(folder, index, "" if kind == "kept" else kind)
        try:
            path.read_bytes()
        except OSError:
            found.append(path)
    return found


def _id_of_line(run: RunFolder, outputs: Sequence[StepFolder], key: str) -> str:
    """The id of the record in a line of a data set, such as `wudao:18`, or `final/wudao.jsonl:18` of several."""
    file, _, line = key.rpartition(":")
    path = Path(file)
    subset = path.name.removesuffix(".jsonl")
    for output in outputs:
        if line.isdecimal() and len(line) < 19 and path.parent.name in ("", output.name):
            row = lineage.find(output.folder, subset=subset, line=int(line))
            if row is not None:
                return str(row["id"])
    if not any(output.folder.exists() for output in outputs):
        raise InputError(
            f"{run.path}: has no final files yet, so that no line can be named; give the id of a record, as "
            f"`kun show` prints it, or finish the run: `kun status {run.path}`"
        )
    where = ", ".join(str(output.folder) for output in outputs)
    raise InputError(f"{where}: there is no line {line} of {subset}.jsonl; give it as wudao:18")


def _final_line(output: StepFolder, subset: str, record_id: str) -> dict[str, Any] | None:
    """The file and line of a data set; without the line, and with the reason, where the lineage cannot tell."""
    file = f"{output.name}/{subset}.jsonl"
    try:
        row = lineage.find(output.folder, subset=subset, id=record_id)
    except InputError as error:
        return {"file": file, "line": None, "reason": str(error)}
    return {"file": file, "line": row["line"]} if row else None
