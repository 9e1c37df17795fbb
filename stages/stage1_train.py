"""Stage 1: from one file of seed pairs, the label model and the primary chat (`kun run stage1 --config ...`).

The label model reads an output and writes the instruction it answers; the primary chat reads an instruction and
replies. Both are LoRA adapters on one base model. The primary chat judges instructions in stage 4 and polishes texts
in stage 5; where seeds for these jobs are given, it learns them here, through the very prompts of those stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import msgspec

from kun.config.schema import Config, ModelName
from kun.errors import ConfigError
from kun.models.chat import Chat, Message, load_chat
from kun.models.folder import local_folder
from kun.pipeline.stage import Build, Folders, Stage, Step, flatten_settings
from kun.progress import Progress
from kun.prompts import PromptSet, load_prompts
from kun.store.digests import Digests
from kun.training import seeds
from kun.training.seeds import BadSeed, Example, JudgedInstruction, PolishedText, Seed, SeedPair, Task


def stage(config: Config, digests: Digests) -> Stage:
    """The stage with its two steps; they share the seed pairs and the base model."""

    def build(step: Step, folder: Path, folders: Folders, progress: Progress) -> dict[str, Any]:
        metrics = train_model(config, "label" if step.part == "label" else "chat", folder, progress)
        bad = sum(metrics["bad_seeds"].values())
        told = {"examples": metrics["examples"], "held out": metrics["held_out"], "bad seeds": bad}
        return told | {"steps": metrics["steps"], "loss": metrics["train_loss_last"], "eval loss": metrics["eval_loss"]}

    steps = [Step("stage1_train", job, partial(decides, config, job, digests)) for job in get_args(ModelName)]
    return Stage("stage1", "stage1_train", Build(build), tuple(steps))


def decides(config: Config, job: ModelName, digests: Digests) -> dict[str, Any]:
    """What makes the model: base, seed files, prompts (by content), and the settings of the training."""
    base_model, pairs = _needed(config)
    prompts = load_prompts(config.prompts)
    settings = flatten_settings("train", config.train) | {"seeds.held_out": config.seeds.held_out, "seed": config.seed}
    settings["base_model"] = digests.path(local_folder(base_model), "base_model")
    settings["seeds.pairs"] = digests.path(pairs, "seeds.pairs")
    if job == "label":
        del settings["train.chat"]
        return {**settings, "prompts.label": prompts.label.digest}
    del settings["train.label"]
    if config.seeds.judge is not None:
        settings["seeds.judge"] = digests.path(config.seeds.judge, "seeds.judge")
        settings["prompts.score"] = prompts.score.digest
    if config.seeds.polish is not None:
        settings["seeds.polish"] = digests.path(config.seeds.polish, "seeds.polish")
        settings["prompts.polish"] = prompts.polish.digest
    return settings


def train_model(config: Config, job: ModelName, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train one of the two models into `folder` and return its metrics, written last.

    A killed training that is started again with the same folder goes on from its last checkpoint and ends in the
    same bytes. ConfigError and InputError, all bad seeds included, come before any model is loaded.
    """
    if (folder / "metrics.json").exists():  # killed after the training, before the runner's mark
        return dict(msgspec.json.decode((folder / "metrics.json").read_bytes()))
    base_model, _ = _needed(config)
    chat = load_chat(base_model, config.trust_remote_code)
    bad: list[BadSeed] = []
    examples = collect(config, job, chat, bad)
    training, held_out = seeds.split(examples, config.seeds.held_out)

    from kun.training.sft import train  # torch, from here on

    return train(config, job, chat, training, held_out, bad, folder, progress)


def collect(config: Config, job: ModelName, chat: Chat, bad: list[BadSeed]) -> list[Example]:
    """The examples of a model; seeds that cannot be used are added to `bad`."""
    prompts = load_prompts(config.prompts)
    files, limit = config.seeds, config.train.max_length
    pairs = seeds.read_seeds(_needed(config)[1], SeedPair, "seeds.pairs", bad)
    if job == "label":
        return seeds.encode(label_tasks(pairs, prompts), chat, limit, "seeds.pairs", bad)

    examples = seeds.encode(reply_tasks(pairs), chat, limit, "seeds.pairs", bad)
    if files.judge is not None:
        judged = seeds.read_seeds(files.judge, JudgedInstruction, "seeds.judge", bad)
        examples += seeds.encode(judge_tasks(judged, prompts), chat, limit, "seeds.judge", bad)
    if files.polish is not None:
        polished = seeds.read_seeds(files.polish, PolishedText, "seeds.polish", bad)
        examples += seeds.encode(polish_tasks(polished, prompts), chat, limit, "seeds.polish", bad)
    return examples


def label_tasks(pairs: list[Seed[SeedPair]], prompts: PromptSet) -> Iterator[Task]:
    """Output -> instruction."""
    for seed in pairs:
        yield Task(seed, prompts.label.messages(text=seed.row.output), seed.row.instruction)


def reply_tasks(pairs: list[Seed[SeedPair]]) -> Iterator[Task]:
    """Instruction -> output."""
    for seed in pairs:
        yield Task(seed, [Message("user", seed.row.instruction)], seed.row.output)


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
