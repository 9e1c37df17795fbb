"""The data set that a run ends in: `assemble(run, polished_steps, config, funnel, known)` fills `runs/<name>/final/`.

One `<subset>.jsonl` of `instruction` and `output` per subset, `lineage.parquet` with everything else about each row,
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
from kun.pipeline.stage import Step
from kun.pipeline.status import Final, State
from kun.records import Polished
from kun.store import atomic, digests, shards
from kun.store.digests import Digests


def is_current(run: RunFolder, polished: Sequence[Step], known: Digests) -> bool:
    """Whether `final/` holds what the steps that are complete hold now, in files that are as the card says."""
    done = _done(run, polished)
    folder = _folder(run, done)
    if not done or (run.path / "final").resolve() != folder.resolve() or not (folder / CARD).is_file():
        return False
    names = [*(f"{step.part}.jsonl" for step in done), LINEAGE]
    if not all((folder / name).is_file() for name in names):
        return False
    present = known.files([folder / name for name in names], "run")
    return read_card(folder) == Card(frozenset(zip(names, present, strict=True)))


def final_state(run: RunFolder, polished: Sequence[Step], known: Digests, funnel: Sequence[State]) -> Final:
    """What there is of `final/`, without a change to it."""
    if not (run.path / "final").is_dir():
        return Final("missing")
    rows = lineage.count(run.path / "final")
    if any(state.condition == "blocked" for state in funnel):
        return Final("blocked", rows)
    return Final("current" if is_current(run, polished, known) else "stale", rows)


def _done(run: RunFolder, polished: Sequence[Step]) -> dict[Step, StepManifest]:
    return {step: whole for step in polished if (whole := run.whole(step)) is not None}


def _folder(run: RunFolder, done: dict[Step, StepManifest]) -> Path:
    content = [[step.name, run.fingerprint(step).digest, whole.content, whole.failed] for step, whole in done.items()]
    return run.store / f"final-{digests.of_value(content)[:16]}"


def assemble(run: RunFolder, polished: Sequence[Step], config: Config, funnel: list[State], known: Digests) -> bool:
    """Bring `final/` up to date with the subsets that are complete; False where it is already, or none is."""
    done = _done(run, polished)
    if not done or is_current(run, polished, known):
        return False
    folder = _folder(run, done)
    atomic.discard(folder)
    building = atomic.temporary_of(folder)
    building.mkdir(parents=True)
    for step in done:
        with atomic.replacing(building / f"{step.part}.jsonl") as file:
            file.writelines(row(record) for records in _shards(run, done, step) for record in records)
    made_by = {step.name: run.fingerprint(step).parts for step in _with_needs(list(done))}
    lineage.write(building / LINEAGE, made_by, _lineage_rows(run, done))
    files = {path.name: digests.of_file(path) for path in building.iterdir()}
    rows = {step.part: whole.kept for step, whole in done.items()}
    card = render_card(config, rows, files, funnel, _personal_data(run, done, config, funnel))
    atomic.write(building / CARD, card.encode())
    building.rename(folder)
    atomic.sync_folder(run.store)
    atomic.point(run.path / "final", folder)
    for old in run.store.glob("final-*"):
        if old != folder:
            shutil.rmtree(old)
    return True


def _shards(run: RunFolder, done: dict[Step, StepManifest], step: Step) -> Iterator[list[Polished]]:
    for index in range(done[step].shards):
        yield shards.read_kept(run.folder(step), index, Polished)


def row(record: Polished) -> bytes:
    """The line of a record in `<subset>.jsonl`."""
    return msgspec.json.encode({"instruction": record.instruction, "output": record.output}) + b"\n"


def _lineage_rows(run: RunFolder, done: dict[Step, StepManifest]) -> Iterator[list[dict[str, Any]]]:
    """The rows of the lineage, those of a shard at a time."""
    for step in done:
        line = 0
        for records in _shards(run, done, step):
            rows = [lineage.row(record, at) for at, record in enumerate(records, line + 1)]
            line += len(rows)
            yield rows


def _with_needs(steps: list[Step]) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps:
        found |= {need.name: need for need in _with_needs(list(step.needs))}
        found[step.name] = step
    return list(found.values())


def _personal_data(
    run: RunFolder, done: dict[Step, StepManifest], config: Config, funnel: list[State]
) -> list[PersonalData]:
    """What became of each kind of personal data that is looked for."""
    settings = [config.of_subset(step.part).filter.privacy for step in done]
    kinds = [kind for kind in PLACEHOLDERS if any(getattr(own, kind) for own in settings)]
    if not kinds:
        return []
    masked, shown, dropped = Counter[str](), Counter[str](), Counter[str]()
    for step in done:
        for records in _shards(run, done, step):
            for record in records:
                masked.update(record.cleaned)
                shown.update(kind for kind in kinds if any(word in record.output for word in PLACEHOLDERS[kind]))
    for state in funnel:
        dropped.update({kind: state.counts.rejected.get(kind, 0) for kind in kinds})
    return [PersonalData(kind, MEANINGS[kind], masked[kind], shown[kind], dropped[kind]) for kind in kinds]
