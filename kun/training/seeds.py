"""From seed files to examples in token ids, listing what is not used: `read_seeds(path, SeedPair, "seeds.pairs", bad)`.

Nothing here needs torch: an unusable seed file ends the stage before a model is loaded. How files become rows and pairs
is in kun/seeds/.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from kun.config.schema import Seeds
from kun.errors import InputError
from kun.models.chat import Chat, Message
from kun.seeds.files import read_items
from kun.seeds.pairs import Fault, Reason, SeedPair
from kun.seeds.shapes import Reading, read_row
from kun.store import digests

__all__ = [
    "BadSeed",
    "Example",
    "JudgedInstruction",
    "Overview",
    "PolishedText",
    "Seed",
    "SeedPair",
    "Task",
    "encode",
    "is_held_out",
    "read_seeds",
    "split",
    "told",
    "told_of_file",
]


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
    """A row, or a turn of one, that is not used, numbered from 1: `reason` is counted, `detail` is about this row."""

    file: str
    line: int
    reason: Reason
    detail: str


SeedRow = TypeVar("SeedRow", SeedPair, JudgedInstruction, PolishedText)


@dataclass(frozen=True)
class Seed(Generic[SeedRow]):
    """A usable row. `key` is a digest of its fields, independent of its position."""

    file: str
    line: int
    key: str
    row: SeedRow


@dataclass(frozen=True)
class Task:
    """What a model is to learn from a seed: the reply to this conversation.

    `ends` is false where the reply is only its beginning, which is learnt without an end. `shorter` finds the longest
    form of the task that is an example, where there is one.
    """

    seed: Seed[SeedPair] | Seed[JudgedInstruction] | Seed[PolishedText]
    messages: Sequence[Message]
    reply: str
    ends: bool = True
    shorter: Callable[[Callable[[Task], Example | None]], Example | None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Example:
    """A task in token ids; the loss covers `completion`, which ends in the end token unless the task does not end."""

    task: Task
    prompt: list[int]
    completion: list[int]
    cut: bool = False


@dataclass
class Overview:
    """What was seen while files were read: rows, how each was read, fields that were not, and what looks odd."""

    rows: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)


# What a model would learn to write, and hardly anybody wants it to.
ODD = {
    "placeholders such as {{name}}, to be filled in first": re.compile(r"\{\{ ?[a-z_]{2,20} ?\}\}"),
    "a backslash and n in place of all line breaks": re.compile(r"\A[^\n]*\\n[^\n]*\Z"),
    "characters that a wrong encoding has destroyed": re.compile("\ufffd|锟斤拷|烫烫烫"),
    "control tokens of a chat template": re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]"),
}


def read_seeds(
    path: str,
    kind: type[SeedRow],
    setting: str,
    bad: list[BadSeed],
    settings: Seeds | None = None,
    overview: Overview | None = None,
) -> list[Seed[SeedRow]]:
    """The usable rows of a seed file; the others are added to `bad`. InputError where none is usable.

    Pairs are recognised by their fields, as `settings` say; the other kinds have those of their own names.
    """
    seeds: list[Seed[SeedRow]] = []
    first_line: dict[str, str] = {}
    before = len(bad)
    overview = overview or Overview()
    for file, line, row in _rows(path, kind, setting, settings or Seeds(), overview):
        if isinstance(row, Fault):
            bad.append(BadSeed(file, line, *row))
            continue
        key = digests.of_bytes(msgspec.json.encode([KINDS[kind], row]))
        if key in first_line:
            bad.append(BadSeed(file, line, "duplicate", f"the same as {first_line[key]}"))
            continue
        first_line[key] = f"line {line}" if file == path else f"{file}:{line}"
        seeds.append(Seed(file, line, key, row))
    if not seeds:
        raise _nothing_usable(setting, path, bad[before:])
    return seeds


def encode(tasks: Iterable[Task], chat: Chat, max_length: int, setting: str, bad: list[BadSeed]) -> list[Example]:
    """The tasks in token ids, shortened where they must and can be; those that do not fit are added to `bad`.
    InputError where none is left."""
    examples: list[Example] = []
    before, path = len(bad), ""

    def fitting(task: Task) -> Example | None:
        completion = chat.completion(task.reply) if task.ends else chat.encode(task.reply)
        example = Example(task, chat.prompt(task.messages), completion)
        return example if len(example.prompt) + len(completion) <= max_length and completion else None

    for task in tasks:
        path = task.seed.file
        example = fitting(task)
        if example is None and task.shorter is not None and (short := task.shorter(fitting)) is not None:
            example = Example(short.task, short.prompt, short.completion, cut=True)
        if example is None:
            length = len(chat.prompt(task.messages)) + len(chat.completion(task.reply))
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


REMEDIES = {
    "over_long": "longer than train.max_length even when cut: raise that",
    "follow_up": "later turns of conversations, which do not stand alone: the chat model learns them",
    "own_system": "with a system message of their own, which no text tells: the chat model learns them",
    "duplicate": "",
}


def told(model: str, examples: Sequence[Example], bad: Sequence[BadSeed], max_length: int) -> list[str]:
    """What the user is told of the seeds of a model before training: what is cut and what is left out, as shares."""
    total = len(examples) + len(bad)
    lines = []
    if cut := sum(example.cut for example in examples):
        what = f"{_share(cut, total)} are cut to train.max_length {max_length} ({_CUTS[model]})"
        lines.append(f"{model} model: {what}")
    for reason, count in Counter(seed.reason for seed in bad).most_common():
        remedy = REMEDIES.get(reason, f"{reason}: `kun seeds check` shows them")
        if remedy:
            lines.append(f"{model} model: {_share(count, total)} are left out: {remedy}")
    return lines


def told_of_file(overview: Overview) -> list[str]:
    """What the user is told of what the pairs hold."""
    return [f"{count:,} pairs hold {what} (`kun seeds check` shows them)" for what, count in overview.odd.items()]


_CUTS = {
    "label": "the text that it reads ends earlier, at a sentence",
    "chat": "the oldest turns are dropped, and a reply ends earlier, which is learnt as a beginning without an end",
}


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} seeds ({count / total:.1%})"


def _rows(
    path: str, kind: type[SeedRow], setting: str, settings: Seeds, overview: Overview
) -> Iterator[tuple[str, int, Any]]:
    """File, line, and the row or the Fault."""
    reading = Reading(settings.fields, settings.speakers, settings.turns == "first")
    for item in read_items(path, settings, setting):
        overview.rows += 1
        if isinstance(item.value, Fault):
            yield item
        elif kind is not SeedPair:
            yield item.file, item.line, _plain(item.value, kind)
        else:
            for found in read_row(item.value, reading):
                overview.shapes[found.shape] += 1
                overview.unread.update(found.unread)
                for pair in found.pairs:
                    if isinstance(pair, SeedPair):
                        overview.odd.update(_odd(pair))
                    yield item.file, item.line, pair


def _odd(pair: SeedPair) -> list[str]:
    return [name for name, form in ODD.items() if form.search(pair.output) or form.search(pair.request)]


def _plain(value: Any, kind: type[SeedRow]) -> SeedRow | Fault:
    try:
        row = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return Fault("missing_field" if "missing required field" in str(error) else "wrong_type", str(error))
    empty = [name for name in kind.__struct_fields__ if not getattr(row, name).strip()]
    return Fault("empty_field", f"`{empty[0]}` is empty") if empty else row


def _nothing_usable(setting: str, path: str, bad: Sequence[BadSeed]) -> InputError:
    if not bad:
        return InputError(f"{setting}: {path} is empty")
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(seed.reason for seed in bad).items())
    first = bad[0]
    where = f"line {first.line}" if first.file == path else f"{first.file}:{first.line}"
    why = f"{where}: {first.reason}: {first.detail}"
    if first.reason == "missing_field" and any(ending in Path(path).suffixes for ending in (".csv", ".tsv")):
        why += (
            "; where the first line is a row and no header, set seeds.header: false and number the columns, such as "
            "seeds.fields: {instruction: 1, output: 2}"
        )
    return InputError(f"{setting}: {path} has no usable seed: {counts}; the first: {why}")
