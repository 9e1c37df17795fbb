"""Shards of records on disk: `publish(folder, key, outcomes, source=...)`, `read_kept(folder, key, Filtered)`.

A shard is `part-<key>.jsonl` (kept) and, where there are such rows, `.rejects.jsonl` (reason, detail) and
`.failed.jsonl` (error); then, written last, the marker `.done.json`. Without it a shard does not exist. A step stores
what it adds: a row has its id, and the fields that are new or other than in the shard of the same key in the folder
`above`; reading joins them. What does not match the digests of the marker raises `DamagedError`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from kun.errors import InputError
from kun.records import Origin, Raw, Reject
from kun.store import atomic, markers
from kun.store.digests import of_bytes
from kun.store.markers import Marker

R = TypeVar("R", bound=Raw)
ENDINGS = {"": ".jsonl", "rejects": ".rejects.jsonl", "failed": ".failed.jsonl", "done": ".done.json"}
NOWHERE = Origin("", 0)
OF = "of"  # in a row of a model's step: the digest of the row that it was asked about


Key = Annotated[str, msgspec.Meta(pattern=r"\A[\w~]+\Z")]  # of a shard: no path, in a run from a stranger either


class DamagedError(InputError):
    """A shard is not as it was published. Once its marker is gone (`withdraw()`), its stage makes it again."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why
        self.folder = path.parent.resolve()  # it may have been read through its link
        self.marker = path.with_name(path.name.partition(".")[0] + ENDINGS["done"])

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
    """The marker of a complete shard. rows = kept + sum(rejected) + failed.

    `source`: by name the digests of all that it was made from, the rows of the shard above as `shard`. `content`: the
    digest of its kept rows with all that is known of them, but for their origins. `above`: the folder in the store with
    the shard that it adds to; "" where it has whole records.
    """

    rows: int
    kept: int
    rejected: dict[str, int]
    failed: int
    source: dict[str, str]
    digests: dict[str, str]
    content: str
    above: str = ""
    seconds: float = 0.0


class RejectedRow(msgspec.Struct, frozen=True):
    """A line of a rejects file."""

    id: str
    reason: str
    detail: str


class FailedRow(msgspec.Struct, frozen=True):
    id: str
    error: str


class _Order(msgspec.Struct):
    """The part of a step's marker that has its shards, in order (kun.pipeline.run_folder.StepManifest)."""

    shards: list[Key] = []


def part(folder: Path, key: str, kind: str = "") -> Path:
    """Path of a shard: kind "" (kept), "rejects", "failed" or "done"."""
    return folder / f"part-{key}{ENDINGS[kind]}"


def row_digest(record: Raw) -> str:
    """Digest of all that is known of a record, but for where it came from: a file that is renamed changes no row."""
    data = msgspec.json.encode(msgspec.structs.replace(record, origin=NOWHERE))
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def content(records: Iterable[Raw]) -> str:
    """Digest of all that is known of these records, but for where they came from."""
    return of_bytes("".join(map(row_digest, records)).encode())


def publish(
    folder: Path,
    key: str,
    outcomes: Iterable[tuple[Raw, Outcome]],
    *,
    rows: int,
    source: Mapping[str, str],
    above: str = "",
    asked_of: Sequence[str] = (),
    seconds: float = 0.0,
) -> ShardManifest:
    """Write a shard: every record with its outcome, in order. `asked_of`: the digest of each record, for `answers`.

    AssertionError where the number of outcomes is not `rows`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part(folder, key, "done").unlink(missing_ok=True)
    reasons: Counter[str] = Counter()
    lines: dict[str, list[bytes]] = {"": [], "rejects": [], "failed": []}
    kept = []
    for number, (record, outcome) in enumerate(outcomes):
        kind = ""
        if isinstance(outcome, Reject):
            kind = "rejects"
            reasons[outcome.reason] += 1
        elif isinstance(outcome, Failed):
            kind = "failed"
        else:
            kept.append(row_digest(outcome))
        lines[kind].append(line(record, outcome, whole=not above, of=asked_of[number] if asked_of else ""))
    accounted = sum(map(len, lines.values()))
    assert accounted == rows, f"{part(folder, key)}: {rows} rows in, {accounted} accounted for"
    digests = {}
    for kind, rows_of_kind in lines.items():
        path = part(folder, key, kind)
        if kind and not rows_of_kind:
            path.unlink(missing_ok=True)
            continue
        data = b"".join(rows_of_kind)
        atomic.write(path, data)
        digests[kind or "kept"] = of_bytes(data)
    done = ShardManifest(
        rows, len(kept), dict(sorted(reasons.items())), len(lines["failed"]), dict(source), digests,
        content=of_bytes("".join(kept).encode()), above=above, seconds=round(seconds, 3),
    )  # fmt: skip
    return markers.write_marker(part(folder, key, "done"), done)


def line(record: Raw, outcome: Outcome, whole: bool = False, of: str = "") -> bytes:
    """The line of a record in a shard: what the outcome adds to it, or `whole`."""
    row: dict[str, Any] = {"id": record.id, **({OF: of} if of else {})}
    if whole:
        row |= msgspec.to_builtins(outcome if isinstance(outcome, Raw) else record)
    elif isinstance(outcome, Raw):
        row |= _added(record, outcome)
    if not isinstance(outcome, Raw):
        row |= msgspec.structs.asdict(outcome)
    return msgspec.json.encode(row) + b"\n"


def _added(record: Raw, outcome: Raw) -> dict[str, Any]:
    """The fields of the outcome that the record has not, or with another value; without new ones that are defaults."""
    return {
        name: value
        for name, default in _fields(type(outcome))
        if (value := getattr(outcome, name)) != getattr(record, name, default)
    }


@cache
def _fields(kind: type[Raw]) -> list[tuple[str, Any]]:
    return [(field.name, field.default) for field in msgspec.structs.fields(kind)]


def marker(folder: Path, key: str) -> ShardManifest | None:
    """The marker of a shard, or None where the shard is not done."""
    return markers.read_marker(part(folder, key, "done"), ShardManifest)


def finished(folder: Path) -> set[str]:
    """The keys of the shards in a folder that have their marker, also of those that the step does not use any more."""
    return {path.name[len("part-") : -len(ENDINGS["done"])] for path in folder.glob(f"part-*{ENDINGS['done']}")}


def order(folder: Path) -> list[str]:
    """The keys of the shards of a finished step, in order; none where it is not finished."""
    try:
        return msgspec.json.decode((folder / "done.json").read_bytes(), type=_Order).shards
    except (OSError, ValueError):
        return []


def read_kept(folder: Path, key: str, kind: type[R]) -> list[R]:
    """The kept records of a shard, joined with those above. DamagedError where one of them is not as published."""
    chain = list(_chain(folder, key))
    rows: dict[bytes, dict[str, Any]] = {_id(line): {} for line in chain[0][1]}
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for path, lines in reversed(chain):
        found = 0
        for number, line in enumerate(lines, 1):
            if (row := rows.get(_id(line))) is not None:
                found += 1
                try:
                    row.update(decode(line))
                except ValueError as error:
                    raise _other_version(path, number, error) from None
        if found != len(rows):
            raise DamagedError(part(folder, key), f"made from other rows than {path} has now")
    try:
        return [msgspec.convert(row, kind) for row in rows.values()]
    except ValueError as error:
        raise _other_version(chain[0][0], 0, error) from None


def _chain(folder: Path, key: str) -> Iterator[tuple[Path, list[bytes]]]:
    """The kept lines of a shard, then of the one above it, and so on to the one with whole records."""
    while True:
        lines = _lines(folder, key, "")
        yield part(folder, key), lines
        done = marker(folder, key)
        if done is None or not done.above or not lines:
            return
        folder = above_of(folder, done.above)


def places(folder: Path, key: str, field: str) -> Iterator[tuple[int, int, int]]:
    """For each kept record of a shard, in order, the line that has its `field`: how many folders above, start, size."""
    found: dict[bytes, tuple[int, int, int]] = {}
    chain = list(_chain(folder, key))
    needle = f'"{field}":'.encode()
    wanted = [_id(line) for line in chain[0][1]]
    for level, (_, lines) in reversed(list(enumerate(chain))):
        start = 0
        for line in lines:
            if needle in line:  # within a text its quotes would be escaped
                found[_id(line)] = (level, start, len(line))
            start += len(line) + 1
    yield from (found[name] for name in wanted)


def up(folder: Path, key: str) -> list[tuple[Path, ShardManifest]]:
    """The file of kept rows of a shard with its marker, and of those above it."""
    found: list[tuple[Path, ShardManifest]] = []
    while not found or found[-1][1].above:
        folder = above_of(folder, found[-1][1].above) if found else folder
        done = marker(folder, key)
        if done is None:
            raise DamagedError(part(folder, key), "without its marker")
        found.append((part(folder, key), done))
    return found


def above_of(folder: Path, name: str) -> Path:
    """The folder with that name in the store of a step's folder; or in a copy, which has plain names for folders."""
    folder = folder.resolve()
    beside = folder.parent / name
    if beside.resolve().parent != folder.parent:  # a run from a stranger could lead anywhere
        raise DamagedError(folder / "part-.jsonl", f"said to be made from {name}, which is not of this run")
    if beside.exists() or folder.parent.name == "store":
        return beside
    return folder.parent.parent / name.partition(f"-{folder.name}-")[0] / folder.name


def _id(line: bytes) -> bytes:
    """The id with which a row begins, undecoded."""
    return line[7 : line.find(b'"', 7)]


def read_all(folder: Path, kind: type[R]) -> Iterator[R]:
    """The kept records of every shard of a finished step, in order."""
    for key in order(folder):
        yield from read_kept(folder, key, kind)


def some(folder: Path, most: int) -> list[str]:
    """The keys of at most `most` shards of a step: as keys are hashes a fair choice, which growth hardly changes."""
    return sorted(order(folder) or finished(folder))[:most]


def read_some(folder: Path, kind: type[R], most: int) -> Iterator[R]:
    """The kept records of at most `most` shards of a step."""
    for key in some(folder, most):
        yield from read_kept(folder, key, kind)


def rejects(folder: Path, key: str) -> Iterator[RejectedRow]:
    return _decode(folder, key, "rejects", RejectedRow)


def dropped(folder: Path, key: str) -> list[dict[str, Any]]:
    """The rejects of a shard, with all that lies in its own folder."""
    rows = list(_decode(folder, key, "rejects", dict[str, Any]))
    return [{name: value for name, value in row.items() if name != OF} for row in rows]


def failures(folder: Path, key: str) -> Iterator[FailedRow]:
    return _decode(folder, key, "failed", FailedRow)


def answers(folder: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a shard of a model's step has of each record, without the failed ones: the digest of the record, the row."""
    for kind in ("", "rejects"):
        for row in _decode(folder, key, kind, dict[str, Any]):
            yield row.pop(OF, ""), row


def set_aside(folder: Path, key: str) -> str:
    """Keep a shard under a second key, which is returned, as it will be made anew."""
    done = marker(folder, key)
    assert done is not None
    aside = f"{key}~{done.check[:8]}"
    if marker(folder, aside) is None:
        for kind in ("", "rejects", "done"):
            if (source := part(folder, key, kind)).exists():
                atomic.write(part(folder, aside, kind), source.read_bytes())
    return aside


def settle(record: Raw, row: dict[str, Any], kind: type[Raw]) -> Raw | Reject:
    """The outcome that a row of `answers` is for the record."""
    if "reason" in row:
        return Reject(row["reason"], row["detail"])
    return msgspec.convert({**msgspec.to_builtins(record), **row}, kind)


def _decode(folder: Path, key: str, kind: str, row: type[Any]) -> Iterator[Any]:
    decoder = msgspec.json.Decoder(row)
    for number, line in enumerate(_lines(folder, key, kind), 1):
        try:
            yield decoder.decode(line)
        except ValueError as error:
            raise _other_version(part(folder, key, kind), number, error) from None


def _lines(folder: Path, key: str, kind: str) -> list[bytes]:
    """The lines of a file of a shard; none of one that it has not. DamagedError where they are not as published."""
    path, done = part(folder, key, kind), marker(folder, key)
    if done is not None and kind and kind not in done.digests:
        return []
    try:
        with atomic.naming(path):
            data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(path, "gone") from None
    if done is None:
        raise DamagedError(path, "without its marker")
    if of_bytes(data) != done.digests.get(kind or "kept"):
        raise DamagedError(path, "damaged, its digest is not that of the marker")
    return data.split(b"\n")[:-1]  # bytes: U+2028 does not end a line


def _other_version(path: Path, number: int, error: Exception) -> DamagedError:
    return DamagedError(path, f"of another version of Kun (line {number}: {error})")
