"""Runs the pending work of a stage's steps: `run_stage(stage, run, workers=2, force=False)`.

Every record of every shard ends kept, rejected or failed. A shard is published whole, in the order of its input; of a
published shard only the failed records are ever asked again.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
log = logging.getLogger(__name__)
LOGGED_FAILURES = 3  # tracebacks of one place in the code


@dataclass(frozen=True)
class Pending:
    """A shard that is not done. `source` is the digest of its input; `retry`: only its failed records are pending."""

    index: int
    rows: int
    source: str
    retry: bool


@dataclass(frozen=True)
class Job:
    """One pending shard. `settled` has the outcomes of an earlier run, if only failed records are asked again."""

    step: Step
    folder: Path
    index: int
    records: Sequence[Raw]
    source: str
    settled: dict[str, Outcome]


def run_stage(stage: Stage, run: RunFolder, workers: int = 1, force: bool = False) -> list[Step]:
    """Bring every step of the stage up to date; returns the steps that had something to do.

    InputError if a step that one of them reads is not complete. With `force` all steps are made again, and keep what
    they hold until that is done.
    """
    pending = [step for step in stage.steps if force or is_pending(run, step)]
    for step in stage.steps:
        if step not in pending:
            run.show(step)
    if pending:
        _check_needs(run, pending)
        with run.anew(pending) if force else nullcontext():
            for step in pending:
                run.begin(step)
            _work(stage, pending, run, workers)
    return pending


def with_repair(work: Callable[[], T], stages: Sequence[Stage], run: RunFolder, workers: int = 1) -> T:
    """`work()`; if it meets a damaged shard, have the one of `stages` that wrote it make it again, and retry.
    DamagedError if a shard is damaged again after that."""
    repaired: set[Path] = set()
    while True:
        try:
            return work()
        except DamagedError as damage:
            if damage.path in repaired:
                raise
            repaired.add(damage.path)
            log.warning("%s: the shard is %s: it is made again", damage.path, damage.why)
            damage.withdraw()
            made_by = [
                (one, step) for one in stages for step in one.steps if run.folder(step).resolve() == damage.folder
            ]
            for stage, step in made_by:  # one; none for what --force is making: the next try makes that again
                with_repair(partial(run_stage, replace(stage, steps=(step,)), run, workers), stages, run, workers)


def is_pending(run: RunFolder, step: Step) -> bool:
    manifest = run.current(step)
    return manifest is None or manifest.failed > 0 or len(shards.finished(run.folder(step))) < manifest.shards


def _check_needs(run: RunFolder, pending: list[Step]) -> None:
    """InputError if a step that they read is not complete, or its model or index is damaged."""
    needs = {need.name: (need, step) for step in pending for need in step.needs if need not in pending}
    for need, step in needs.values():
        if run.current(need) is None:
            why = ", ".join(run.why_stale(need))
            state = f"is stale ({why})" if why else "is not complete"
            raise InputError(
                f"{step.name} reads {need.name}, which {state}; run {need.command} first, with the same settings"
            )
        run.check(need)


def _work(stage: Stage, steps: list[Step], run: RunFolder, workers: int) -> None:
    match stage.work:
        case Build():
            _run_build(stage, stage.work, steps, run)
        case Ingest():
            _run_ingest(stage, stage.work, steps, run, workers)
        case Map():
            _run_map(stage, stage.work, steps, run, workers)
        case Infer():
            _run_infer(stage, stage.work, steps, run)


def _run_build(stage: Stage, work: Build, steps: list[Step], run: RunFolder) -> None:
    for step in steps:
        start = time.monotonic()
        with bar(f"{stage.command} {step.name}", work.unit) as progress, atomic.naming_a_full_disk(run.folder(step)):
            report = work.build(run.context(step), progress)
        seconds, content = round(time.monotonic() - start, 3), run.content(step)
        run.finish(step, StepManifest(content=content, source=_source(run, step), seconds=seconds, report=dict(report)))


def _run_ingest(stage: Stage, work: Ingest, steps: list[Step], run: RunFolder, workers: int) -> None:
    tasks: list[tuple[Any, ...]] = []
    counts = {step.name: 0 for step in steps}  # shards
    done = total = 0
    for step in steps:
        folder, source = run.folder(step), _source(run, step)
        shard_rows = work.shard_rows(run.context(step).settings)
        for unit, items in work.units(run.context(step)):
            first = counts[step.name]
            counts[step.name] += -(-items // shard_rows)
            markers = [shards.marker(folder, index) for index in range(first, counts[step.name])]
            finished = [marker.rows for marker in markers if marker is not None and marker.source == source]
            done, total = done + sum(finished), total + items
            if sum(finished) < items:
                tasks.append((shard_rows, folder, unit, items, first, source))
    with bar(f"{stage.command} {stage.name}", "rows", total) as progress:
        progress(done, total)
        for rows in map_unordered(partial(_ingest_unit, work.items), tasks, workers, total - done):
            progress(done := done + rows, total)
    for step in steps:
        _finish(run, step, counts[step.name])


def _ingest_unit(
    items_of: Callable[[Any], Iterator[tuple[Raw, Outcome]]],
    shard_rows: int,
    folder: Path,
    unit: Any,
    expected: int,
    first: int,
    source: str,
) -> int:
    """Read a unit and publish its missing shards; returns the number of published rows."""
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
    functions = {step.name: work.open(run.context(step)) for step in steps if pending[step.name]}
    tasks = [
        (step.name, run.folder(step.needs[0]), run.folder(step), shard.index, stage.spec.reads, shard.source)
        for step in steps
        for shard in pending[step.name]
    ]
    records = sum(shard.rows for missing in pending.values() for shard in missing)
    with _rows(stage, run, pending) as advance:
        for rows in map_unordered(partial(_map_shard, functions), tasks, workers, records):
            advance(rows)
    _finish_all(run, steps)


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
    """The outcomes of a shard. If the function raises, it is called record by record: one bad record is one failure."""
    try:
        return function(records)
    except KunError:
        raise
    except Exception:
        return [_guarded(lambda record: function([record])[0], record) for record in records]


def _run_infer(stage: Stage, work: Infer, steps: list[Step], run: RunFolder) -> None:
    pending = {step.name: _pending_shards(run, step) for step in steps}
    if any(pending.values()):
        with _rows(stage, run, pending) as advance:
            engine = work.engine(run.folder)
            jobs = _jobs(stage, steps, pending, run)
            tasks = {step.name: work.task(run.context(step), engine) for step in steps if pending[step.name]}
            _ask_and_publish(jobs, tasks, engine, advance)
    _finish_all(run, steps)


def _jobs(stage: Stage, steps: list[Step], pending: dict[str, list[Pending]], run: RunFolder) -> Iterator[Job]:
    for step in steps:
        folder = run.folder(step)
        for shard in pending[step.name]:
            settled = shards.outcomes(folder, shard.index, stage.spec.writes) if shard.retry else {}
            records = shards.read_kept(run.folder(step.needs[0]), shard.index, stage.spec.reads)
            yield Job(step, folder, shard.index, records, shard.source, settled)


def _ask_and_publish(
    jobs: Iterator[Job], tasks: dict[str, InferenceTask], engine: Any, advance: Callable[[int], None]
) -> None:
    """Stream the requests of all shards through the engine; publish each shard when its last answer arrives."""
    open_jobs: deque[tuple[Job, list[Request | Outcome]]] = deque()

    def groups() -> Iterator[list[Request]]:
        for job in jobs:
            task = tasks[job.step.name]
            asked = [job.settled.get(record.id) or _guarded(task.ask, record) for record in job.records]
            requests = [item for item in asked if isinstance(item, Request)]
            open_jobs.append((job, asked))
            advance(len(asked) - len(requests))
            yield requests

    start = time.monotonic()
    for answers in engine.run(groups(), advance):
        job, asked = open_jobs.popleft()
        outcomes = _outcomes(job, asked, iter(answers), tasks[job.step.name])
        seconds = time.monotonic() - start
        shards.publish(job.folder, job.index, outcomes, rows=len(job.records), source=job.source, seconds=seconds)
        start = time.monotonic()


def _outcomes(
    job: Job, asked: list[Request | Outcome], answers: Iterator[Answer], task: InferenceTask
) -> Iterator[tuple[Raw, Outcome]]:
    for record, item in zip(job.records, asked, strict=True):
        if not isinstance(item, Request):
            yield record, item
            continue
        answer = next(answers)
        if isinstance(answer, Failure):
            yield record, Failed(answer.error)
        else:
            yield record, _guarded(task.accept, record, answer)


def _guarded(function: Callable[..., Any], record: Raw, *more: Any) -> Any:
    """One bad record never ends a run: an error in a stage's function is a failure of the record."""
    try:
        return function(record, *more)
    except KunError:
        raise
    except Exception as error:
        _log_failure(record, error)
        return Failed(f"{type(error).__name__}: {error}")


def _log_failure(record: Raw, error: Exception) -> None:
    """Log the traceback of the first few records that fail at the same place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    _failures[place.filename, place.lineno or 0] += 1
    if _failures[place.filename, place.lineno or 0] <= LOGGED_FAILURES:
        log.info("record %s failed", record.id, exc_info=error)


_failures: Counter[tuple[str, int]] = Counter()  # of this process, by file and line


def _pending_shards(run: RunFolder, step: Step, of_the_whole: bool = False) -> list[Pending]:
    """The shards that are not done. `of_the_whole`: each depends on all shards of the source, as through a percentile,
    so that a change in one makes all pending."""
    source_folder, folder = run.folder(step.needs[0]), run.folder(step)
    above_all = run.current(step.needs[0])
    assert above_all is not None
    others = [other.content for need in step.needs[1:] if (other := run.current(need))]
    others += [above_all.content] if of_the_whole else []
    pending = []
    for index in range(above_all.shards):
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
    """A progress bar over the rows of all steps; yields `advance(rows)`. Published shards count as done."""
    steps = [step for step in stage.steps if step.name in pending]
    total = sum(manifest.kept for step in steps if (manifest := run.current(step.needs[0])))
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


def _finish_all(run: RunFolder, steps: list[Step]) -> None:
    """Finish steps that have a shard for each one of their source."""
    for step in steps:
        above = run.current(step.needs[0])
        assert above is not None
        rows = _finish(run, step, above.shards)
        assert rows == above.kept, f"{step.name}: {above.kept} rows in, {rows} accounted for"


def _finish(run: RunFolder, step: Step, count: int) -> int:
    """Write the marker of a step of `count` shards; returns their rows."""
    manifest = summarise([shards.marker(run.folder(step), index) for index in range(count)], _source(run, step))
    run.finish(step, manifest)
    return manifest.rows
