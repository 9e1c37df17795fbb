"""Runs the pending work of a stage's steps: `run_stage(stage, run, workers=2, force=False)`.

Every record of every shard ends kept, rejected or failed. A shard is published whole, in the order of its input; of a
published shard only records that failed, or whose input changed, are ever asked again (kun/pipeline/asked_before.py).
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from kun.engines.base import Answer, Engine, Failure, Request
from kun.errors import InputError, KunError
from kun.execution.processes import map_unordered
from kun.pipeline.asked_before import AskedBefore, Pending
from kun.pipeline.run_folder import DECIDED, SHARD, RunFolder, StepManifest, summarise
from kun.pipeline.stage import Build, Infer, InferenceTask, Ingest, Map, Slice, Stage, Step
from kun.progress import bar
from kun.records import Raw
from kun.store import atomic, digests, shards
from kun.store.shards import DamagedError, Failed, Outcome

T = TypeVar("T")
log = logging.getLogger(__name__)
LOGGED_FAILURES = 3  # tracebacks of one place in the code


@dataclass(frozen=True)
class Job:
    """One pending shard of a model's step. `digests` are those of its records; `settled` has the outcomes, by id, of
    the records that were asked about before."""

    step: Step
    folder: Path
    shard: Pending
    records: Sequence[Raw]
    digests: Sequence[str]
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
            # By name first: the folders of others may not be known, as where a setting that only they need is missing.
            made_by = [
                (one, step)
                for one in stages
                for step in one.steps
                if damage.folder.name.startswith(f"{step.stage}-{step.part}-")
                and run.folder(step).resolve() == damage.folder
            ]
            for stage, step in made_by:  # one; none for what --force is making: the next try makes that again
                with_repair(partial(run_stage, replace(stage, steps=(step,)), run, workers), stages, run, workers)


def is_pending(run: RunFolder, step: Step) -> bool:
    manifest = run.current(step)
    return manifest is None or manifest.failed > 0 or not shards.finished(run.folder(step)).issuperset(manifest.shards)


def _check_needs(run: RunFolder, pending: list[Step]) -> None:
    """InputError if a step that they read is not complete, or its model or index is damaged."""
    needs = {need.name: (need, step) for step in pending for need in step.needs if need not in pending}
    for need, step in needs.values():
        if run.current(need) is None:
            why = ", ".join(run.why(need))
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
    keys: dict[str, list[str]] = {step.name: [] for step in steps}
    done = total = 0
    for step in steps:
        folder, others = run.folder(step), run.contents(step.needs)
        for unit, slices in work.units(run.context(step)):
            keys[step.name] += [one.key for one in slices]
            missing = {one.key for one in slices if not _is_done(folder, one.key, _made_from(one.source, others))}
            rows = sum(one.rows for one in slices)
            total += rows
            if missing:
                tasks.append((folder, unit, slices, missing, others))
            done += sum(one.rows for one in slices if one.key not in missing)
    with bar(f"{stage.command} {stage.name}", "rows", total) as progress:
        progress(done, total)
        for rows in map_unordered(partial(_ingest_unit, work.items), tasks, workers, total - done):
            progress(done := done + rows, total)
    for step in steps:
        _finish(run, step, keys[step.name])


def _ingest_unit(
    items_of: Callable[[Any], Iterator[tuple[Raw, Outcome]]],
    folder: Path,
    unit: Any,
    slices: Sequence[Slice],
    missing: Collection[str],
    others: Mapping[str, str],
) -> int:
    """Read a unit and publish its missing shards; returns the number of published rows."""
    items, published = items_of(unit), 0
    for one in slices:
        start = time.monotonic()
        piece = list(islice(items, one.rows))
        if len(piece) < one.rows:
            raise _other_rows(folder)
        if one.key in missing:
            seconds, source = time.monotonic() - start, _made_from(one.source, others)
            shards.publish(folder, one.key, piece, rows=one.rows, source=source, seconds=seconds)
            published += one.rows
    if next(items, None) is not None:
        raise _other_rows(folder)
    return published


def _other_rows(folder: Path) -> InputError:
    return InputError(f"{folder.name}: a file of the corpus changed while it was read; run the same command again")


def _made_from(rows: str, others: Mapping[str, str]) -> dict[str, str]:
    return {SHARD: rows, **others}


def _is_done(folder: Path, key: str, source: Mapping[str, str]) -> bool:
    here = shards.marker(folder, key)
    return here is not None and here.source == source and not here.failed


def _run_map(stage: Stage, work: Map, steps: list[Step], run: RunFolder, workers: int) -> None:
    decided = {step.name: work.decide(run.context(step)) for step in steps}
    pending = {
        step.name: _pending_shards(run, step, {} if value is None else {DECIDED: digests.of_value(value)})
        for step in steps
        for value in [decided[step.name]]
    }
    functions = {step.name: work.open(run.context(step), decided[step.name]) for step in steps if pending[step.name]}
    tasks = [
        (step.name, run.folder(step.needs[0]), run.folder(step), shard, stage.spec.reads)
        for step in steps
        for shard in pending[step.name]
    ]
    records = sum(shard.rows for missing in pending.values() for shard in missing)
    with _rows(stage, run, pending) as advance:
        for rows in map_unordered(partial(_map_shard, functions), tasks, workers, records):
            advance(rows)
    _finish_all(run, steps)


def _map_shard(
    functions: dict[str, Any], name: str, source_folder: Path, folder: Path, shard: Pending, reads: type[Raw]
) -> int:
    start = time.monotonic()
    function = functions[name]
    records = shards.read_kept(source_folder, shard.key, reads)
    outcomes = _map(function, records)
    seconds = time.monotonic() - start
    items = zip(records, outcomes, strict=True)
    above = source_folder.name
    shards.publish(folder, shard.key, items, rows=len(records), source=shard.source, above=above, seconds=seconds)
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
            opened = Opened(work, run)
            _ask_and_publish(_jobs(stage, steps, pending, run), opened, advance)
    _finish_all(run, steps)


@dataclass
class Opened:
    """The engine and the tasks of a stage, made when the first record needs them."""

    work: Infer
    run: RunFolder
    tasks: dict[str, InferenceTask] = field(default_factory=dict)

    @cached_property
    def engine(self) -> Engine:
        return self.work.engine(self.run.folder)

    def task(self, step: Step) -> InferenceTask:
        if step.name not in self.tasks:
            self.tasks[step.name] = self.work.task(self.run.context(step), self.engine)
        return self.tasks[step.name]


def _jobs(stage: Stage, steps: list[Step], pending: dict[str, list[Pending]], run: RunFolder) -> Iterator[Job]:
    for step in steps:
        if not pending[step.name]:
            continue
        folder, above = run.folder(step), run.folder(step.needs[0])
        whole = run.current(step.needs[0])
        current, models = whole.shards if whole else (), run.contents(step.needs[1:])
        asked = AskedBefore(folder, stage.spec.writes, current, pending[step.name], models)
        for shard in pending[step.name]:
            records = shards.read_kept(above, shard.key, stage.spec.reads)
            row_digests = [shards.row_digest(record) for record in records]
            yield Job(step, folder, shard, records, row_digests, asked.settled(shard.key, records, row_digests))


def _ask_and_publish(jobs: Iterator[Job], opened: Opened, advance: Callable[[int], None]) -> None:
    """Stream the requests of all shards through the engine; publish each shard when its last answer arrives."""
    open_jobs: deque[tuple[Job, list[Request | Outcome]]] = deque()

    def ask(job: Job, record: Raw) -> Request | Outcome:
        return job.settled.get(record.id) or _guarded(opened.task(job.step).ask, record)

    def groups() -> Iterator[list[Request]]:
        for job in jobs:
            asked = [ask(job, record) for record in job.records]
            requests = [item for item in asked if isinstance(item, Request)]
            opened.run.asked[job.step.name] += len(requests)
            open_jobs.append((job, asked))
            advance(len(asked) - len(requests))
            yield requests

    def answers(waiting: Iterator[list[Request]]) -> Iterator[Sequence[Answer]]:
        """Nothing is opened before the first request."""
        for requests in waiting:
            if requests:
                yield from opened.engine.run(chain([requests], waiting), advance)
                return
            yield []

    start = time.monotonic()
    for replies in answers(groups()):
        job, asked = open_jobs.popleft()
        outcomes = _outcomes(job, asked, iter(replies), opened)
        shards.publish(
            job.folder,
            job.shard.key,
            outcomes,
            rows=len(job.records),
            source=job.shard.source,
            above=opened.run.folder(job.step.needs[0]).name,
            asked_of=job.digests,
            seconds=time.monotonic() - start,
        )
        start = time.monotonic()


def _outcomes(
    job: Job, asked: list[Request | Outcome], answers: Iterator[Answer], opened: Opened
) -> Iterator[tuple[Raw, Outcome]]:
    for record, item in zip(job.records, asked, strict=True):
        if not isinstance(item, Request):
            yield record, item
            continue
        answer = next(answers)
        if isinstance(answer, Failure):
            yield record, Failed(answer.error)
        else:
            yield record, _guarded(opened.task(job.step).accept, record, answer)


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


def _pending_shards(run: RunFolder, step: Step, decided: Mapping[str, str] | None = None) -> list[Pending]:
    """The shards that are not done. `decided`: the digest of what was found in the whole subset, if anything was."""
    source_folder, folder = run.folder(step.needs[0]), run.folder(step)
    above_all = run.current(step.needs[0])
    assert above_all is not None
    others = {**run.contents(step.needs[1:]), **(decided or {})}
    pending = []
    for key in above_all.shards:
        above = shards.marker(source_folder, key)
        if above is None:
            raise DamagedError(shards.part(source_folder, key), "without its marker")
        source = _made_from(above.content, others)
        if not _is_done(folder, key, source):
            pending.append(Pending(key, above.kept, source))
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


def _source(run: RunFolder, step: Step) -> dict[str, str]:
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


def _finish(run: RunFolder, step: Step, keys: Sequence[str]) -> int:
    """Write the marker of a step of these shards; returns their rows."""
    manifest = summarise(run.folder(step), keys, _source(run, step))
    run.finish(step, manifest)
    return manifest.rows
