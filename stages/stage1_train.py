"""Stage 1, train: the label model and the primary chat, both from one file of seed pairs. `kun run stage1`

The label model reads an output and writes the instruction that it answers; the primary chat reads an instruction and
replies. Both are LoRA adapters on one base model. The primary chat judges instructions in stage 4 and polishes texts
in stage 5; where there are seeds for these jobs, it learns them here, with the prompts of those stages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from kun.config.schema import Config, ModelName, Train
from kun.errors import ConfigError
from kun.models.chat import Chat, Message, load_chat
from kun.models.folder import local_folder
from kun.models.needs import needs_of
from kun.pipeline.stage import WARNING, Build, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.prompts import PromptSet, load_prompts
from kun.store import atomic
from kun.store.digests import Digests
from kun.training import judging, seeds, tryout
from kun.training.judging import AUTO
from kun.training.seeds import BadSeed, Example, JudgedInstruction, PolishedText, Seed, SeedPair, Task

log = logging.getLogger(__name__)
SUMMARY = "train the label model and the primary chat from the seed pairs"
TRAIN = StageSpec("stage1", "stage1_train", "model", per_subset=False, summary=SUMMARY, version=2)


def stage(config: Config, digests: Digests) -> Stage:
    """The stage with its two steps, one for each model."""
    steps = (Step(TRAIN, job, partial(training_settings, config, job, digests)) for job in get_args(ModelName))
    return Stage(TRAIN, Build(build), tuple(steps))


def build(context: StepContext, progress: Progress) -> dict[str, Any]:
    job: ModelName = "label" if context.step.part == "label" else "chat"
    metrics = train_model(context.settings, job, context.folder, progress)
    bad = sum(metrics["bad_seeds"].values())
    counts = {"examples": metrics["examples"], "held out": metrics["held_out"], "bad seeds": bad}
    counts |= {"steps": metrics["steps"], "loss": metrics["train_loss_last"], "eval loss": metrics["eval_loss"]}
    counts["replies that end"] = "{ended} of {tried}".format(**metrics["replies"])
    if problem := tryout.warning(metrics["replies"], job):
        counts[WARNING] = problem
    return counts


def training_settings(config: Config, job: ModelName, digests: Digests) -> StepSettings:
    """What decides the model: base, seed files and prompts (all three by content), and the training settings."""
    base_model, pairs = _needed(config)
    prompts = load_prompts(config.prompts)
    other = "chat" if job == "label" else "label"
    names = ["base_model", "prompts", "seed", "seeds.pairs", "seeds.held_out"]
    names += [f"train.{name}" for name in Train.model_fields if name != other]
    content = {"base_model": digests.path(local_folder(base_model), "base_model")}
    content["seeds.pairs"] = digests.path(pairs, "seeds.pairs")
    if job == "label":
        content["prompts.label"] = prompts.label.digest
        return StepSettings.of(config, [*names, "seeds.polish"], **content | _polished(config, digests))
    names += ["seeds.judge", "seeds.polish"]
    if (judge := config.seeds.judge) is not None:
        content["seeds.judge"] = AUTO if judge == AUTO else digests.path(judge, "seeds.judge")
        content["prompts.score"] = prompts.score.digest
    if config.seeds.polish is not None:
        content |= _polished(config, digests)
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
    examples = collect(config, job, chat, bad)  # seeds that are of no use end this before a model is loaded
    training, held_out = seeds.split(examples, config.seeds.held_out)
    needs = needs_of(_needed(config)[0], _pairs(training), config.trust_remote_code)
    for text in needs.told:
        log.warning("%s: base_model: %s", job, text)
    if needs.chat.fingerprint != chat.fingerprint:
        bad.clear()
        training, held_out = seeds.split(collect(config, job, needs.chat, bad), config.seeds.held_out)
    if job == "chat":
        _write_trial([*training, *held_out], config.seeds.held_out, folder)

    from kun.training.sft import train  # torch, from here on

    return train(config, job, needs.chat, training, held_out, bad, folder, progress, needs.measured)


def collect(config: Config, job: ModelName, chat: Chat, bad: list[BadSeed]) -> list[Example]:
    """The training examples of a model; seeds that cannot be used are appended to `bad`."""
    files, limit = config.seeds, config.train.max_length
    pairs = seeds.read_seeds(_needed(config)[1], SeedPair, "seeds.pairs", bad)
    if job == "label":
        prompts = load_prompts(config.prompts)
        examples = seeds.encode(label_tasks(pairs, prompts), chat, limit, "seeds.pairs", bad)
        if files.polish is not None:
            polished = seeds.read_seeds(files.polish, PolishedText, "seeds.polish", bad)
            examples += seeds.encode(raw_label_tasks(polished, prompts), chat, limit, "seeds.polish", bad)
        return examples

    examples = seeds.encode(reply_tasks(pairs), chat, limit, "seeds.pairs", bad)
    if files.judge is not None:
        judged = (
            judging.judged(pairs, files.held_out)
            if files.judge == AUTO
            else seeds.read_seeds(files.judge, JudgedInstruction, "seeds.judge", bad)
        )
        examples += seeds.encode(judge_tasks(judged, load_prompts(config.prompts)), chat, limit, "seeds.judge", bad)
    if files.polish is not None:
        polished = seeds.read_seeds(files.polish, PolishedText, "seeds.polish", bad)
        examples += seeds.encode(polish_tasks(polished, load_prompts(config.prompts)), chat, limit, "seeds.polish", bad)
    return examples


def _pairs(examples: list[Example]) -> list[tuple[str, str]]:
    rows = (example.task.seed.row for example in examples)
    return [(row.instruction, row.output) for row in rows if isinstance(row, SeedPair)]


def _write_trial(examples: list[Example], held_out: float, folder: Path) -> None:
    """Held-out instructions and spoiled copies of them, on which stage 4 tries the judge."""
    pairs = [cast(Seed[SeedPair], one.task.seed) for one in examples if isinstance(one.task.seed.row, SeedPair)]
    rows = judging.trial(pairs, held_out)
    atomic.write(folder / judging.TRIAL, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def label_tasks(pairs: list[Seed[SeedPair]], prompts: PromptSet) -> Iterator[Task]:
    """Output -> instruction."""
    for seed in pairs:
        yield Task(seed, prompts.label.messages(text=seed.row.output), seed.row.instruction)


def raw_label_tasks(polished: list[Seed[PolishedText]], prompts: PromptSet) -> Iterator[Task]:
    """Raw text -> instruction: stage 3 asks for raw texts, whose headers and asides no clean output has."""
    for seed in polished:
        yield Task(seed, prompts.label.messages(text=seed.row.text), seed.row.instruction)


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


def _polished(config: Config, digests: Digests) -> dict[str, Any]:
    path = config.seeds.polish
    return {} if path is None else {"seeds.polish": digests.path(path, "seeds.polish")}


def _needed(config: Config) -> tuple[str, str]:
    """The base model and the seed pairs, without which there is nothing to train."""
    if config.base_model is None or config.seeds.pairs is None:
        missing = "base_model" if config.base_model is None else "seeds.pairs"
        raise ConfigError(f"{missing}: training needs it; set it in the configuration or by --{missing}")
    return config.base_model, config.seeds.pairs
