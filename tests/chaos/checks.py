"""What must hold of a run folder at any moment, by its files alone: `account(run)`, `differences(run, expected)`."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

CHAIN = ("stage2_ingest", "stage2_quality", "stage2_filter", "stage3_label", "stage4_verdicts", "stage4_score")
CHAIN += ("stage5_polish",)
OF_THE_DAY = {
    "lock",
    "digests.json",
    "run.log",
    "last_command.json",
}  # who held it last; times of files; what was done when
TIMES = re.compile(rb'"(seconds|check)":("[^"]*"|[^,}]*),?')  # a check is a digest of the seconds, too
# In settings. A run that was struck behind its last file is all done for the one that resumes it with other workers.
WORKERS = re.compile(rb"^workers: \d+$", re.MULTILINE)


@dataclass
class Account:
    """Rows of `lost` are in no output of the step that took them; `doubled` ones come twice. The rest is in words."""

    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def account(run: Path) -> Account:
    """Every finished shard is whole, has each row once, and exactly those that the shard above it kept."""
    found = Account()
    for folder in sorted((run / "store").glob("stage*")):
        _shards(folder, found)
    for subset in {link.name for link in (run / CHAIN[0]).glob("*")}:
        folders = [run / stage / subset for stage in CHAIN if (run / stage / subset).is_dir()]
        for above, below in pairwise(folders):
            _between(above, below, found)
    final = run / "final"
    if final.is_symlink():
        names = {path.name for path in final.glob("*")}
        rows = {f"{link.name}.jsonl" for link in (run / CHAIN[-1]).glob("*")}
        if not rows | {"README.md", "lineage.parquet"} <= names:
            found.wrong.append(f"final has only {sorted(names)}")
        found.wrong += [f"{path}: half a file" for path in final.glob("*.jsonl") if not _whole(path.read_bytes())]
    return found


def _shards(folder: Path, found: Account) -> None:
    markers = _markers(folder)
    done = _json(folder / "done.json")
    current = done["shards"] if done is not None else []  # else the shards of an earlier corpus are there as well
    ids: list[str] = []
    for index, marker in markers.items():
        if marker["rows"] != marker["kept"] + sum(marker["rejected"].values()) + marker["failed"]:
            found.wrong.append(f"{folder.name} shard {index}: {marker}")
        for kind, rows in (("", marker["kept"]), (".rejects", sum(marker["rejected"].values()))):
            path = folder / f"part-{index}{kind}.jsonl"
            data = path.read_bytes() if path.exists() else b""
            if not rows and kind and not data:
                continue
            if hashlib.blake2b(data, digest_size=16).hexdigest() != marker["digests"].get(kind[1:] or "kept"):
                found.wrong.append(f"{path}: not what the marker says")
            elif data.count(b"\n") != rows:
                found.wrong.append(f"{path}: not {rows} rows")
        if index in current:
            ids += [row_id for ids_of_kind in _ids(folder, index) for row_id in ids_of_kind]
    found.doubled += len(ids) - len(set(ids))
    for path in folder.glob("part-*.jsonl"):
        if _key(path) not in markers and not _whole(path.read_bytes()):
            found.wrong.append(f"{path}: half a file")
    if done is not None and done["shards"]:
        for name in ("rows", "kept", "failed"):
            if done[name] != sum(markers[key][name] for key in current if key in markers):
                found.wrong.append(f"{folder.name}: done.json says {done[name]} {name}")


def _between(above: Path, below: Path, found: Account) -> None:
    source, markers = _markers(above), _markers(below)
    for index in source.keys() & markers.keys():
        if markers[index]["source"]["shard"] != source[index]["content"]:
            continue  # it is to be made anew
        kept = set(_ids(above, index)[0])
        taken = {row_id for ids in _ids(below, index) for row_id in ids}
        found.lost += len(kept - taken)
        found.doubled += len(taken - kept)
    finished, all_above = _json(below / "done.json"), _json(above / "done.json")
    name = f"{above.parent.name}/{above.name}"
    same = finished and all_above and finished["source"][name] == all_above["content"]
    if same and finished["shards"] != all_above["shards"]:
        found.wrong.append(f"{below}: shards {finished['shards']} of {all_above['shards']}")


def _ids(folder: Path, index: str) -> tuple[list[str], list[str]]:
    """The ids of the kept rows of a shard, and of the others."""
    kept, others = [], []
    for kind in ("", ".rejects", ".failed"):
        path = folder / f"part-{index}{kind}.jsonl"
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # reported by its digest
            (others if kind else kept).append(row["id"])
    return kept, others


def _markers(folder: Path) -> dict[str, dict]:
    found = {_key(path): _json(path) for path in sorted(folder.glob("part-*.done.json"))}
    return {index: marker for index, marker in found.items() if marker is not None}


def _key(path: Path) -> str:
    return path.name.removeprefix("part-").partition(".")[0]


def _json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _whole(data: bytes) -> bool:
    try:
        [json.loads(line) for line in data.split(b"\n")[:-1]]
    except ValueError:
        return False
    return data.endswith(b"\n") or not data


def content(run: Path) -> dict[str, bytes]:
    """All that a run folder holds, by path, without what is of the day."""
    found = {}
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        if path.is_symlink():
            found[name] = str(path.readlink()).encode()
        elif path.is_file() and path.name not in OF_THE_DAY:
            data = path.read_bytes()
            found[name] = TIMES.sub(b"", data) if path.name.endswith("done.json") else WORKERS.sub(b"", data)
    return found


def differences(run: Path, expected: dict[str, bytes]) -> list[str]:
    """Files that are missing, too many (as temporary ones) or other than expected."""
    found = content(run)
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
