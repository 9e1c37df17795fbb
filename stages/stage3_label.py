"""Stage 3, label: the label model writes, for each kept document, the instruction that it answers. `kun run stage3`

The model was trained on the reversed seed pairs (output -> instruction) with the same prompt. It is asked once per
document; its answer is cleaned, and rejected if it does not belong in a data set.
"""

from __future__ import annotations

from collections.abc import Sequence

from kun.checks.answers import clean_instruction, copied, echo, folded, pointing_word, says_twice, unusable
from kun.checks.asking import asks_nothing, named_twice
from kun.config.schema import Config, Label
from kun.engines.base import Generate, Generated, request_seed
from kun.engines.cache import EngineCache, window_with_room
from kun.pipeline.stage import Stage, StageSpec, Step
from kun.records import Filtered, Labelled, Reject, extend
from kun.text.normal import preview
from stages.writing import Writing, writing_stage

SUMMARY = "let the label model write an instruction for each kept text"
LABEL = StageSpec("stage3", "stage3_label", "inference", Filtered, Labelled, version=2, summary=SUMMARY)


def ask(writing: Writing[Label], document: Filtered) -> Generate | Reject:
    tokens = writing.chat.prompt(writing.prompt.messages(text=document.text))
    sampling = writing.settings.sampling
    if len(tokens) + sampling.max_tokens > writing.window:
        return Reject("over_window", f"{len(tokens)} + {sampling.max_tokens} of {writing.window} tokens")
    return Generate(tokens, sampling, request_seed(writing.seed, document.id, "label"))


def accept(writing: Writing[Label], document: Filtered, answer: Generated) -> Labelled | Reject:
    reply = writing.chat.decode(answer.tokens)
    if not answer.finished:
        return Reject("unfinished", preview(reply))
    instruction = clean_instruction(reply)
    if not folded(instruction):
        return Reject("empty", preview(reply))
    if len(instruction) > writing.settings.max_chars:
        return Reject("too_long", f"{len(instruction)} characters: {preview(instruction)}")
    if fault := unusable(instruction):
        return Reject(*fault)
    if twice := says_twice(instruction):
        return Reject("doubled", preview(twice))
    if item := named_twice(instruction):
        return Reject("named_twice", f"{preview(item)}: {preview(instruction)}")
    if line := echo(instruction, writing.prompt.user):
        return Reject("echo", preview(line))
    if word := pointing_word(instruction, writing.settings.pointing_words):
        return Reject("points_at_text", f"{word}: {preview(instruction)}")
    if asks_nothing(instruction, document.text):
        return Reject("asks_nothing", preview(instruction))
    if stretch := copied(instruction, document.text):
        return Reject("copies_text", stretch)
    if reject := writing.gives_away(instruction):
        return reject
    return extend(document, Labelled, instruction=instruction)


def stage(
    config: Config, engines: EngineCache, label_model: Step, filtered: Sequence[Step], evaluations: Step | None = None
) -> Stage:
    """The stage over the filtered documents, with the label model of stage 1."""
    return writing_stage(LABEL, "label", ask, accept, config, engines, window, label_model, filtered, evaluations)


def window(config: Config) -> int:
    return window_with_room(config, config.label.sampling, "label.sampling")
