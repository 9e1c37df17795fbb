"""Judged instructions from seed pairs, without labels: `judged(pairs, held_out)` to train with, `trial(...)` to test.

Pairs are ordered by the digests of their content. The first ones, which are the held-out ones, are for the trial, and
no copy of theirs is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from kun.checks.spoiling import SPOILINGS, spoil
from kun.training.seeds import JudgedInstruction, Seed, SeedPair, is_held_out

AUTO = "auto"  # the value of seeds.judge that asks for copies; a file of this name is ./auto
TRIAL = "trial.jsonl"  # in the folder of the chat model
TAUGHT = 1000  # pairs whose copies are trained on: verdicts cost as much as their long prompt
TRIED, FEWEST = 50, 20  # pairs of a trial: at most so many held-out ones; and some others where there are fewer


class Tried(msgspec.Struct, frozen=True):
    """An instruction of the trial, with the text that it belongs to. `kind`: how it is spoiled, or good."""

    instruction: str
    text: str
    kind: str


def judged(pairs: Sequence[Seed[SeedPair]], held_out: float) -> list[Seed[JudgedInstruction]]:
    """Each instruction as good, and a spoiled copy of it as bad; the kinds take turns."""
    ordered = sorted(pairs, key=lambda seed: seed.key)
    made: list[Seed[JudgedInstruction]] = []
    for number, seed in enumerate(ordered[_tried(ordered, held_out) :][:TAUGHT]):
        kinds = SPOILINGS[number % len(SPOILINGS) :] + SPOILINGS[: number % len(SPOILINGS)]
        copies = (spoil(kind, seed.row.request, seed.row.output, random.Random(f"{kind} {seed.key}")) for kind in kinds)
        if (copy := next(filter(None, copies), None)) is not None:
            good, bad = JudgedInstruction(seed.row.request, "good"), JudgedInstruction(copy, "bad")
            made += [Seed(AUTO, seed.line, seed.key, row) for row in (good, bad)]
    return made


def trial(pairs: Sequence[Seed[SeedPair]], held_out: float) -> list[Tried]:
    """Held-out instructions, each followed by its spoiled copies, one of each kind."""
    ordered = sorted(pairs, key=lambda seed: seed.key)
    rows: list[Tried] = []
    for seed in ordered[: min(_tried(ordered, held_out), TRIED)]:
        instruction, output = seed.row.request, seed.row.output
        rows.append(Tried(instruction, output, "good"))
        for kind in SPOILINGS:
            copy = spoil(kind, instruction, output, random.Random(f"{kind} {seed.key}"))
            rows += [Tried(copy, output, kind)] if copy is not None else []
    return rows


def _tried(ordered: Sequence[Seed[SeedPair]], held_out: float) -> int:
    """How many of the first pairs are for the trial: all that are held out, or, where they are few, up to a fifth."""
    out = sum(is_held_out(seed, held_out) for seed in ordered)
    return max(out, min(FEWEST, len(ordered) // 5))
