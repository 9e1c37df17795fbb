"""Runs the steps of a stage over what is pending: `run_stage(stage, run, workers=2, force=False)`.

Every record of every shard ends kept, rejected or failed. A shard is published whole, in the order of its input; what
is published is never asked again, except the failed records.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from kun.engines.base import Answer, Failure, Request
from kun.errors import InputError, KunError
from kun.execution.processes import map_unordered
from kun.pipeline.run_folder import RunFolder, StepManifest, summarise
from kun.pipeline.stage import Build, Infer, InferenceTask, Ingest, Map, Stage, Step
from kun.progress import bar
from kun.records import Raw
from kun.store import atomic, digests, shards
from kun.store.shards import DamagedError, Failed, Outcome

T = TypeVar("T")


@dataclass(frozen=True)
class Pending:
    """A shard that is not done. `source` digests its input; `retry`: only its failed records are asked again."""

    index: int
    rows: int
    source: str
    retry: bool


@dataclass(frozen=True)
class Job:
    """One pending shard. `settled` holds what an earlier run decided, where only failed records are asked again."""

    step: Step
    folder: Path
    index: int
    records: Sequence[Raw]
    source: str
    settled: dict[str, Outcome]


def run_stage(stage: Stage, run: RunFolder, workers: int = 1, force: bool = False) -> list[Step]:
    """Bring every step of the stage up to date; the steps that there was something to do for.

    InputError where a step that this one reads is not complete. With `force` what is there is thrown away once the
    engine, if one is needed, could be opened.
    """
    pending = [step for step in stage.steps if force or _pending(run, step)]
    for step in stage.steps:
        if step not in pending:
            run.show(step)
    if not pending:
        return []
    for step in pending:
        _check_needs(run, step, pending)
    for need in {need.name: need for step in pending for need in step.needs if need not in pending}.values():
        run.check(need)
    if force and isinstance(stage.work, Infer):
        stage.work.engine(run.folder)
    for step in pending:
        if force:
            atomic.discard(run.folder(step))
        run.begin(step)
    match stage.work:
        case Build():
            _run_build(stage, stage.work, pending, run)
        case Ingest():
            _run_ingest(stage, stage.work, pending, run, workers)
        case Map():
            _run_map(stage, stage.work, pending, run, workers)
        case Infer():
            _run_ask(stage, stage.work, pending, run)
    return pending


def with_repair(work: Callable[[], T], stages: Sequence[Stage], run: RunFolder, workers: int = 1) -> T:
    """`work()`, and again each time after a damaged shard that it met was made again by the one of `stages` that wrote
    it. DamagedError where a shard is damaged as soon as it is made."""
    made: set[Path] = set()
    while True:
        try:
            return work()
        except DamagedError as damage:
            if damage.path in made:
                raise
            made.add(damage.path)
            print(f"{damage.path}: the shard is {damage.why}: it is made again", file=sys.stderr)
            damage.withdraw()
            ((stage, step),) = [
                (s, step) for s in stages for step in s.steps if run.folder(step).resolve() == damage.folder
            ]
            with_repair(partial(run_stage, replace(stage, steps=(step,)), run, workers), stages, run, workers)


def _pending(run: RunFolder, step: Step) -> bool:
    whole = run.whole(step)
    return whole is None or whole.failed > 0 or len(shards.finished(run.folder(step))) < whole.shards


def _check_needs(run: RunFolder, step: Step, pending: list[Step]) -> None:
    for need in step.needs:
        if need in pending or run.whole(need) is not None:  # builds are made one after the other
            continue
        why = ", ".join(run.why_stale(need))
        state = f"is stale ({why})" if why else "is not complete"
        raise InputError(
            f"{step.name} reads {need.name}, which {state}; run {need.command} first, with the same settings"
        )


def _run_build(stage: Stage, work: Build, steps: list[Step], run: RunFolder) -> None:
    for step in steps:
        start = time.monotonic()
        with (
            bar(f"{stage.command} {step.name}", work.unit) as progress,
            atomic.naming_a_full_disk(run.folder(step)),
        ):
            report = work.build(step, run.folder(step), run.folder, progress)
        seconds = round(time.monotonic() - start, 3)
        whole = StepManifest(content=run.content(step), source=_source(run, step), seconds=seconds, report=dict(report))
        run.finish(step, whole)


def _run_ingest(stage: Stage, work: Ingest, steps: list[Step], run: RunFolder, workers: int) -> None:
    tasks: list[tuple[Any, ...]] = []
    counts = {step.name: 0 for step in steps}  # shards
    done = total = 0
    for step in steps:
        folder, source = run.folder(step), _source(run, step)
        for unit, items in work.units(step, run.folder):
            first = counts[step.name]
            counts[step.name] += -(-items // work.shard_rows)
            markers = [shards.marker(folder, index) for index in range(first, counts[step.name])]
            finished = [marker.rows for marker in markers if marker is not None and marker.source == source]
            done, total = done + sum(finished), total + items
            if sum(finished) < items:
                tasks.append((folder, unit, items, first, source))
    with bar(f"{stage.command} {stage.name}", "rows", total) as progress:
        progress(done, total)
        for rows in map_unordered(partial(_ingest_unit, work.items, work.shard_rows), tasks, workers):
            progress(done := done + rows, total)
    for step in steps:
        made = [shards.marker(run.folder(step), index) for index in range(counts[step.name])]
        run.finish(step, summarise([marker for marker in made if marker is not None], _source(run, step)))


def _ingest_unit(
    items_of: Callable[[Any], Iterator[tuple[Raw, Outcome]]],
    shard_rows: int,
    folder: Path,
    unit: Any,
    expected: int,
    first: int,
    source: str,
) -> int:
    """Read a unit and publish those of its shards that are missing; the rows that were published."""
    items, published, read = items_of(unit), 0, 0
    for index in range(first, first + -(-expected // shard_rows)):
        start = time.monotonic()
        piece = list(islice(items, shard_rows))
        read += len(piece)
        marker = shards.marker(folder, index)
        if marker is None or marker.source != source:
            seconds = time.monotonic() - start
            shards.publish(folder, index, piece, rows=len(piece), source=source, seconds=seconds)
            published += len(piece)
    if read < expected:
        raise InputError(f"{folder.name}: a file of the corpus changed while it was read; run the same command again")
    return published


def _run_map(stage: Stage, work: Map, steps: list[Step], run: RunFolder, workers: int) -> None:
    pending = {step.name: _pending_shards(run, step, of_the_whole=True) for step in steps}
    functions = {step.name: work.open(step, run.folder) for step in steps if pending[step.name]}
    tasks = [
        (step.name, run.folder(step.needs[0]), run.folder(step), shard.index, work.reads, shard.source)
        for step in steps
        for shard in pending[step.name]
    ]
    with _rows(stage, run, pending) as advance:
        for rows in map_unordered(partial(_map_shard, functions), tasks, workers):
            advance(rows)
    for step in steps:
        _finish(run, step)


def _map_shard(
    functions: dict[str, Any], name: str, source_folder: Path, folder: Path, index: int, reads: type[Raw], source: str
) -> int:
    start = time.monotonic()
    function = functions[name]
    records = shards.read_kept(source_folder, index, reads)
    outcomes = _map(function, records)
    seconds = time.monotonic() - start
    items = zip(records, outcomes, strict=True)
    shards.publish(folder, index, items, rows=len(records), source=source, seconds=seconds)
    return len(records)


def _map(function: Callable[[Sequence[Any]], Sequence[Outcome]], records: Sequence[Raw]) -> Sequence[Outcome]:
    """The outcomes of a shard. Where the whole raises, record by record: one bad record is one failure."""
    try:
        return function(records)
    except KunError:
        raise
    except Exception:
        return [_guarded(lambda record: function([record])[0], record) for record in records]


def _run_ask(stage: Stage, work: Infer, steps: list[Step], run: RunFolder) -> None:
    pending = {step.name: _pending_shards(run, step) for step in steps}
    if any(pending.values()):
        with _rows(stage, run, pending) as advance:
            engine = work.engine(run.folder)
            jobs = _jobs(steps, pending, work, run)
            askers = {step.name: work.asker(step, run.folder, engine) for step in steps if pending[step.name]}
            _ask_and_publish(jobs, askers, engine, advance)
    for step in steps:
        _finish(run, step)


def _jobs(steps: list[Step], pending: dict[str, list[Pending]], work: Infer, run: RunFolder) -> Iterator[Job]:
    for step in steps:
        folder = run.folder(step)
        for shard in pending[step.name]:
            settled = shards.outcomes(folder, shard.index, work.writes) if shard.retry else {}
            records = shards.read_kept(run.folder(step.needs[0]), shard.index, work.reads)
            yield Job(step, folder, shard.index, records, shard.source, settled)


def _ask_and_publish(
    jobs: Iterator[Job], askers: dict[str, InferenceTask], engine: Any, advance: Callable[[int], None]
) -> None:
    """Stream the requests of all shards through the engine; publish each shard when its last answer is in."""
    open_jobs: deque[tuple[Job, list[Request | Outcome]]] = deque()

    def groups() -> Iterator[list[Request]]:
        for job in jobs:
            asker = askers[job.step.name]
            asked = [job.settled.get(record.id) or _guarded(asker.ask, record) for record in job.records]
            requests = [item for item in asked if isinstance(item, Request)]
            open_jobs.append((job, asked))
            advance(len(asked) - len(requests))
            yield requests

    start = time.monotonic()
    for answers in engine.run(groups(), advance):
        job, asked = open_jobs.popleft()
        outcomes = _outcomes(job, asked, iter(answers), askers[job.step.name])
        seconds = time.monotonic() - start
        shards.publish(job.folder, job.index, outcomes, rows=len(job.records), source=job.source, seconds=seconds)
        start = time.monotonic()


def _outcomes(
    job: Job, asked: list[Request | Outcome], answers: Iterator[Answer], asker: InferenceTask
) -> Iterator[tuple[Raw, Outcome]]:
    for record, item in zip(job.records, asked, strict=True):
        if not isinstance(item, Request):
            yield record, item
            continue
        answer = next(answers)
        if isinstance(answer, Failure):
            yield record, Failed(answer.error)
        else:
            yield record, _guarded(asker.accept, record, answer)


def _guarded(function: Callable[..., Any], record: Raw, *more: Any) -> Any:
    """One bad record never ends a run: what a stage's function raises is the record's failure."""
    try:
        return function(record, *more)
    except KunError:
        raise
    except Exception as error:
        return Failed(f"{type(error).__name__}: {error}")


def _pending_shards(run: RunFolder, step: Step, of_the_whole: bool = False) -> list[Pending]:
    """The shards that are not done. `of_the_whole`: what a shard becomes depends on all shards of the source, as by a
    percentile or a top share, so that a change in one makes all again."""
    source_folder, folder = run.folder(step.needs[0]), run.folder(step)
    whole = run.whole(step.needs[0])
    assert whole is not None
    others = [other.content for need in step.needs[1:] if (other := run.whole(need))]
    others += [whole.content] if of_the_whole else []
    pending = []
    for index in range(whole.shards):
        above = shards.marker(source_folder, index)
        if above is None:
            raise DamagedError(shards.part(source_folder, index), "without its marker")
        here = shards.marker(folder, index)
        source = digests.of_value([above.digests["kept"], *others])
        same_input = here is not None and here.source == source
        if not (same_input and here is not None and here.failed == 0):
            pending.append(Pending(index, above.kept, source, retry=same_input))
    return pending


@contextmanager
def _rows(stage: Stage, run: RunFolder, pending: dict[str, list[Pending]]) -> Iterator[Callable[[int], None]]:
    """A bar over the rows of all steps; yields `advance(rows)`. Published shards count as done from the start."""
    steps = [step for step in stage.steps if step.name in pending]
    total = sum(whole.kept for step in steps if (whole := run.whole(step.needs[0])))
    done = total - sum(shard.rows for missing in pending.values() for shard in missing)
    with bar(f"{stage.command} {stage.name}", "rows", total) as progress:
        progress(done, total)

        def advance(rows: int) -> None:
            nonlocal done
            progress(done := done + rows, total)

        yield advance


def _source(run: RunFolder, step: Step) -> str:
    source = run.source(step)
    assert source is not None, f"{step.name}: what it needs went away while it was made"
    return source


def _finish(run: RunFolder, step: Step) -> None:
    above = run.whole(step.needs[0])
    assert above is not None
    markers = [shards.marker(run.folder(step), index) for index in range(above.shards)]
    whole = summarise([marker for marker in markers if marker is not None], _source(run, step))
    assert whole.rows == above.kept, f"{step.name}: {above.kept} rows in, {whole.rows} accounted for"
    run.finish(step, whole)
