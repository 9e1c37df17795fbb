"""Shards of records on disk: `publish(folder, 3, outcomes, source=...)`, `read(folder, 3, Filtered)`.

A shard is `part-00003.jsonl` (kept), `part-00003.rejects.jsonl` (record, reason, detail), `part-00003.failed.jsonl`
(record, error; only where records failed) and, written last, the marker `part-00003.done.json`. Without its marker a
shard does not exist. Whatever does not match the digests of the marker raises `DamagedError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kun.errors import InputError
from kun.records import Raw, Reject
from kun.store import atomic, markers
from kun.store.digests import of_bytes
from kun.store.markers import Marker

R = TypeVar("R", bound=Raw)


class DamagedError(InputError):
    """A shard is not as it was published. Once its marker is gone (`withdraw()`), its stage makes it again."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why
        self.folder = path.parent.resolve()  # it may have been read through its link
        self.marker = path.with_name(path.name.partition(".")[0] + ".done.json")

    def __str__(self) -> str:
        run = self.folder.parent.parent
        return f"{self.path}: the shard is {self.why}; `kun verify {run}` tells how to make it again"

    def withdraw(self) -> None:
        self.marker.unlink(missing_ok=True)


class Failed(msgspec.Struct, frozen=True):
    """The record could not be processed; the next run tries again."""

    error: str


Outcome = Raw | Reject | Failed  # of one record: kept (with new fields), rejected for good, or failed for now


class ShardManifest(Marker, frozen=True):
    """The marker of a complete shard. rows = kept + sum(rejected) + failed."""

    rows: int
    kept: int
    rejected: dict[str, int]
    failed: int
    source: str
    digests: dict[str, str]
    seconds: float = 0.0


class RejectedRow(msgspec.Struct, frozen=True):
    """A line of a rejects file; `record` is left undecoded."""

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
) -> ShardManifest:
    """Write a shard: every record with its outcome, in order. `source` is the digest of its input.

    AssertionError where the number of outcomes is not `rows`.
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
        digests[kind or "kept"] = of_bytes(data)
    done = ShardManifest(rows, kept, dict(sorted(reasons.items())), failed, source, digests, round(seconds, 3))
    return markers.write_marker(part(folder, index, "done"), done)


def marker(folder: Path, index: int) -> ShardManifest | None:
    """The marker of a shard, or None where the shard is not done."""
    return markers.read_marker(part(folder, index, "done"), ShardManifest)


def finished(folder: Path) -> list[int]:
    """The shards of a folder that have their marker, in order."""
    return sorted(int(path.name[len("part-") : -len(".done.json")]) for path in folder.glob("part-*.done.json"))


def read_kept(folder: Path, index: int, kind: type[R]) -> list[R]:
    """The kept records of a shard. DamagedError where they are not as published."""
    return list(_decode(folder, index, "", kind))


def read_all(folder: Path, kind: type[R]) -> Iterator[R]:
    """The kept records of every finished shard of a step, in order."""
    for index in finished(folder):
        yield from read_kept(folder, index, kind)


def read_some(folder: Path, kind: type[R], most: int) -> Iterator[R]:
    """The kept records of at most `most` shards, spread evenly over the step; always the same ones."""
    indexes = finished(folder)
    for number in range(min(most, len(indexes))):
        yield from read_kept(folder, indexes[number * len(indexes) // min(most, len(indexes))], kind)


def rejects(folder: Path, index: int) -> Iterator[RejectedRow]:
    return _decode(folder, index, "rejects", RejectedRow)


def failures(folder: Path, index: int) -> Iterator[FailedRow]:
    return _decode(folder, index, "failed", FailedRow) if part(folder, index, "failed").exists() else iter(())


def outcomes(folder: Path, index: int, kind: type[Raw]) -> dict[str, Outcome]:
    """The outcome of each record of a shard, by id, without the failed ones."""
    settled: dict[str, Outcome] = {record.id: record for record in read_kept(folder, index, kind)}
    for row in rejects(folder, index):
        settled[msgspec.json.decode(row.record)["id"]] = Reject(row.reason, row.detail)
    return settled


def _decode(folder: Path, index: int, kind: str, row: type[Any]) -> Iterator[Any]:
    path, done = part(folder, index, kind), marker(folder, index)
    try:
        with atomic.naming(path):
            data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(path, "gone") from None
    if done is None:
        raise DamagedError(path, "without its marker")
    if of_bytes(data) != done.digests.get(kind or "kept"):
        raise DamagedError(path, "damaged, its digest is not that of the marker")
    decoder = msgspec.json.Decoder(row)
    for number, line in enumerate(data.split(b"\n")[:-1], 1):  # bytes: U+2028 does not end a line
        try:
            yield decoder.decode(line)
        except ValueError as error:
            raise DamagedError(path, f"of another version of Kun (line {number}: {error})") from None
