"""Shards of records on disk: `publish(folder, 3, outcomes, source=...)`, `read(folder, 3, Filtered)`.

A shard is `part-00003.jsonl` (kept), `part-00003.rejects.jsonl` (record, reason, detail), `part-00003.failed.jsonl`
(record, error; only where there are any) and, written last, `part-00003.done.json`. Without the marker the shard is not
there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kun.errors import InputError
from kun.records import Raw, Reject
from kun.store import atomic

R = TypeVar("R", bound=Raw)


class Failed(msgspec.Struct, frozen=True):
    """The record could not be processed this time; the next run tries again."""

    error: str


Outcome = Raw | Reject | Failed  # of one record: kept (in its new form), rejected for good, failed for now


class Done(msgspec.Struct, frozen=True):
    """The marker of a whole shard. rows = kept + sum(rejected) + failed."""

    rows: int
    kept: int
    rejected: dict[str, int]
    failed: int
    source: str
    digests: dict[str, str]
    seconds: float = 0.0


class RejectedRow(msgspec.Struct, frozen=True):
    """A line of a rejects file; `record` is left as it was written."""

    record: msgspec.Raw
    reason: str
    detail: str


class FailedRow(msgspec.Struct, frozen=True):
    record: msgspec.Raw
    error: str


def part(folder: Path, index: int, kind: str = "") -> Path:
    """Path of shard `index`: kind "" (kept), "rejects", "failed" or "done"."""
    ending = {"": ".jsonl", "rejects": ".rejects.jsonl", "failed": ".failed.jsonl", "done": ".done.json"}[kind]
    return folder / f"part-{index:05d}{ending}"


def publish(
    folder: Path, index: int, outcomes: Iterable[tuple[Raw, Outcome]], *, rows: int, source: str, seconds: float = 0.0
) -> Done:
    """Write one shard whole: every record with what became of it, in order. `source` is the digest of its input.

    Raises AssertionError where the outcomes are not one for each of `rows`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part(folder, index, "done").unlink(missing_ok=True)
    kept, failed = 0, 0
    reasons: Counter[str] = Counter()
    lines: dict[str, list[bytes]] = {"": [], "rejects": [], "failed": []}
    for record, outcome in outcomes:
        if isinstance(outcome, Reject):
            reasons[outcome.reason] += 1
            row = {"record": record, "reason": outcome.reason, "detail": outcome.detail}
            lines["rejects"].append(msgspec.json.encode(row))
        elif isinstance(outcome, Failed):
            failed += 1
            lines["failed"].append(msgspec.json.encode({"record": record, "error": outcome.error}))
        else:
            kept += 1
            lines[""].append(msgspec.json.encode(outcome))
    accounted = kept + reasons.total() + failed
    assert accounted == rows, f"{part(folder, index)}: {rows} rows in, {accounted} accounted for"
    digests = {}
    for kind, content in lines.items():
        path = part(folder, index, kind)
        if kind == "failed" and not content:
            path.unlink(missing_ok=True)
            continue
        data = b"".join(line + b"\n" for line in content)
        atomic.write(path, data)
        digests[kind or "kept"] = hashlib.blake2b(data, digest_size=16).hexdigest()
    done = Done(rows, kept, dict(sorted(reasons.items())), failed, source, digests, round(seconds, 3))
    atomic.write(part(folder, index, "done"), msgspec.json.encode(done))
    return done


def marker(folder: Path, index: int) -> Done | None:
    """The marker of a shard, or None where the shard is not done."""
    path = part(folder, index, "done")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Done)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: the marker is damaged ({error}); {_remedy(path)}") from None


def finished(folder: Path) -> list[int]:
    """The shards of a folder that have their marker, in order."""
    return sorted(int(path.name[len("part-") : -len(".done.json")]) for path in folder.glob("part-*.done.json"))


def read(folder: Path, index: int, kind: type[R]) -> list[R]:
    """The kept records of a shard. InputError where the file is gone, or not what was published."""
    path = part(folder, index)
    records = list(_decode(path, kind))
    done = marker(folder, index)
    if done is not None and done.kept != len(records):
        raise InputError(f"{path}: {len(records)} of the {done.kept} rows of the shard are there; {_remedy(path)}")
    return records


def read_all(folder: Path, kind: type[R]) -> Iterator[R]:
    """The kept records of every finished shard of a step, in order."""
    for index in finished(folder):
        yield from read(folder, index, kind)


def read_some(folder: Path, kind: type[R], most: int) -> Iterator[R]:
    """The kept records of at most `most` shards, spread evenly over the step; the same ones each time."""
    indexes = finished(folder)
    for number in range(min(most, len(indexes))):
        yield from read(folder, indexes[number * len(indexes) // min(most, len(indexes))], kind)


def rejects(folder: Path, index: int) -> Iterator[RejectedRow]:
    return _decode(part(folder, index, "rejects"), RejectedRow)


def failures(folder: Path, index: int) -> Iterator[FailedRow]:
    path = part(folder, index, "failed")
    return _decode(path, FailedRow) if path.exists() else iter(())


def outcomes(folder: Path, index: int, kind: type[Raw]) -> dict[str, Outcome]:
    """What became of each record of a shard that has failures, by id, without the failed ones."""
    settled: dict[str, Outcome] = {record.id: record for record in read(folder, index, kind)}
    for row in rejects(folder, index):
        settled[msgspec.json.decode(row.record)["id"]] = Reject(row.reason, row.detail)
    return settled


def _decode(path: Path, kind: type[Any]) -> Iterator[Any]:
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:  # bytes: only b"\n" ends a line, U+2028 does not
            for number, line in enumerate(file, 1):
                try:
                    yield decoder.decode(line)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: the shard is damaged ({error}); {_remedy(path)}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: the shard is gone; {_remedy(path)}") from None


def _remedy(path: Path) -> str:
    """How a shard is made again: without its marker, and without that of the step, which stands for all of them."""
    name = path.name.partition(".")[0]
    return f"delete {name}.done.json and done.json beside it, and run the stage that made it again"
