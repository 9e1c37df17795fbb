"""What a stage declares for the runner: `Stage(StageSpec("stage3", "stage3_label", ...), work, steps)`.

A pipeline is a list of stages, a stage a list of steps of one kind, a step one folder of a run. Whatever runs, shows,
checks or cleans them knows only these declarations: a new stage is one file in `stages/`, and one line in a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from kun.config.schema import PATHS, RUNTIME, Config, Section
from kun.engines.base import Engine, Request
from kun.progress import Progress
from kun.records import Raw, Reject
from kun.store.shards import Outcome

# model, artefact: one folder, made whole. ingest, filter, inference: shards of records, which are cut from a corpus,
# filtered in view of all of them, or processed by a model.
Role = Literal["model", "artefact", "ingest", "filter", "inference"]
WARNING = "warning"  # in the report of a Build: what status shows in a line of its own, as often as anybody asks


@dataclass(frozen=True)
class Measure:
    """A field of a stage's records that reports plot, on a logarithmic axis if `log`."""

    field: str
    title: str
    log: bool = False


@dataclass(frozen=True)
class Output:
    """The data set that a pipeline ends in: `runs/<name>/<folder>/<subset>.jsonl`, with these fields of each record.
    `about` explains in the card how they were made."""

    folder: str
    fields: tuple[str, ...]
    about: str = ""


@dataclass(frozen=True)
class StageSpec:
    """The declaration of a stage, which is written with the fingerprint of each of its steps.

    `command` is what the user types; `name` names its folders; `reads` and `writes` are the types of its records.
    `version`: raise it when the code changes what it writes. `output`: its records are the rows of a data set.
    `summary`: what the command does, for its help; one of the stages that a command runs has it.
    """

    command: str
    name: str
    role: Role
    reads: type[Raw] = Raw
    writes: type[Raw] = Raw
    per_subset: bool = True
    version: int = 1
    measures: tuple[Measure, ...] = ()
    output: Output | None = None
    summary: str = ""

    @property
    def makes_records(self) -> bool:
        return self.role not in ("model", "artefact")


@dataclass(frozen=True)
class StepSettings:
    """The settings that decide what a step writes, apart from the steps that it needs and the version of its code.

    Its work receives `config`, which holds the settings that the stage names and no others; `parts` are the same for
    the fingerprint. `content` has digests in place of paths, and anything else that decides, such as a model's window.
    """

    config: Config
    content: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(config: Config, names: Iterable[str | tuple[str, ...]], **content: Any) -> StepSettings:
        """`content` under dotted names, with __ for a dot: `prompts__label="0123"`."""
        return StepSettings(config.only(names), {name.replace("__", "."): value for name, value in content.items()})

    @cached_property
    def parts(self) -> dict[str, Any]:
        """JSON values under dotted names. AssertionError if `content` has nothing for a path."""
        parts = dict(self.content)
        for name, value in flatten_settings("", self.config).items():
            if name.split(".")[0] in RUNTIME:
                continue
            if not _is_path(name):
                parts[name] = value
            elif not any(key == name or key.startswith(f"{name}.") for key in self.content):
                assert not value, f"{name}: decides a step by its content, which nothing digests"
                parts[name] = None
        return parts


class Inputs(msgspec.Struct, frozen=True):
    """Files of a corpus that a step reads, by name and digest; `paths` are those of the settings that lead to them.
    Where none of them exists `missing` tells so: then the files that were read before stand in."""

    paths: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Step:
    """One fingerprinted folder of a run, linked as `runs/<name>/<stage>/<part>`; a part is a subset, or a model.

    `needs` are the steps whose output it reads, the source of its records first. `inputs` are the files of a corpus
    that it reads: they are in no fingerprint, so that a corpus can grow.
    """

    spec: StageSpec
    part: str
    settings: Callable[[], StepSettings]
    needs: tuple[Step, ...] = ()
    inputs: Callable[[], Inputs] | None = None

    @property
    def stage(self) -> str:
        return self.spec.name

    @property
    def name(self) -> str:
        return f"{self.spec.name}/{self.part}"

    @property
    def command(self) -> str:
        return self.spec.command


@dataclass(frozen=True)
class StepContext:
    """What the work of a step receives: its settings, its folder, and the folders of the steps that it needs."""

    step: Step
    settings: Config
    folder: Path
    folder_of: Callable[[Step], Path]

    def folder_of_any(self, step: Step | None) -> Path | None:
        return None if step is None else self.folder_of(step)

    def need(self, number: int) -> Path:
        return self.folder_of(self.step.needs[number])


class InferenceTask(Protocol):
    """The two pure functions of a model stage."""

    def ask(self, record: Any) -> Request | Reject: ...

    def accept(self, record: Any, answer: Any) -> Raw | Reject: ...


@dataclass(frozen=True)
class Build:
    """Work that fills one folder, such as training: `build(context, progress)` returns its report. `unit` is what its
    progress counts."""

    build: Callable[[StepContext, Progress], Mapping[str, Any]]
    unit: str = "steps"


class Slice(NamedTuple):
    """A shard of a unit of a corpus: its key, its number of rows, and the digest of what they are made from."""

    key: str
    rows: int
    source: str


@dataclass(frozen=True)
class Ingest:
    """Work that cuts a corpus into shards. `units(context)` returns the parts that are read independently, in order,
    each with its shards; `items(unit)`, pickled to worker processes, yields what each item became."""

    units: Callable[[StepContext], Sequence[tuple[Any, Sequence[Slice]]]]
    items: Callable[[Any], Iterator[tuple[Raw, Outcome]]]


def nothing(context: StepContext) -> None:
    """The `decide` of work that rests on nothing but the rows of a shard and the steps that it needs."""


@dataclass(frozen=True)
class Map:
    """Work by a pure function of the records of a shard: one outcome for each, in their order.

    `decide(context)` returns, as JSON, what holds for the whole subset, such as a percentile of it, for which it may
    read the whole source; when it changes all shards are judged again. `open(context, decided)` returns the function,
    which is pickled to worker processes.
    """

    open: Callable[[StepContext, Any], Callable[[Sequence[Any]], Sequence[Raw | Reject]]]
    decide: Callable[[StepContext], Any] = nothing


@dataclass(frozen=True)
class Infer:
    """Work by a model. `engine(folder_of)` returns the engine for all steps, which the caller of the runner closes;
    `task(context, engine)` returns ask and accept."""

    engine: Callable[[Callable[[Step], Path]], Engine]
    task: Callable[[StepContext, Engine], InferenceTask]


Work = Build | Ingest | Map | Infer


@dataclass(frozen=True)
class Stage:
    """Steps of one kind, run together."""

    spec: StageSpec
    work: Work
    steps: tuple[Step, ...]

    @property
    def command(self) -> str:
        return self.spec.command

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def makes_records(self) -> bool:
        return self.spec.makes_records


def flatten_settings(name: str, value: Any) -> dict[str, Any]:
    """The settings of a section under dotted names, so that a change can be named: `{"score.threshold": 0.5}`."""
    sections = isinstance(value, dict) and any(isinstance(member, Section) for member in value.values())
    if not isinstance(value, Section) and not sections:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, member in dict(value).items():
        flat |= flatten_settings(f"{name}.{key}" if name else key, member)
    return flat


def _is_path(name: str) -> bool:
    return name in PATHS or (name.startswith("corpora.") and name.endswith(".paths"))
