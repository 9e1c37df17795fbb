"""A whole run against itself: `verify(Path("runs/demo"), works, workers=0)` gives a finding for every step.

Works on the folder alone, by its markers and fingerprints: neither corpora nor the base model are needed. Memory holds
16 bytes for each row of the ingest, and the markers of the step that is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from kun.execution.processes import map_unordered
from kun.pipeline.run_folder import StepManifest, read_manifest, summarise
from kun.pipeline.stage import Build, Infer, Ingest, Map
from kun.progress import bar
from kun.records import Document, Raw
from kun.store import digests, shards
from kun.verify.part import Problem, ShardCheck, ShardSource, check_some, hash_id, ids_of
from kun.verify.steps import MARKERS, Key, StepFolder, find

Works = Mapping[str, Build | Ingest | Map | Infer]  # of the pipeline's stages, by name
BATCH = 16  # shards of one task
WORTH_PROCESSES = 100  # tasks
ALL = "part-*.done.json"


class Finding(msgspec.Struct, frozen=True):
    """What is known of a step: `ok`, `bad` or `absent`.

    `discard` names the files of `folder` without which the next `kun run` makes again what is bad, and nothing else;
    the folder itself is "."."""

    step: str
    state: str
    folder: Path
    counts: StepManifest
    problems: list[Problem] = []
    notes: list[str] = []
    discard: list[str] = []


def verify(run: Path, works: Works, workers: int = 0) -> list[Finding]:
    """Every step that a plain name stands for, in the order of the pipeline."""
    steps, known = find(run)
    wholes = {key: _whole(folder) for key, folder in known.items()}
    records = {
        step.folder: step for step in steps if step.folder.is_dir() and _makes_records(step, works) and not step.astray
    }
    counts = {folder: _shards(step, wholes) for folder, step in records.items()}
    places = {folder: _place(step, works, known, wholes) for folder, step in records.items()}
    tasks = [
        (places[folder], first, min(first + BATCH, count))
        for folder, count in counts.items()
        for first in range(0, count, BATCH)
    ]
    found = {
        step.name: Finding(step.name, "bad", step.folder, StepManifest(), step.problems)
        if step.astray
        else _build(step, wholes, _makes_records(step, works))
        for step in steps
        if step.folder not in records
    }
    waiting: dict[Path, list[ShardCheck]] = {folder: [] for folder in records}

    def close(folder: Path) -> None:
        seen = sorted(waiting.pop(folder), key=lambda one: one.index)  # markers, which are not needed any more
        step = records[folder]
        found[step.name] = _records(step, places[folder], seen, wholes)

    for folder in [folder for folder, count in counts.items() if not count]:
        close(folder)
    done, total = 0, sum(counts.values())
    with bar("verify", "shards", total) as progress:
        for folder, seen in map_unordered(check_some, tasks, workers if len(tasks) >= WORTH_PROCESSES else 1):
            waiting[folder] += seen
            progress(done := done + len(seen), total)
            if len(waiting[folder]) == counts[folder]:
                close(folder)
    read = {name: step.name for step in steps for name in step.needs}
    gone = [_gone(run / name, name, reader, works) for name, reader in sorted(read.items()) if name not in found]
    return [*gone, *(found[step.name] for step in steps)]


def _whole(folder: Path) -> StepManifest | None:
    """What the marker says; one that cannot be read is told of where its own step is looked at."""
    try:
        return read_manifest(folder)
    except OSError:
        return None


def _gone(folder: Path, name: str, reader: str, works: Works) -> Finding:
    """The finding of a step that another one reads, and that has no plain name any more. Models may be left out."""
    if isinstance(works.get(name.partition("/")[0]), Ingest | Map | Infer):
        return Finding(
            name, "bad", folder, StepManifest(), [Problem(".", f"is not here, and {reader} was made from it")]
        )
    return Finding(name, "absent", folder, StepManifest(), notes=["not here: left out, or removed"])


def _makes_records(step: StepFolder, works: Works) -> bool:
    return isinstance(works.get(step.stage), Ingest | Map | Infer)


def _shards(step: StepFolder, wholes: Mapping[Key, StepManifest | None]) -> int:
    """How many there should be; of a step that is not finished, how many are."""
    above = wholes.get(step.source) if step.source else None
    there = shards.finished(step.folder)
    if step.whole is not None:
        return step.whole.shards
    return above.shards if above is not None and above.shards else len(there)


def _contents(step: StepFolder, wholes: Mapping[Key, StepManifest | None], first: int = 0) -> tuple[str, ...] | None:
    """What the steps that it reads hold, from the `first` on; None where that is not known."""
    found = [wholes.get(need) for need in list(step.needs.items())[first:]]
    return tuple(whole.content for whole in found if whole) if all(found) and not step.lost else None


def _place(
    step: StepFolder, works: Works, known: Mapping[Key, Path], wholes: Mapping[Key, StepManifest | None]
) -> ShardSource:
    """Where a step's shards are, and what each was made from (kun.pipeline.runner)."""
    work = works[step.stage]
    if isinstance(work, Ingest):
        contents = _contents(step, wholes)
        source = None if contents is None else digests.of_value(list(contents))
        return ShardSource(step.folder, Raw, Document, source=source, hash_ids=True)
    assert isinstance(work, Map | Infer)
    others = _contents(step, wholes, first=1)
    above = wholes.get(step.source) if step.source else None
    if isinstance(work, Map) and others is not None:
        others = (*others, above.content) if above else None
    folder = known.get(step.source) if step.source else None
    return ShardSource(step.folder, work.reads, work.writes, folder, others)


def _records(
    step: StepFolder, place: ShardSource, seen: list[ShardCheck], wholes: Mapping[Key, StepManifest | None]
) -> Finding:
    """The finding of a step of shards, all of which were looked at."""
    markers = [one.marker for one in seen if one.marker is not None]
    unfinished = [one for one in seen if one.marker is None] if step.whole is None else []
    bad = {one.index: one.problems for one in seen if one.problems and one not in unfinished}
    of_shards = [problem for problems in bad.values() for problem in problems]
    of_shards += _twice(step.folder, seen) if place.hash_ids else []  # by construction of the other steps
    extra = [index for index in shards.finished(step.folder) if step.whole is not None and index >= step.whole.shards]
    of_shards += [
        Problem(shards.part(step.folder, index, "done").name, f"the step has {len(seen)} shards only", index)
        for index in extra
    ]
    discard = [
        shards.part(step.folder, index, "done").name
        for index in sorted({one.shard for one in of_shards if one.shard is not None})
    ]
    discard += [shards.part(step.folder, index).name for index in extra]
    problems, notes = list(step.problems), _missing(step, wholes)
    if unfinished:
        notes.append(f"{len(seen) - len(unfinished):,} of {len(seen):,} shards are there")
    if step.whole is not None:
        if not of_shards and (wrong := _differs(step.whole, markers)):
            problems.append(Problem("done.json", wrong))
            discard.append(ALL)  # which of them is the wrong one cannot be told
        if step.whole.failed:
            notes.append(f"{step.whole.failed:,} failed records, which the next run tries again")
        problems += _source(step, wholes)
        index = wholes.get(step.source) if step.source and place.hash_ids else None
        if index is not None and index.report.get("rows", step.whole.rows) != step.whole.rows:
            said = f"{step.whole.rows:,} rows, and the index of the corpus has {index.report['rows']:,}"
            problems.append(Problem("done.json", said))
    counts = summarise(markers, "")
    return _finding(step, counts, problems + of_shards, notes, discard)


def _differs(whole: StepManifest, markers: list[shards.ShardManifest]) -> str | None:
    """What done.json says of all shards and their markers do not."""
    counted = summarise(markers, whole.source)
    for name in ("rows", "kept", "rejected", "failed", "content"):
        if getattr(whole, name) != getattr(counted, name):
            said = "the digest of all shards" if name == "content" else f"{name} {getattr(whole, name)}"
            return f"{said} is not what the markers add up to; which of them is wrong cannot be told"
    return None


def _source(step: StepFolder, wholes: Mapping[Key, StepManifest | None]) -> list[Problem]:
    contents = _contents(step, wholes)
    if step.whole is None or contents is None or step.whole.source == digests.of_value(list(contents)):
        return []
    return [Problem("done.json", f"was made from other content than {' and '.join(step.needs) or 'nothing'} hold now")]


def _missing(step: StepFolder, wholes: Mapping[Key, StepManifest | None]) -> list[str]:
    gone = [name for name, digest in step.needs.items() if wholes.get((name, digest)) is None]
    return [f"not checked against {', '.join(gone)}: not here, or not finished"] if gone else []


def _twice(folder: Path, seen: list[ShardCheck]) -> list[Problem]:
    """Ids that come twice in the step. Hashes first; only where two are equal the ids themselves are read again."""
    hashes = np.concatenate([np.frombuffer(one.ids, "<u8") for one in seen]) if seen else np.empty(0, "<u8")
    hashes.sort()
    again = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    problems: list[Problem] = []
    met: set[str] = set()
    for one in seen if again else ():
        for identity in ids_of(folder, one.index):
            if int.from_bytes(hash_id(identity), "little") in again:
                if identity in met:
                    name = shards.part(folder, one.index).name
                    problems.append(Problem(name, f"the id {identity} came before", one.index))
                met.add(identity)
    return problems


def _build(step: StepFolder, wholes: Mapping[Key, StepManifest | None], makes_records: bool = False) -> Finding:
    """The finding of a model or an index."""
    files = [path.name for path in step.folder.rglob("*") if path.is_file() and path.name not in MARKERS]
    whole = step.whole or StepManifest()
    if not step.folder.is_dir() and makes_records:
        problem = Problem(".", "is not here: its plain name leads nowhere")
        return Finding(step.name, "bad", step.folder, whole, [problem])
    if not files or (step.stage == "stage1_train" and not any(name.endswith(".safetensors") for name in files)):
        return Finding(step.name, "absent", step.folder, whole, notes=["not here: left out, or removed"])
    problems, discard = list(step.problems), []
    if step.whole is not None:
        try:
            if digests.of_folder(step.folder, leave_out=MARKERS) != whole.content:
                problems.append(Problem(".", "the files are not those that were made: another digest"))
                discard = ["."]
        except OSError as error:
            problems.append(Problem(".", f"a file cannot be read ({error})"))
            discard = ["."]
        problems += _source(step, wholes)
    return _finding(step, whole, problems, _missing(step, wholes), discard)


def _finding(
    step: StepFolder, counts: StepManifest, problems: list[Problem], notes: list[str], discard: list[str]
) -> Finding:
    again = [
        problem for problem in problems if not (step.lost and problem.file == "fingerprint.json")
    ]  # is written anew
    if again and "." not in discard and (step.folder / "done.json").exists():
        discard = [*discard, "done.json"]
    return Finding(step.name, "bad" if problems else "ok", step.folder, counts, problems, notes, discard)
