"""One shard against its marker and the shard above it: `check_shard(place, key)`."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kun.pipeline.run_folder import SHARD
from kun.records import Raw
from kun.store import digests, shards
from kun.store.shards import FailedRow, RejectedRow, ShardManifest, part

OTHER_INPUT = "was made from other input than what the step reads holds now"  # `kun run` sees that, too
MOST_LINES = 3  # damaged lines of a file that are named


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a file; `shard` is the one that is damaged, None where none is."""

    file: str
    what: str
    shard: str | None = None


class ShardCheck(msgspec.Struct, frozen=True):
    """A shard that was looked at. `ids`: 8 bytes of hash for each id, where they are asked for."""

    key: str
    marker: ShardManifest | None
    problems: list[Problem]
    ids: bytes = b""


@dataclass(frozen=True)
class ShardSource:
    """Where shards are, and what they are made from. `reads` and `writes`: the types of their records.

    `above` is the folder of the records' source, None in the ingest or where it is gone. `others` are the contents of
    all else that is read, by step (kun.pipeline), None where not known.
    """

    folder: Path
    reads: type[Raw]
    writes: type[Raw]
    above: Path | None = None
    others: Mapping[str, str] | None = None
    hash_ids: bool = False


def check_some(place: ShardSource, keys: Sequence[str]) -> tuple[Path, list[ShardCheck]]:
    """These shards, with the folder that they are in."""
    return place.folder, [check_shard(place, key) for key in keys]


def check_shard(place: ShardSource, key: str) -> ShardCheck:
    """Digests, counts, types, the order of ids, and what the shard was made from."""
    problems: list[Problem] = []
    marker = _marker(place.folder, key, problems)
    if marker is None:
        return ShardCheck(key, None, problems)
    found: dict[str, list[str]] = {}
    reasons: Counter[str] = Counter()
    for kind, counted in (("", marker.kept), ("rejects", sum(marker.rejected.values())), ("failed", marker.failed)):
        path = part(place.folder, key, kind)
        say = _Saying(problems, path.name, key)
        published = marker.digests.get(kind or "kept")
        if published is None:
            if path.exists() or counted:
                say(f"the marker has no digest of it, and {counted:,} rows")
            found[kind] = []
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            say("is gone")
            continue
        except OSError as error:
            say(f"cannot be read ({error.strerror})")
            continue
        if digests.of_bytes(data) != published:
            say("is not what was published: its digest is another than that of the marker")
        found[kind] = list(_ids(data, kind, say, reasons))
        if len(found[kind]) != counted:
            say(f"{len(found[kind]):,} rows, and {counted:,} by the marker")
    say = _Saying(problems, part(place.folder, key, "done").name, key)
    if "rejects" in found and dict(reasons) != marker.rejected:
        say(f"reasons of rejects are {marker.rejected}, and {dict(reasons)} in the file")
    if marker.rows != marker.kept + sum(marker.rejected.values()) + marker.failed:
        say(f"{marker.rows:,} rows are not the sum of kept, rejected and failed")
    if place.others is not None and any(marker.source.get(name) != one for name, one in place.others.items()):
        problems.append(Problem(say.file, OTHER_INPUT))
    elif place.above is not None:
        _against(place, key, marker, found, problems)
    if not problems:
        _joined(place, key, marker, say)
    ids = b"".join(hash_id(one) for kind in found.values() for one in kind) if place.hash_ids else b""
    return ShardCheck(key, marker, problems, ids)


def _joined(place: ShardSource, key: str, marker: ShardManifest, say: Any) -> None:
    """The rows that the shard keeps, joined with those above, are those that were published. Nothing is said where a
    shard above is damaged: made again it is what it was, and this one stays good."""
    try:
        records = shards.read_kept(place.folder, key, place.writes)
    except shards.DamagedError as damage:
        if damage.folder == place.folder.resolve():
            say(damage.why)
        return
    except OSError:
        return
    if shards.content(records) == marker.content:
        return
    with contextlib.suppress(shards.DamagedError):
        above = _marker(place.above, key, []) if place.above else None
        if place.above and above and shards.content(shards.read_kept(place.above, key, place.reads)) != above.content:
            return  # it is that one which was changed
    say("its rows, joined with those above, are not what was published")


def hash_id(identity: str) -> bytes:
    """8 bytes of BLAKE2b: two of a thousand million ids are the same by chance in one run of forty."""
    return hashlib.blake2b(identity.encode(), digest_size=8).digest()


def ids_of(folder: Path, key: str) -> Iterator[str]:
    """The ids of all rows of a shard that can be read, in no order."""
    for kind in ("", "rejects", "failed"):
        with contextlib.suppress(OSError):
            data = part(folder, key, kind).read_bytes()
            yield from _ids(data, kind, lambda what: None, Counter())


class _Saying:
    """Notes what is wrong with one file."""

    def __init__(self, problems: list[Problem], file: str, shard: str) -> None:
        self._problems, self.file, self._shard = problems, file, shard

    def __call__(self, what: str) -> None:
        self._problems.append(Problem(self.file, what, self._shard))


def _marker(folder: Path, key: str, problems: list[Problem]) -> ShardManifest | None:
    path = part(folder, key, "done")
    try:
        marker = shards.marker(folder, key)
        what = "the marker is damaged" if path.exists() else "the shard, or its marker, is gone"
    except OSError as error:
        marker, what = None, f"the marker cannot be read ({error.strerror})"
    if marker is None:
        problems.append(Problem(path.name, what, key))
    return marker


def _ids(data: bytes, kind: str, say: Any, reasons: Counter[str]) -> Iterator[str]:
    """The id of every row that decodes as what it should be."""
    row_of: Any = msgspec.json.Decoder({"": _Row, "rejects": RejectedRow, "failed": FailedRow}[kind])
    *lines, rest = data.split(b"\n")
    damaged = 0
    if rest:
        say("its last line has no end")
    for number, line in enumerate(lines, 1):
        try:
            row = row_of.decode(line)
            if kind == "rejects":
                reasons[row.reason] += 1
            yield row.id
        except ValueError as error:
            damaged += 1
            if damaged <= MOST_LINES:
                say(f"line {number} is no row ({error})")
    if damaged > MOST_LINES:
        say(f"{damaged - MOST_LINES:,} more lines cannot be read")


class _Row(msgspec.Struct, frozen=True):
    id: str


def _against(
    place: ShardSource, key: str, marker: ShardManifest, found: dict[str, list[str]], problems: list[Problem]
) -> None:
    """What the shard above kept is what this one was made from: the digest, then id by id.

    Nothing is said where the shard above is itself damaged: made again it is what it was, and this one stays good.
    """
    assert place.above is not None
    say = _Saying(problems, part(place.folder, key, "done").name, key)
    above = _marker(place.above, key, [])
    try:
        data = part(place.above, key).read_bytes()
    except OSError:
        return
    if above is None or digests.of_bytes(data) != above.digests.get("kept"):
        return
    if marker.source.get(SHARD) != above.content:
        problems.append(Problem(say.file, OTHER_INPUT))
    ids = list(_ids(data, "", lambda what: None, Counter()))
    if marker.rows != len(ids):
        say(f"{marker.rows:,} rows, and the shard above kept {len(ids):,}")
    if len(found) == 3 and (wrong := misplaced(ids, list(found.values()))):
        say(wrong)


def misplaced(above: Iterable[str], here: Sequence[Sequence[str]]) -> str | None:
    """The first id that is not in its place: those above must be the lists here, merged, each in its own order."""
    at = [0] * len(here)
    for identity in above:
        for number, ids in enumerate(here):
            if ids[at[number] : at[number] + 1] == [identity]:
                at[number] += 1
                break
        else:
            return f"record {identity} of the shard above is not accounted for in its place"
    rest = [ids[place] for ids, place in zip(here, at, strict=True) if place < len(ids)]
    return f"record {rest[0]} is not one of the shard above, or comes twice" if rest else None
