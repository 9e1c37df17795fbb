"""What stages 3 and 5 share: a model writes a text for each record, and the text is kept or rejected.

writing_stage(LABEL, "label", ask, accept, config, engines, window, label_model, filtered)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from kun.config.schema import Config, Label, Polish, Privacy
from kun.engines.base import Engine, Generate, Generated
from kun.engines.cache import EngineCache
from kun.filters.decontamination.ngrams import contaminated
from kun.filters.privacy.rules import personal
from kun.models.chat import Chat, load_chat
from kun.pipeline.stage import Infer, Stage, StageSpec, Step, StepContext, StepSettings
from kun.prompts import Prompt, load_prompts
from kun.records import Raw, Reject

S = TypeVar("S", Label, Polish)


@dataclass(frozen=True)
class Writing(Generic[S]):
    """What the ask and accept of such a stage need.

    `window`: the longest prompt plus reply, in tokens; `seed`: that of the run; `evaluations`: the folder of the index
    of evaluation files, if any; `privacy`: the settings of the subset, as in the filter.
    """

    prompt: Prompt
    settings: S
    chat: Chat
    window: int
    seed: int
    evaluations: Path | None = None
    privacy: Privacy = field(default_factory=Privacy)

    def gives_away(self, text: str) -> Reject | None:
        """Reject a text that shares a passage with an evaluation, or contains personal data."""
        return contaminated(self.evaluations, [text])[0] or personal(text, self.privacy)


@dataclass(frozen=True)
class WritingTask(Generic[S]):
    """The two functions of the stage, bound to what they need."""

    writing: Writing[S]
    ask_with: Callable[[Writing[S], Any], Generate | Reject]
    accept_with: Callable[[Writing[S], Any, Generated], Raw | Reject]

    def ask(self, record: Any) -> Generate | Reject:
        return self.ask_with(self.writing, record)

    def accept(self, record: Any, answer: Generated) -> Raw | Reject:
        return self.accept_with(self.writing, record, answer)


def writing_stage(
    spec: StageSpec,
    section: Literal["label", "polish"],
    ask: Callable[[Writing[S], Any], Generate | Reject],
    accept: Callable[[Writing[S], Any, Generated], Raw | Reject],
    config: Config,
    engines: EngineCache,
    window: Callable[[Config], int],
    model: Step,
    sources: Sequence[Step],
    evaluations: Step | None = None,
) -> Stage:
    """The stage over the steps `sources`, with the model of the step `model` and the settings and prompt of `section`.
    `window` returns the longest prompt plus reply; `evaluations` is the step with the index of evaluation files, if
    any."""

    def settings(part: str) -> StepSettings:
        prompts = load_prompts(config.prompts)  # only now: a run copied from elsewhere may lack the prompts
        names = [section, "prompts", "seed", "filter.privacy"]
        content = {"window": window(config), f"prompts.{section}": getattr(prompts, section).digest}
        return StepSettings.of(config.of_subset(part), names, **content)

    def task(context: StepContext, engine: Engine) -> WritingTask[S]:
        own = context.settings
        writing = Writing[S](
            getattr(load_prompts(own.prompts), section),
            getattr(own, section),
            load_chat(context.folder_of(model), own.trust_remote_code),
            engine.window,
            own.seed,
            context.folder_of_any(evaluations),
            own.filter.privacy,
        )
        return WritingTask(writing, ask, accept)

    needs: tuple[Step, ...] = (model,) if evaluations is None else (model, evaluations)
    steps = tuple(Step(spec, step.part, partial(settings, step.part), (step, *needs)) for step in sources)
    return Stage(spec, Infer(lambda folder_of: engines.open(folder_of(model)), task), steps)
