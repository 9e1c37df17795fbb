"""A whole run against itself: `verify(Path("runs/demo"), workers=0)` gives a finding for every step.

Works on the folder alone, by its markers and fingerprints: neither corpora nor the base model are needed. Memory holds
16 bytes for each row of the ingest, and the markers of the step that is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from kun.execution.processes import map_unordered
from kun.pipeline.run_folder import MARKERS, StepInfo, StepManifest, read_manifest, sums
from kun.progress import bar
from kun.records import Raw, record_type
from kun.store import digests, shards
from kun.verify.part import Problem, ShardCheck, ShardSource, check_some, hash_id, ids_of
from kun.verify.steps import Key, StepFolder, find

BATCH = 16  # shards of one task
WORTH_PROCESSES = 100  # tasks
LEFT_OUT = "not here: left out, or removed"
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
    info: StepInfo | None = None


def verify(run: Path, workers: int = 0) -> list[Finding]:
    """Every step that a plain name stands for, in the order of the pipeline."""
    steps, known = find(run)
    manifests = {key: _manifest(folder) for key, folder in known.items()}
    sharded = [step for step in steps if step.makes_records and step.folder.is_dir() and not step.misled]
    found = dict(_check_shards(sharded, known, manifests, workers))
    for step in steps:
        if step.misled:
            found[step.name] = Finding(step.name, "bad", step.folder, StepManifest(), step.problems, info=step.info)
        elif step.name not in found:
            found[step.name] = _build(step, manifests)
    return [*_missing_steps(run, steps), *(found[step.name] for step in steps)]


def _check_shards(
    steps: Sequence[StepFolder], known: Mapping[Key, Path], manifests: Mapping[Key, StepManifest | None], workers: int
) -> Iterator[tuple[str, Finding]]:
    """The findings of steps of shards, each as soon as its last shard was looked at."""
    sources = {step.folder: _source_of_shards(step, known, manifests) for step in steps}
    waiting: dict[Path, list[ShardCheck]] = {step.folder: [] for step in steps}
    keys = {step.folder: _keys(step, manifests) for step in steps}
    places = {folder: {key: place for place, key in enumerate(found)} for folder, found in keys.items()}
    by_folder = {step.folder: step for step in steps}

    def close(folder: Path) -> tuple[str, Finding]:
        checks = sorted(
            waiting.pop(folder), key=lambda one: places[folder][one.key]
        )  # their markers are not needed more
        step = by_folder[folder]
        return step.name, _records(step, sources[folder], checks, manifests)

    yield from [close(folder) for folder, found in keys.items() if not found]
    tasks = [
        (sources[folder], found[first : first + BATCH])
        for folder, found in keys.items()
        for first in range(0, len(found), BATCH)
    ]
    done, total = 0, sum(map(len, keys.values()))
    with bar("verify", "shards", total) as progress:
        for folder, checks in map_unordered(check_some, tasks, workers if len(tasks) >= WORTH_PROCESSES else 1):
            waiting[folder] += checks
            progress(done := done + len(checks), total)
            if len(waiting[folder]) == len(keys[folder]):
                yield close(folder)


def _missing_steps(run: Path, steps: Sequence[StepFolder]) -> Iterator[Finding]:
    """The steps that another one reads, and that have no plain name any more. Models may be left out, records not."""
    there = {step.name for step in steps}
    readers = {name: step for step in steps for name in step.needs}
    for name, reader in sorted(readers.items()):
        if name in there:
            continue
        is_source = reader.source is not None and reader.source[0] == name and reader.info.role != "ingest"
        if is_source and reader.makes_records:
            problem = Problem(".", f"is not here, and {reader.name} was made from it")
            yield Finding(name, "bad", run / name, StepManifest(), [problem])
        else:
            yield Finding(name, "absent", run / name, StepManifest(), notes=[LEFT_OUT])


def _manifest(folder: Path) -> StepManifest | None:
    """What the marker says; one that cannot be read is told of where its own step is looked at."""
    try:
        return read_manifest(folder)
    except OSError:
        return None


def _keys(step: StepFolder, manifests: Mapping[Key, StepManifest | None]) -> list[str]:
    """The shards that there should be; of an ingest that is not finished, those that are."""
    above = manifests.get(step.source) if step.source else None
    if step.manifest is not None:
        return step.manifest.shards
    return above.shards if above is not None and above.shards else sorted(shards.finished(step.folder))


def _contents(step: StepFolder, manifests: Mapping[Key, StepManifest | None], first: int = 0) -> dict[str, str] | None:
    """What the steps that it reads hold, by name, from the `first` on; None where that is not known."""
    needs = list(step.needs.items())[first:]
    found = {need[0]: one.content for need in needs if (one := manifests.get(need)) is not None}
    return found if len(found) == len(needs) and step.known else None


def _source_of_shards(
    step: StepFolder, known: Mapping[Key, Path], manifests: Mapping[Key, StepManifest | None]
) -> ShardSource:
    """Where a step's shards are, and what each was made from (kun.pipeline.runner)."""
    reads, writes = record_type(step.info.reads) or Raw, record_type(step.info.writes) or Raw
    if step.info.role == "ingest":
        return ShardSource(step.folder, reads, writes, others=_contents(step, manifests), hash_ids=True)
    folder = known.get(step.source) if step.source else None
    return ShardSource(step.folder, reads, writes, folder, _contents(step, manifests, first=1))


def _records(
    step: StepFolder, source: ShardSource, checks: list[ShardCheck], manifests: Mapping[Key, StepManifest | None]
) -> Finding:
    """The finding of a step of shards, all of which were looked at."""
    markers = {one.key: one.marker for one in checks if one.marker is not None}
    unfinished = [one for one in checks if one.marker is None] if step.manifest is None else []
    bad = {one.key: one.problems for one in checks if one.problems and one not in unfinished}
    of_shards = [problem for problems in bad.values() for problem in problems]
    of_shards += (
        _twice(step.folder, checks) if source.hash_ids and step.manifest is not None else []
    )  # by construction of the other steps
    discard = [
        shards.part(step.folder, key, "done").name
        for key in sorted({one.shard for one in of_shards if one.shard is not None})
    ]
    problems, notes = list(step.problems), _missing(step, manifests)
    if unfinished:
        notes.append(f"{len(checks) - len(unfinished):,} of {len(checks):,} shards are there")
    if step.manifest is not None:
        if not of_shards and (wrong := _differs(step.manifest, markers)):
            problems.append(Problem("done.json", wrong))
            discard.append(ALL)  # which of them is the wrong one cannot be told
        if step.manifest.failed:
            notes.append(f"{step.manifest.failed:,} failed records, which the next run tries again")
        problems += _source(step, manifests)
        index = manifests.get(step.source) if step.source and source.hash_ids else None
        if index is not None and index.report.get("rows", step.manifest.rows) != step.manifest.rows:
            said = f"{step.manifest.rows:,} rows, and the index of the corpus has {index.report['rows']:,}"
            problems.append(Problem("done.json", said))
    counts = sums(markers, {})
    return _finding(step, counts, problems + of_shards, notes, discard)


def _differs(manifest: StepManifest, markers: Mapping[str, shards.ShardManifest]) -> str | None:
    """What done.json says of all shards and their markers do not."""
    counted = sums(markers, manifest.source)
    for name in ("rows", "kept", "rejected", "failed", "content", "files"):
        if getattr(manifest, name) != getattr(counted, name):
            said = "the digest of all shards" if name in ("content", "files") else f"{name} {getattr(manifest, name)}"
            return f"{said} is not what the markers add up to; which of them is wrong cannot be told"
    return None


def _source(step: StepFolder, manifests: Mapping[Key, StepManifest | None]) -> list[Problem]:
    contents = _contents(step, manifests)
    if step.manifest is None or contents is None:
        return []
    if all(step.manifest.source.get(name) == content for name, content in contents.items()):
        return []
    return [Problem("done.json", f"was made from other content than {' and '.join(step.needs) or 'nothing'} hold now")]


def _missing(step: StepFolder, manifests: Mapping[Key, StepManifest | None]) -> list[str]:
    gone = [name for name, digest in step.needs.items() if manifests.get((name, digest)) is None]
    return [f"not checked against {', '.join(gone)}: not here, or not finished"] if gone else []


def _twice(folder: Path, checks: list[ShardCheck]) -> list[Problem]:
    """Ids that come twice in the step. Hashes first; only where two are equal the ids themselves are read again."""
    hashes = np.concatenate([np.frombuffer(one.ids, "<u8") for one in checks]) if checks else np.empty(0, "<u8")
    hashes.sort()
    again = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    problems: list[Problem] = []
    met: set[str] = set()
    for one in checks if again else ():
        for identity in ids_of(folder, one.key):
            if int.from_bytes(hash_id(identity), "little") in again:
                if identity in met:
                    name = shards.part(folder, one.key).name
                    problems.append(Problem(name, f"the id {identity} came before", one.key))
                met.add(identity)
    return problems


def _build(step: StepFolder, manifests: Mapping[Key, StepManifest | None]) -> Finding:
    """The finding of a model or an index, or of records that are not here."""
    manifest = step.manifest or StepManifest()
    if step.makes_records:
        problem = Problem(".", "is not here: its plain name leads nowhere")
        return Finding(step.name, "bad", step.folder, manifest, [problem], info=step.info)
    files = [path.name for path in step.folder.rglob("*") if path.is_file() and path.name not in MARKERS]
    if not files or (step.info.role == "model" and not any(name.endswith(".safetensors") for name in files)):
        return Finding(step.name, "absent", step.folder, manifest, notes=[LEFT_OUT], info=step.info)
    problems, discard = list(step.problems), []
    if step.manifest is not None:
        wrong = _other_files(step.folder, manifest.content)
        problems += wrong
        discard += ["."] if wrong else []
        problems += _source(step, manifests)
    return _finding(step, manifest, problems, _missing(step, manifests), discard)


def _other_files(folder: Path, content: str) -> list[Problem]:
    try:
        if digests.of_folder(folder, leave_out=MARKERS) != content:
            return [Problem(".", "the files are not those that were made: another digest")]
    except OSError as error:
        return [Problem(".", f"a file cannot be read ({error})")]
    return []


def _finding(
    step: StepFolder, counts: StepManifest, problems: list[Problem], notes: list[str], discard: list[str]
) -> Finding:
    again = [
        problem for problem in problems if not (not step.known and problem.file == "fingerprint.json")
    ]  # is written anew
    if again and "." not in discard and (step.folder / "done.json").exists():
        discard = [*discard, "done.json"]
    state = "bad" if problems else "ok"
    return Finding(step.name, state, step.folder, counts, problems, notes, discard, step.info)
