"""Stage 3, label: to each kept document, the instruction to which it would be the reply. `kun run stage3`

The label model was trained on the seed pairs turned round (output -> instruction), with this same prompt. It is asked
once per document; what it answers is cleaned, and rejected where it could not stand in a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kun.checks.answers import clean_instruction, copied, echo, folded, pointing_word, says_twice, unusable
from kun.config.schema import Config, Label, Privacy
from kun.engines.base import Generate, Generated, request_seed
from kun.engines.cache import EngineCache, window_with_room
from kun.filters.decontamination.ngrams import contaminated
from kun.filters.privacy.rules import personal
from kun.models.chat import Chat, load_chat
from kun.pipeline.stage import Infer, Stage, Step, flatten_settings
from kun.prompts import Prompt, load_prompts
from kun.records import Filtered, Labelled, Reject, extend
from kun.text.normal import preview


@dataclass(frozen=True)
class Labelling:
    """Both halves of the stage. `window`: longest prompt plus reply, in tokens; `seed`: that of the run; `evaluations`:
    the index of evaluation files, where there is one; `privacy`: of the subset, as in the filter."""

    prompt: Prompt
    settings: Label
    chat: Chat
    window: int
    seed: int
    evaluations: Path | None = None
    privacy: Privacy = field(default_factory=Privacy)

    def ask(self, document: Filtered) -> Generate | Reject:
        tokens = self.chat.prompt(self.prompt.messages(text=document.text))
        sampling = self.settings.sampling
        if len(tokens) + sampling.max_tokens > self.window:
            return Reject("over_window", f"{len(tokens)} + {sampling.max_tokens} of {self.window} tokens")
        return Generate(tokens, sampling, request_seed(self.seed, document.id, "label"))

    def accept(self, document: Filtered, answer: Generated) -> Labelled | Reject:
        reply = self.chat.decode(answer.tokens)
        if not answer.finished:
            return Reject("unfinished", preview(reply))
        instruction = clean_instruction(reply)
        if not folded(instruction):
            return Reject("empty", preview(reply))
        if len(instruction) > self.settings.max_chars:
            return Reject("too_long", f"{len(instruction)} characters: {preview(instruction)}")
        if found := unusable(instruction):
            return Reject(*found)
        if twice := says_twice(instruction):
            return Reject("doubled", preview(twice))
        if line := echo(instruction, self.prompt.user):
            return Reject("echo", preview(line))
        if word := pointing_word(instruction, self.settings.pointing_words):
            return Reject("points_at_text", f"{word}: {preview(instruction)}")
        if stretch := copied(instruction, document.text):
            return Reject("copies_text", stretch)
        if reject := contaminated(self.evaluations, [instruction])[0] or personal(instruction, self.privacy):
            return reject
        return extend(document, Labelled, instruction=instruction)


def stage(
    config: Config, engines: EngineCache, label_model: Step, filtered: Sequence[Step], evaluations: Step | None = None
) -> Stage:
    """The stage over the steps of the filter, by the label model that stage 1 made. `evaluations` is the step with the
    index of evaluation files, where some are named."""
    prompt = cache(lambda: load_prompts(config.prompts).label)  # not here: a run that was received may lack the folder
    settings = {**flatten_settings("label", config.label), "seed": config.seed}
    needs = (label_model,) if evaluations is None else (label_model, evaluations)
    return Stage(
        "stage3",
        "stage3_label",
        Infer(
            reads=Filtered,
            writes=Labelled,
            engine=lambda folders: engines.open(folders(label_model)),
            asker=lambda step, folders, engine: Labelling(
                prompt(),
                config.label,
                load_chat(folders(label_model), config.trust_remote_code),
                engine.window,
                config.seed,
                None if evaluations is None else folders(evaluations),
                config.of_subset(step.part).filter.privacy,
            ),
        ),
        tuple(
            Step(
                "stage3_label",
                step.part,
                lambda: {
                    **settings,
                    "prompts.label": prompt().digest,
                    "window": window_with_room(config, config.label.sampling, "label.sampling"),
                },
                (step, *needs),
            )
            for step in filtered
        ),
    )
