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
from kun.models.needs import needs_of
from kun.pipeline.stage import WARNING, Build, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.prompts import PromptSet, load_prompts
from kun.seeds import files
from kun.store import atomic
from kun.store.digests import Digests
from kun.text.cutting import longest_opening
from kun.text.normal import preview
from kun.training import judging, seeds, tryout
from kun.training.judging import AUTO
from kun.training.seeds import BadSeed, Example, JudgedInstruction, Overview, PolishedText, Seed, SeedPair, Task

log = logging.getLogger(__name__)
SUMMARY = "train the label model and the primary chat from the seed pairs"
READING = ("fields", "speakers", "turns", "encoding", "header", "dataset")  # settings of how seed pairs are read
TRAIN = StageSpec("stage1", "stage1_train", "model", per_subset=False, summary=SUMMARY, version=3)


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
    names += [f"seeds.{name}" for name in READING]
    content = {"base_model": digests.path(local_folder(base_model), "base_model")}
    content["seeds.pairs"] = files.digest(pairs, digests)
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
    overview = Overview()
    examples = collect(config, job, chat, bad, overview)  # seeds that are of no use end this before a model is loaded
    for line in [*seeds.told(job, examples, bad, config.train.max_length), *seeds.told_of_file(overview)]:
        log.warning("seeds: %s", line)
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


def collect(
    config: Config, job: ModelName, chat: Chat, bad: list[BadSeed], overview: Overview | None = None
) -> list[Example]:
    """The training examples of a model; seeds that cannot be used are appended to `bad`."""
    given, limit = config.seeds, config.train.max_length
    pairs = seeds.read_seeds(_needed(config)[1], SeedPair, "seeds.pairs", bad, given, overview)
    if job == "label":
        prompts = load_prompts(config.prompts)
        examples = seeds.encode(label_tasks(label_material(pairs, bad), prompts), chat, limit, "seeds.pairs", bad)
        if given.polish is not None:
            polished = seeds.read_seeds(given.polish, PolishedText, "seeds.polish", bad)
            examples += seeds.encode(raw_label_tasks(polished, prompts), chat, limit, "seeds.polish", bad)
        return examples

    examples = seeds.encode(reply_tasks(pairs), chat, limit, "seeds.pairs", bad)
    if given.judge is not None:
        judged = (
            judging.judged(label_material(pairs, []), given.held_out)
            if given.judge == AUTO
            else seeds.read_seeds(given.judge, JudgedInstruction, "seeds.judge", bad)
        )
        examples += seeds.encode(judge_tasks(judged, load_prompts(config.prompts)), chat, limit, "seeds.judge", bad)
    if given.polish is not None:
        polished = seeds.read_seeds(given.polish, PolishedText, "seeds.polish", bad)
        examples += seeds.encode(polish_tasks(polished, load_prompts(config.prompts)), chat, limit, "seeds.polish", bad)
    return examples


def _pairs(examples: list[Example]) -> list[tuple[str, str]]:
    rows = (example.task.seed.row for example in examples)
    return [(row.request, row.output) for row in rows if isinstance(row, SeedPair)]


def _write_trial(examples: list[Example], held_out: float, folder: Path) -> None:
    """Held-out instructions and spoiled copies of them, on which stage 4 tries the judge."""
    pairs = [one.task.seed for one in examples if isinstance(one.task.seed.row, SeedPair)]
    rows = judging.trial(label_material(pairs, []), held_out)
    atomic.write(folder / judging.TRIAL, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


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
        yield _labelling(seed, prompts, seed.row.output, seed.row.request)


def raw_label_tasks(polished: list[Seed[PolishedText]], prompts: PromptSet) -> Iterator[Task]:
    """Raw text -> instruction: stage 3 asks for raw texts, whose headers and asides no clean output has."""
    for seed in polished:
        yield _labelling(seed, prompts, seed.row.text, seed.row.instruction)


def _labelling(seed: Seed[Any], prompts: PromptSet, text: str, request: str) -> Task:
    def reading(text: str) -> Task:
        return Task(seed, prompts.label.messages(text=text), request)

    return replace(reading(text), shorter=partial(_shorter, reading, text))


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


def _polished(config: Config, digests: Digests) -> dict[str, Any]:
    path = config.seeds.polish
    return {} if path is None else {"seeds.polish": digests.path(path, "seeds.polish")}


def _needed(config: Config) -> tuple[str, str]:
    """The base model and the seed pairs, without which there is nothing to train."""
    if config.base_model is None or config.seeds.pairs is None:
        missing = "base_model" if config.base_model is None else "seeds.pairs"
        raise ConfigError(f"{missing}: training needs it; set it in the configuration or by --{missing}")
    return config.base_model, config.seeds.pairs
