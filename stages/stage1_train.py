"""Stage 1, train: the label model and the primary chat, both from one file of seed pairs. `kun run stage1`

The label model reads an output and writes the instruction that it answers; the primary chat reads an instruction and
replies. Both are LoRA adapters on one base model. The primary chat judges instructions in stage 4 and polishes texts
in stage 5; where there are seeds for these jobs, it learns them here, with the prompts of those stages.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec

from kun.config.schema import Config, ModelName, Train
from kun.errors import ConfigError
from kun.models.chat import Chat, Message, load_chat
from kun.models.folder import local_folder
from kun.pipeline.stage import Build, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.prompts import PromptSet, load_prompts
from kun.seeds import files
from kun.store.digests import Digests
from kun.text.cutting import longest_opening
from kun.text.normal import preview
from kun.training import seeds
from kun.training.seeds import BadSeed, Example, JudgedInstruction, Overview, PolishedText, Seed, SeedPair, Task

SUMMARY = "train the label model and the primary chat from the seed pairs"
READING = ("fields", "speakers", "turns", "encoding", "header", "dataset")  # settings of how seed pairs are read
_log = logging.getLogger(__name__)
TRAIN = StageSpec("stage1", "stage1_train", "model", per_subset=False, version=2, summary=SUMMARY)


def stage(config: Config, digests: Digests) -> Stage:
    """The stage with its two steps, one for each model."""
    steps = (Step(TRAIN, job, partial(training_settings, config, job, digests)) for job in get_args(ModelName))
    return Stage(TRAIN, Build(build), tuple(steps))


def build(context: StepContext, progress: Progress) -> dict[str, Any]:
    job: ModelName = "label" if context.step.part == "label" else "chat"
    metrics = train_model(context.settings, job, context.folder, progress)
    left_out = sum(metrics["bad_seeds"].values())
    counts = {"examples": metrics["examples"], "held out": metrics["held_out"], "left out": left_out}
    counts |= {"cut": metrics["cut"]} if metrics["cut"] else {}
    return counts | {"steps": metrics["steps"], "loss": metrics["train_loss_last"], "eval loss": metrics["eval_loss"]}


def training_settings(config: Config, job: ModelName, digests: Digests) -> StepSettings:
    """What decides the model: base, seed files and prompts (all three by content), and the training settings."""
    base_model, pairs = _needed(config)
    prompts = load_prompts(config.prompts)
    other = "chat" if job == "label" else "label"
    names = ["base_model", "prompts", "seed", "seeds.pairs", "seeds.held_out"]
    names += [f"train.{name}" for name in Train.model_fields if name != other]
    names += [f"seeds.{name}" for name in READING]
    content = {"base_model": digests.path(local_folder(base_model), "base_model")}
    content["seeds.pairs"] = files.digest(pairs, digests)
    if job == "label":
        content["prompts.label"] = prompts.label.digest
        return StepSettings.of(config, names, **content)
    names += ["seeds.judge", "seeds.polish"]
    if config.seeds.judge is not None:
        content["seeds.judge"] = digests.path(config.seeds.judge, "seeds.judge")
        content["prompts.score"] = prompts.score.digest
    if config.seeds.polish is not None:
        content["seeds.polish"] = digests.path(config.seeds.polish, "seeds.polish")
        content["prompts.polish"] = prompts.polish.digest
    if "prompts.score" not in content and "prompts.polish" not in content:
        names.remove("prompts")
    return StepSettings.of(config, names, **content)


def train_model(config: Config, job: ModelName, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train one of the two models into `folder` and return its metrics, written last.

    A training that was killed resumes from its last checkpoint in the same folder and ends in the same bytes.
    ConfigError and InputError, such as for bad seeds, are raised before any model is loaded.
    """
    if (folder / "metrics.json").exists():  # killed after the training, before the runner wrote its marker
        return dict(msgspec.json.decode((folder / "metrics.json").read_bytes()))
    chat = load_chat(_needed(config)[0], config.trust_remote_code)
    bad: list[BadSeed] = []
    overview = Overview()
    examples = collect(config, job, chat, bad, overview)
    for line in [*seeds.told(job, examples, bad, config.train.max_length), *seeds.told_of_file(overview)]:
        _log.warning("seeds: %s", line)
    training, held_out = seeds.split(examples, config.seeds.held_out)

    from kun.training.sft import train  # torch, from here on

    return train(config, job, chat, training, held_out, bad, folder, progress)


def collect(
    config: Config, job: ModelName, chat: Chat, bad: list[BadSeed], overview: Overview | None = None
) -> list[Example]:
    """The training examples of a model; seeds that cannot be used are appended to `bad`."""
    given, limit = config.seeds, config.train.max_length
    pairs = seeds.read_seeds(_needed(config)[1], SeedPair, "seeds.pairs", bad, given, overview)
    if job == "label":
        prompts = load_prompts(config.prompts)
        return seeds.encode(label_tasks(label_material(pairs, bad), prompts), chat, limit, "seeds.pairs", bad)

    examples = seeds.encode(reply_tasks(pairs), chat, limit, "seeds.pairs", bad)
    if given.judge is not None:
        judged = seeds.read_seeds(given.judge, JudgedInstruction, "seeds.judge", bad)
        examples += seeds.encode(judge_tasks(judged, load_prompts(config.prompts)), chat, limit, "seeds.judge", bad)
    if given.polish is not None:
        polished = seeds.read_seeds(given.polish, PolishedText, "seeds.polish", bad)
        examples += seeds.encode(polish_tasks(polished, load_prompts(config.prompts)), chat, limit, "seeds.polish", bad)
    return examples


def label_material(pairs: list[Seed[SeedPair]], bad: list[BadSeed]) -> list[Seed[SeedPair]]:
    """The pairs whose request stands alone, as that of stage 3 must: the first of a conversation, and not one that
    hangs on a system message of its own. One that over half of the pairs share says nothing of a single reply."""
    systems = Counter(seed.row.system for seed in pairs)
    common = {system for system, count in systems.items() if not system or 2 * count > len(pairs)}
    material = []
    for seed in pairs:
        if seed.row.history:
            bad.append(BadSeed(seed.file, seed.line, "follow_up", f"turn {len(seed.row.history) + 1}"))
        elif seed.row.system not in common:
            bad.append(BadSeed(seed.file, seed.line, "own_system", preview(seed.row.system)))
        else:
            material.append(seed)
    return material


def label_tasks(pairs: list[Seed[SeedPair]], prompts: PromptSet) -> Iterator[Task]:
    """Output -> the request: the instruction and what it is about. An output that is too long ends at a sentence."""
    for seed in pairs:
        reading = partial(_labelling, seed, prompts)
        yield replace(reading(seed.row.output), shorter=partial(_shorter, reading, seed.row.output))


def _labelling(seed: Seed[SeedPair], prompts: PromptSet, text: str) -> Task:
    return Task(seed, prompts.label.messages(text=text), seed.row.request)


def reply_tasks(pairs: list[Seed[SeedPair]]) -> Iterator[Task]:
    """The conversation -> output. Of one that is too long the oldest exchanges are dropped; then the reply ends at a
    sentence, and is learnt without an end, so that nobody learns to stop there."""
    for seed in pairs:
        yield replace(_replying(seed, 0), shorter=partial(_shorter_conversation, seed))


def _replying(seed: Seed[SeedPair], dropped: int) -> Task:
    row = seed.row
    messages = [Message("system", row.system)] if row.system else []
    for request, reply in row.history[dropped:]:
        messages += [Message("user", request), Message("assistant", reply)]
    return Task(seed, [*messages, Message("user", row.request)], row.output)


def _shorter_conversation(seed: Seed[SeedPair], attempt: Callable[[Task], Example | None]) -> Example | None:
    exchanges = range(1, len(seed.row.history) + 1)
    dropped = bisect_left(exchanges, True, key=lambda number: attempt(_replying(seed, number)) is not None)
    if dropped < len(exchanges):
        return attempt(_replying(seed, exchanges[dropped]))
    bare = _replying(seed, len(exchanges))
    return _shorter(lambda text: replace(bare, reply=text, ends=False), seed.row.output, attempt)


def _shorter(make: Callable[[str], Task], text: str, attempt: Callable[[Task], Example | None]) -> Example | None:
    return longest_opening(text, lambda opening: attempt(make(opening)))


def judge_tasks(judged: list[Seed[JudgedInstruction]], prompts: PromptSet) -> Iterator[Task]:
    """Instruction -> verdict word, as stage 4 asks."""
    for seed in judged:
        word = prompts.score.word(seed.row.verdict == "good")
        yield Task(seed, prompts.score.messages(instruction=seed.row.instruction), word)


def polish_tasks(polished: list[Seed[PolishedText]], prompts: PromptSet) -> Iterator[Task]:
    """Text and instruction -> reply, as stage 5 asks."""
    for seed in polished:
        messages = prompts.polish.messages(text=seed.row.text, instruction=seed.row.instruction)
        yield Task(seed, messages, seed.row.output)


def _needed(config: Config) -> tuple[str, str]:
    """The base model and the seed pairs, without which there is nothing to train."""
    if config.base_model is None or config.seeds.pairs is None:
        missing = "base_model" if config.base_model is None else "seeds.pairs"
        raise ConfigError(f"{missing}: training needs it; set it in the configuration or by --{missing}")
    return config.base_model, config.seeds.pairs
