"""From seed files to examples in token ids, listing bad lines: `read_seeds(path, SeedPair, "seeds.pairs", bad)`.

Nothing here needs torch: an unusable seed file ends the stage before a model is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from kun.corpora.files import numbered_lines
from kun.errors import InputError
from kun.models.chat import Chat, Message
from kun.store import digests

Reason = Literal["not_json", "missing_field", "wrong_type", "empty_field", "duplicate", "over_long"]


class SeedPair(msgspec.Struct, frozen=True):
    """A seed pair."""

    instruction: str
    output: str


class JudgedInstruction(msgspec.Struct, frozen=True):
    """An instruction with its verdict."""

    instruction: str
    verdict: Literal["good", "bad"]


class PolishedText(msgspec.Struct, frozen=True):
    """A text polished into the reply to an instruction."""

    instruction: str
    text: str
    output: str


# Part of the keys by which seeds are held out: changing a word here changes the split.
KINDS = {SeedPair: "Pair", JudgedInstruction: "Judged", PolishedText: "Polish"}


class BadSeed(msgspec.Struct, frozen=True):
    """A line that is not used, numbered from 1: `reason` is counted, `detail` is about this line."""

    file: str
    line: int
    reason: Reason
    detail: str


SeedRow = TypeVar("SeedRow", SeedPair, JudgedInstruction, PolishedText)


@dataclass(frozen=True)
class Seed(Generic[SeedRow]):
    """A usable line. `key` is a digest of its fields, independent of its position."""

    file: str
    line: int
    key: str
    row: SeedRow


@dataclass(frozen=True)
class Task:
    """What a model is to learn from a seed: the reply to this conversation."""

    seed: Seed[SeedPair] | Seed[JudgedInstruction] | Seed[PolishedText]
    messages: Sequence[Message]
    reply: str


@dataclass(frozen=True)
class Example:
    """A task in token ids; the loss covers `completion`, which ends in the end token."""

    task: Task
    prompt: list[int]
    completion: list[int]


def read_seeds(path: str, kind: type[SeedRow], setting: str, bad: list[BadSeed]) -> list[Seed[SeedRow]]:
    """The usable lines of a seed file; the others are added to `bad`. InputError where none is usable."""
    seeds: list[Seed[SeedRow]] = []
    first_line: dict[str, int] = {}
    before = len(bad)
    for number, line in numbered_lines(Path(path), setting):
        row = _parse(line, kind)
        if isinstance(row, tuple):
            bad.append(BadSeed(path, number, *row))
            continue
        key = digests.of_bytes(msgspec.json.encode([KINDS[kind], row]))
        if key in first_line:
            bad.append(BadSeed(path, number, "duplicate", f"the same as line {first_line[key]}"))
            continue
        first_line[key] = number
        seeds.append(Seed(path, number, key, row))
    if not seeds:
        raise _nothing_usable(setting, path, bad[before:])
    return seeds


def encode(tasks: Iterable[Task], chat: Chat, max_length: int, setting: str, bad: list[BadSeed]) -> list[Example]:
    """The tasks in token ids; those of more than `max_length` tokens are added to `bad`. InputError where none is
    left."""
    examples = []
    before, path = len(bad), ""
    for task in tasks:
        path = task.seed.file
        example = Example(task, chat.prompt(task.messages), chat.completion(task.reply))
        length = len(example.prompt) + len(example.completion)
        if length > max_length:
            detail = f"{length} tokens with its prompt; train.max_length is {max_length}"
            bad.append(BadSeed(path, task.seed.line, "over_long", detail))
        else:
            examples.append(example)
    if not examples:
        raise _nothing_usable(setting, path, bad[before:])
    return examples


def split(examples: Sequence[Example], held_out: float) -> tuple[list[Example], list[Example]]:
    """Training and evaluation examples. The split depends on the seed alone, so both models hold out the same ones."""
    chosen = [is_held_out(example.task.seed, held_out) for example in examples]
    training = [example for example, out in zip(examples, chosen, strict=True) if not out]
    if not training:  # a handful of seeds, all held out
        return list(examples), []
    return training, [example for example, out in zip(examples, chosen, strict=True) if out]


def is_held_out(seed: Seed[Any], held_out: float) -> bool:
    return int(seed.key[:12], 16) < held_out * 16**12


def _parse(line: bytes, kind: type[SeedRow]) -> SeedRow | tuple[Reason, str]:
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        return "not_json", str(error)
    try:
        row = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return ("missing_field" if "missing required field" in str(error) else "wrong_type"), str(error)
    empty = [name for name in kind.__struct_fields__ if not getattr(row, name).strip()]
    return ("empty_field", f"`{empty[0]}` is empty") if empty else row


def _nothing_usable(setting: str, path: str, bad: Sequence[BadSeed]) -> InputError:
    if not bad:
        return InputError(f"{setting}: {path} is empty")
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(seed.reason for seed in bad).items())
    first = bad[0]
    where = f"{path}:{first.line}: {first.reason}: {first.detail}"
    return InputError(f"{setting}: {path} has no usable seed: {counts}; the first: {where}")
