"""A pipeline of two stages over a list of texts, to test the machinery without models: `Small(tmp_path, texts)`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kun.config.schema import Config, Sampling
from kun.engines.base import Answer, Failure, Generate, Generated, Request
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.stage import (
    Infer,
    Ingest,
    Inputs,
    Map,
    Measure,
    Output,
    Slice,
    Stage,
    StageSpec,
    Step,
    StepContext,
    StepSettings,
)
from kun.records import Document, Filtered, Labelled, Origin, Reject, extend
from kun.store.digests import of_value


@dataclass
class CountingEngine:
    """Answers a prompt with itself. `breaks` are prompts that fail, and `dies_after` ends the process's patience."""

    breaks: set[int] = field(default_factory=set)
    dies_after: int | None = None
    window: int = 100
    asked: list[int] = field(default_factory=list)

    def run(self, groups: Iterable[Sequence[Request]], on_answer=lambda count: None) -> Iterator[list[Answer]]:
        for group in groups:
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            answers: list[Answer] = []
            for request in group:
                self.asked.append(request.prompt[0])
                broken = request.prompt[0] in self.breaks
                answers.append(Failure("engine: broken") if broken else Generated(request.prompt, finished=True))
                on_answer(1)
            yield answers

    def close(self) -> None:
        pass


def keep_even_lengths(documents: Sequence[Document]) -> list[Filtered | Reject]:
    return [keep_even_length(document) for document in documents]


def keep_even_length(document: Document) -> Filtered | Reject:
    if len(document.text) % 2:
        return Reject("odd", f"{len(document.text)} characters")
    return extend(document, Filtered, ppl=None, tokens=len(document.text))


def wait_for_ever(documents: Sequence[Document]) -> list[Filtered]:
    print("waiting", flush=True)
    while True:
        time.sleep(60)


class LabelByLength:
    def ask(self, record: Filtered) -> Generate | Reject:
        if record.text.startswith("bug"):
            raise ZeroDivisionError("a bug in ask")
        if record.tokens > 50:
            return Reject("over_window")
        return Generate([record.tokens], Sampling(), seed=0)

    def accept(self, record: Filtered, answer: Generated) -> Labelled:
        return extend(record, Labelled, instruction=f"{answer.tokens[0]} characters about what?")


def nothing() -> StepSettings:
    """What decides a step that has no settings."""
    return StepSettings.of(Config(), [])


INGEST = StageSpec("read", "documents", "ingest", writes=Document)
FILTER = StageSpec(
    "read", "even_lengths", "filter", Document, Filtered, measures=(Measure("tokens", "characters of a text"),)
)
LABEL = StageSpec("ask", "questions", "inference", Filtered, Labelled, output=Output("pairs", ("instruction", "text")))


def read_unit(unit: tuple[str, list[str]]) -> Iterator[tuple[Document, Document | Reject]]:
    subset, texts = unit
    for row, text in enumerate(texts):
        record = Document(id=f"{subset}-{row}", subset=subset, text=text, origin=Origin("a.txt", row))
        yield record, record if text else Reject("empty")


@dataclass
class Small:
    """`texts` by subset; `settings` stand for the configuration of each stage and decide its fingerprint."""

    path: Path
    texts: dict[str, list[str]]
    engine: CountingEngine = field(default_factory=CountingEngine)
    settings: dict[str, int] = field(default_factory=lambda: {"filter.min": 1, "label.max": 1})

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path)

    def units(self, context: StepContext) -> list[tuple[tuple[str, list[str]], list[Slice]]]:
        """One unit, in shards of three texts."""
        texts = self.texts[context.step.part]
        pieces = [texts[first : first + 3] for first in range(0, len(texts), 3)]
        slices = [Slice(f"{n:05d}", len(piece), of_value(piece)) for n, piece in enumerate(pieces)]
        return [((context.step.part, texts), slices)]

    def stages(self) -> list[Stage]:
        def setting(stage: str) -> Callable[[], StepSettings]:
            return lambda: StepSettings(
                Config().only([]), {key: value for key, value in self.settings.items() if key.startswith(stage)}
            )

        def inputs(name: str) -> Inputs:
            return Inputs(("a.txt",), (("a.txt", of_value(self.texts[name])),))

        read = [Step(INGEST, name, nothing, inputs=partial(inputs, name)) for name in self.texts]
        kept = [Step(FILTER, step.part, setting("filter"), needs=(step,)) for step in read]
        label = [Step(LABEL, step.part, setting("label"), needs=(step,)) for step in kept]
        return [
            Stage(INGEST, Ingest(self.units, read_unit), tuple(read)),
            Stage(FILTER, Map(lambda *_: keep_even_lengths), tuple(kept)),
            Stage(LABEL, Infer(lambda _: self.engine, lambda *_: LabelByLength()), tuple(label)),
        ]

    def go(self, workers: int = 1, force: bool = False) -> list[bool]:
        """Run all stages; whether each had something to do."""
        run = self.run
        run.store.mkdir(parents=True, exist_ok=True)
        return [bool(run_stage(stage, run, workers, force)) for stage in self.stages()]
