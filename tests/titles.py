"""A second pipeline, and the model of a new stage: this file in `stages/`, and `titles` in `stages.PIPELINES`.

The primary chat writes a title for each output of stage 5; titles and outputs are a data set of their own, `titled/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kun.config.schema import Config
from kun.engines.base import Engine, Generate, Generated, request_seed
from kun.engines.cache import EngineCache, window
from kun.models.chat import Chat, Message, load_chat
from kun.pipeline.stage import Infer, Output, Stage, StageSpec, Step, StepContext, StepSettings
from kun.records import Polished, Reject, extend
from kun.store.digests import Digests
from stages.stage1_train import TRAIN
from stages.stage5_polish import POLISH


class Titled(Polished, frozen=True, kw_only=True):
    title: str


OUTPUT = Output("titled", ("title", "output"), "texts with their titles.")
SUMMARY = "let the primary chat write a title for each output"
TITLES = StageSpec("titles", "titles", "inference", Polished, Titled, output=OUTPUT, summary=SUMMARY)


@dataclass(frozen=True)
class Titling:
    """The two functions of the stage, with what they need."""

    settings: Config
    chat: Chat
    window: int

    def ask(self, record: Polished) -> Generate | Reject:
        tokens, sampling = self.chat.prompt([Message("user", record.output)]), self.settings.score.sampling
        if len(tokens) + sampling.max_tokens > self.window:
            return Reject("over_window", f"{len(tokens)} + {sampling.max_tokens} of {self.window} tokens")
        return Generate(tokens, sampling, request_seed(self.settings.seed, record.id, "title"))

    def accept(self, record: Polished, answer: Generated) -> Titled | Reject:
        title = self.chat.decode(answer.tokens)[:20].strip()
        return extend(record, Titled, title=title) if title else Reject("empty")


def titles(config: Config, digests: Digests, engines: EngineCache, before: Sequence[Stage]) -> list[Stage]:
    """The stage, with a step for each step of stage 5; it uses the same primary chat."""
    train, polished = (next(stage for stage in before if stage.spec is spec) for spec in (TRAIN, POLISH))
    _, primary_chat = train.steps

    def settings() -> StepSettings:
        """What decides the rows: the work can read these settings and no others."""
        return StepSettings.of(config, ["score.sampling", "seed"], window=window(config))

    def engine(folder_of: Callable[[Step], Path]) -> Engine:
        return engines.open(folder_of(primary_chat))

    def task(context: StepContext, engine: Engine) -> Titling:
        return Titling(context.settings, load_chat(context.folder_of(primary_chat)), engine.window)

    steps = tuple(Step(TITLES, step.part, settings, (step, primary_chat)) for step in polished.steps)
    return [Stage(TITLES, Infer(engine, task), steps)]
