"""Judged instructions from pairs: what is trained on and what is tried are apart, and both are the same every time."""

from __future__ import annotations

import random

import pytest

from kun.checks.spoiling import SPOILINGS, spoil
from kun.demo.world import seed_pairs
from kun.store import digests
from kun.training.judging import FEWEST, TRIED, judged, trial
from kun.training.seeds import Seed, SeedPair, is_held_out

PAIRS = [
    Seed("pairs.jsonl", number, digests.of_value(row), SeedPair(row["instruction"], row["output"]))
    for number, row in enumerate(seed_pairs(7, 120), 1)
]


@pytest.mark.parametrize("held_out", [0.0, 0.05, 0.5])
def test_no_instruction_of_the_trial_is_trained_on(held_out: float) -> None:
    tried = {row.instruction for row in trial(PAIRS, held_out) if row.kind == "good"}
    taught = {seed.row.instruction for seed in judged(PAIRS, held_out) if seed.row.verdict == "good"}
    out = {seed.row.instruction for seed in PAIRS if is_held_out(seed, held_out)}
    assert len(tried) == min(max(len(out), FEWEST), TRIED)
    assert not taught & (tried | out)


def test_half_of_what_is_trained_on_is_good_and_the_kinds_take_turns() -> None:
    made = judged(PAIRS, 0.05)
    verdicts = [seed.row.verdict for seed in made]
    assert verdicts.count("good") == verdicts.count("bad") == 100
    by_kind = dict.fromkeys(SPOILINGS, 0)
    outputs = {seed.row.instruction: seed.row.output for seed in PAIRS}
    for good, bad in zip(made[::2], made[1::2], strict=True):
        instruction = good.row.instruction
        draws = {
            kind: spoil(kind, instruction, outputs[instruction], random.Random(f"{kind} {good.key}"))
            for kind in SPOILINGS
        }
        [kind] = [kind for kind, copy in draws.items() if copy == bad.row.instruction]
        by_kind[kind] += 1
    assert min(by_kind.values()) >= 8


def test_the_order_of_the_file_changes_nothing() -> None:
    mixed = random.Random(1).sample(PAIRS, len(PAIRS))
    assert [seed.row for seed in judged(mixed, 0.05)] == [seed.row for seed in judged(PAIRS, 0.05)]
    assert trial(mixed, 0.05) == trial(PAIRS, 0.05)
