"""Stage 1: from one file of seed pairs, the label model and the primary chat (`kun run stage1 --config ...`).

The label model reads an output and writes the instruction it answers; the primary chat reads an instruction and
replies. Both are LoRA adapters on one base model. The primary chat judges instructions in stage 4 and polishes texts
in stage 5; where seeds for these jobs are given, it learns them here, through the very prompts of those stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from kun.chat import Chat, Message, load_chat
from kun.config import Config
from kun.errors import ConfigError
from kun.prompts import PromptSet, load_prompts
from kun.training import seeds
from kun.training.seeds import BadSeed, Example, Judged, Pair, Polish, Seed, Task

Job = Literal["label", "chat"]


def train_model(config: Config, job: Job, folder: Path, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Train one of the two models into `folder` and return its metrics.

    A killed training that is started again with the same folder goes on from its last checkpoint and ends in the
    same bytes. ConfigError and InputError, all bad seeds included, come before any model is loaded.
    """
    if config.base_model is None or config.seeds.pairs is None:
        raise ConfigError(f"{'base_model' if config.base_model is None else 'seeds.pairs'}: stage 1 needs it")
    chat = load_chat(config.base_model, config.trust_remote_code)
    bad: list[BadSeed] = []
    examples = collect(config, job, chat, bad)
    training, held_out = seeds.split(examples, config.seeds.held_out)

    from kun.training.sft import train  # torch, from here on

    return train(config, job, chat, training, held_out, bad, folder, progress)


def collect(config: Config, job: Job, chat: Chat, bad: list[BadSeed]) -> list[Example]:
    """The examples of a model; seeds that cannot be used are added to `bad`."""
    prompts = load_prompts(config.prompts)
    files, limit = config.seeds, config.train.max_length
    assert files.pairs is not None
    pairs = seeds.read(files.pairs, Pair, "seeds.pairs", bad)
    if job == "label":
        return seeds.encode(label_tasks(pairs, prompts), chat, limit, "seeds.pairs", bad)

    examples = seeds.encode(reply_tasks(pairs), chat, limit, "seeds.pairs", bad)
    if files.judge is not None:
        judged = seeds.read(files.judge, Judged, "seeds.judge", bad)
        examples += seeds.encode(judge_tasks(judged, prompts), chat, limit, "seeds.judge", bad)
    if files.polish is not None:
        polished = seeds.read(files.polish, Polish, "seeds.polish", bad)
        examples += seeds.encode(polish_tasks(polished, prompts), chat, limit, "seeds.polish", bad)
    return examples


def label_tasks(pairs: list[Seed[Pair]], prompts: PromptSet) -> Iterator[Task]:
    """Output -> instruction."""
    for seed in pairs:
        yield Task(seed, prompts.label.messages(text=seed.row.output), seed.row.instruction)


def reply_tasks(pairs: list[Seed[Pair]]) -> Iterator[Task]:
    """Instruction -> output."""
    for seed in pairs:
        yield Task(seed, [Message("user", seed.row.instruction)], seed.row.output)


def judge_tasks(judged: list[Seed[Judged]], prompts: PromptSet) -> Iterator[Task]:
    """Instruction -> verdict word, as stage 4 asks."""
    for seed in judged:
        word = prompts.score.word(seed.row.verdict == "good")
        yield Task(seed, prompts.score.messages(instruction=seed.row.instruction), word)


def polish_tasks(polished: list[Seed[Polish]], prompts: PromptSet) -> Iterator[Task]:
    """Text and instruction -> reply, as stage 5 asks."""
    for seed in polished:
        messages = prompts.polish.messages(text=seed.row.text, instruction=seed.row.instruction)
        yield Task(seed, messages, seed.row.output)
