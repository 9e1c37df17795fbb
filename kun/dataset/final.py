"""The data set that a pipeline ends in: `assemble(run, stage, config, funnel, known)` fills `runs/<name>/final/`.

One `<subset>.jsonl` per subset with the fields that the stage declares, `lineage.parquet` with all else about each row,
and the card `README.md`. The folder appears whole, and loads by `datasets.load_dataset(folder, "wudao")`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kun.config.schema import Config
from kun.dataset import lineage
from kun.dataset.card import CARD, Card, PersonalData, read_card, render_card
from kun.dataset.lineage import LINEAGE
from kun.filters.privacy.rules import MEANINGS, PLACEHOLDERS
from kun.pipeline.run_folder import RunFolder, StepManifest
from kun.pipeline.stage import Output, Stage, Step
from kun.pipeline.status import Final, State
from kun.records import Raw
from kun.store import atomic, digests, shards
from kun.store.digests import Digests


def is_current(run: RunFolder, stage: Stage, known: Digests) -> bool:
    """Whether the data set holds what the steps that are complete hold now, in files that are as the card says."""
    done = _done(run, stage)
    folder = _folder(run, stage, done)
    if not done or _link(run, stage).resolve() != folder.resolve() or not (folder / CARD).is_file():
        return False
    names = [*(f"{step.part}.jsonl" for step in done), LINEAGE]
    if not all((folder / name).is_file() for name in names):
        return False
    present = known.files([folder / name for name in names], "run")
    return read_card(folder) == Card(frozenset(zip(names, present, strict=True)))


def final_states(run: RunFolder, stages: Sequence[Stage], known: Digests, funnel: Sequence[State]) -> list[Final]:
    """What there is of the data sets that these stages end in, without a change to them."""
    return [_final_state(run, stage, known, funnel) for stage in with_output(stages)]


def with_output(stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose records are the rows of a data set."""
    return [stage for stage in stages if stage.spec.output is not None]


def _final_state(run: RunFolder, stage: Stage, known: Digests, funnel: Sequence[State]) -> Final:
    folder = _link(run, stage)
    if not folder.is_dir():
        return Final(folder.name, stage.command, "missing")
    rows = lineage.count(folder)
    if any(state.condition == "blocked" for state in funnel):
        return Final(folder.name, stage.command, "blocked", rows)
    return Final(folder.name, stage.command, "current" if is_current(run, stage, known) else "stale", rows)


def _output(stage: Stage) -> Output:
    assert stage.spec.output is not None
    return stage.spec.output


def _link(run: RunFolder, stage: Stage) -> Path:
    return run.path / _output(stage).folder


def _done(run: RunFolder, stage: Stage) -> dict[Step, StepManifest]:
    return {step: manifest for step in stage.steps if (manifest := run.current(step)) is not None}


def _folder(run: RunFolder, stage: Stage, done: dict[Step, StepManifest]) -> Path:
    content = [
        [step.name, run.fingerprint(step).digest, one.failed, [_files(run, above) for above in _sources(step)]]
        for step, one in done.items()
    ]
    return run.store / f"{_output(stage).folder}-{digests.of_value(content)[:16]}"


def _sources(step: Step) -> list[Step]:
    """The step, and those above it whose records it adds to."""
    is_first = not step.needs or step.spec.role == "ingest"
    return [step] if is_first else [step, *_sources(step.needs[0])]


def _files(run: RunFolder, step: Step) -> str:
    manifest = run.current(step)
    return manifest.files if manifest else ""


def assemble(run: RunFolder, stage: Stage, config: Config, funnel: Sequence[State], known: Digests) -> bool:
    """Bring the data set up to date with the subsets that are complete; False where it is already, or none is."""
    done = _done(run, stage)
    if not done or is_current(run, stage, known):
        return False
    output, folder = _output(stage), _folder(run, stage, done)
    atomic.discard(folder)
    building = atomic.temporary_of(folder)
    building.mkdir(parents=True)
    kinds = _kinds(config, list(done))
    personal: dict[str, Counter[str]] = {"masked": Counter(), "shown": Counter()}
    made_by = {step.name: run.fingerprint(step).parts for step in _with_needs(list(done))}
    contents = lineage.Contents({step.part: step.name for step in done}, output.fields)
    lineage.write(building / LINEAGE, contents, made_by, _write_rows(run, done, output, building, kinds, personal))
    files = {path.name: digests.of_file(path) for path in building.iterdir()}
    rows = {step.part: manifest.kept for step, manifest in done.items()}
    found = _personal_data(kinds, personal, funnel)
    atomic.write(building / CARD, render_card(config, output, rows, files, funnel, found).encode())
    building.rename(folder)
    atomic.sync(run.store)
    atomic.point(_link(run, stage), folder)
    for old in run.store.glob(f"{output.folder}-{'[0-9a-f]' * 16}"):
        if old != folder:
            shutil.rmtree(old)
    return True


def row(record: Raw, fields: Sequence[str]) -> bytes:
    """The line of a record in `<subset>.jsonl`."""
    return msgspec.json.encode({name: getattr(record, name) for name in fields}) + b"\n"


def _write_rows(
    run: RunFolder,
    done: dict[Step, StepManifest],
    output: Output,
    building: Path,
    kinds: Sequence[str],
    personal: dict[str, Counter[str]],
) -> Iterator[list[dict[str, Any]]]:
    """Write `<subset>.jsonl`, count personal data, and yield the rows of the lineage, those of a shard at a time."""
    for step, manifest in done.items():
        line = 0
        with atomic.replacing(building / f"{step.part}.jsonl") as file:
            for key in manifest.shards:
                records = shards.read_kept(run.folder(step), key, step.spec.writes)
                file.writelines(row(record, output.fields) for record in records)
                for record in records:
                    personal["masked"].update(getattr(record, "cleaned", ()))
                    written = str(getattr(record, output.fields[-1]))
                    personal["shown"].update(kind for kind in kinds if any(w in written for w in PLACEHOLDERS[kind]))
                yield [lineage.row(record, at) for at, record in enumerate(records, line + 1)]
                line += len(records)


def _with_needs(steps: list[Step]) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps:
        found |= {need.name: need for need in _with_needs(list(step.needs))}
        found[step.name] = step
    return list(found.values())


def _kinds(config: Config, steps: Sequence[Step]) -> list[str]:
    """The kinds of personal data that are looked for."""
    settings = [config.of_subset(step.part).filter.privacy for step in steps]
    return [kind for kind in PLACEHOLDERS if any(getattr(own, kind) for own in settings)]


def _personal_data(
    kinds: Sequence[str], counted: dict[str, Counter[str]], funnel: Sequence[State]
) -> list[PersonalData]:
    """What became of each kind."""
    dropped = Counter[str]()
    for state in funnel:
        dropped.update({kind: state.counts.rejected.get(kind, 0) for kind in kinds})
    return [
        PersonalData(kind, MEANINGS[kind], counted["masked"][kind], counted["shown"][kind], dropped[kind])
        for kind in kinds
    ]
