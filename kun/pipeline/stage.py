"""What a stage declares and `kun.pipeline.runner` runs: `Step("stage3_label", "wudao", decides, needs)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kun.config.schema import Section
from kun.engines.base import Engine, Request
from kun.progress import Progress
from kun.records import Raw, Reject
from kun.store.shards import Outcome


@dataclass(frozen=True)
class Step:
    """One fingerprinted folder of a run, linked as `runs/<name>/<stage>/<part>`; a part is a subset, or a model.

    `decides` gives everything that decides the output, in JSON values under dotted names; `needs` are the steps whose
    output is read, the records' source first. Raise `version` when the stage's code changes what it writes.
    """

    stage: str
    part: str
    decides: Callable[[], Mapping[str, Any]]
    needs: tuple[Step, ...] = ()
    version: int = 1

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.part}"

    @property
    def command(self) -> str:
        """What the user types to make it: stage1 ... stage5."""
        return self.stage.split("_")[0]


class InferenceTask(Protocol):
    """The two pure functions of a model stage."""

    def ask(self, record: Any) -> Request | Reject: ...

    def accept(self, record: Any, answer: Any) -> Raw | Reject: ...


Folders = Callable[[Step], Path]  # where a step's output is


@dataclass(frozen=True)
class Build:
    """Work that fills one folder, such as training: `build(step, folder, folders, progress)` gives what to report.
    `unit` is what its progress counts."""

    build: Callable[[Step, Path, Folders, Progress], Mapping[str, Any]]
    unit: str = "steps"


@dataclass(frozen=True)
class Ingest:
    """Work that cuts a corpus into shards. `units(step, folders)` gives the parts that are read alone, in order, each
    with the number of its items; `items(unit)`, which is pickled to worker processes, what each of its rows became."""

    units: Callable[[Step, Folders], Sequence[tuple[Any, int]]]
    items: Callable[[Any], Iterator[tuple[Raw, Outcome]]]
    shard_rows: int


@dataclass(frozen=True)
class Map:
    """Work by a pure function of records, a shard at a time: it gives one outcome for each, in their order, and decides
    each by itself. `open(step, folders)` gives it, and may look at all of the source, as for a percentile; the
    function is pickled to worker processes."""

    reads: type[Raw]
    writes: type[Raw]
    open: Callable[[Step, Folders], Callable[[Sequence[Any]], Sequence[Raw | Reject]]]


@dataclass(frozen=True)
class Infer:
    """Work by a model. One engine, which whoever runs the stage closes, serves all steps; `asker(step, folders,
    engine)` gives ask and accept."""

    reads: type[Raw]
    writes: type[Raw]
    engine: Callable[[Folders], Engine]
    asker: Callable[[Step, Folders, Engine], InferenceTask]


@dataclass(frozen=True)
class Stage:
    """Steps of one kind, run together. `command` is what the user types: stage1 ... stage5."""

    command: str
    name: str
    work: Build | Ingest | Map | Infer
    steps: tuple[Step, ...]

    @property
    def makes_records(self) -> bool:
        return not isinstance(self.work, Build)


def flatten_settings(name: str, section: Section) -> dict[str, Any]:
    """The settings of a section under dotted names, so that a change can be named: `{"score.threshold": 0.5}`."""
    settings: dict[str, Any] = {}
    for key, value in section:
        settings |= flatten_settings(f"{name}.{key}", value) if isinstance(value, Section) else {f"{name}.{key}": value}
    return settings
