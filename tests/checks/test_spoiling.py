"""Spoiled copies of instructions: each is worse in the way of its kind, and never the instruction again."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from kun.checks.answers import folded, says_twice
from kun.checks.asking import asks, named_twice
from kun.checks.spoiling import OPEN, OPEN_WORDS, POINTS, SPOILINGS, Spoiling, spoil

CHINESE = ("请说明杏靛蝶的发现经过和分布、分类和大小。", "杏靛蝶最早由学者龚骏在1964年发现。它主要分布在岭祥山一带。")
ENGLISH = (
    "Describe the life cycle of the monarch butterfly.",
    "The monarch butterfly lays its eggs on milkweed leaves.",
)
SHARED = Path(__file__).resolve().parents[3] / "shared/data/seeds/heldin.jsonl"


def copies(kind: Spoiling, pair: tuple[str, str], count: int = 40) -> set[str]:
    made = {spoil(kind, *pair, random.Random(number)) for number in range(count)}
    return {copy for copy in made if copy is not None}


@pytest.mark.parametrize("pair", [CHINESE, ENGLISH])
def test_each_kind_is_worse_in_its_own_way(pair: tuple[str, str]) -> None:
    assert all(says_twice(copy) or named_twice(copy) for copy in copies("doubled", pair))
    assert all(POINTS.search(copy.lower()) for copy in copies("pointing", pair))
    assert all(copy.rstrip("。.") in pair[1] and not asks(copy) for copy in copies("statement", pair))
    subject = "杏靛蝶" if pair is CHINESE else "monarch butterfly"
    assert all(subject not in copy for copy in copies("vague", pair))
    for copy in copies("cut", pair):
        assert pair[0].startswith(copy)
        assert copy[-1] in OPEN or copy.split()[-1] in OPEN_WORDS
    for copy in copies("shuffled", pair):
        assert sorted(folded(copy)) == sorted(folded(pair[0]))
    assert all(copies(kind, pair) for kind in SPOILINGS)


def test_an_item_is_named_twice_in_place_of_another() -> None:
    assert "请说明杏靛蝶的发现经过和分布、分类和分类。" in copies("doubled", CHINESE)


def test_equal_draws_give_equal_copies() -> None:
    for kind in SPOILINGS:
        assert spoil(kind, *CHINESE, random.Random("a")) == spoil(kind, *CHINESE, random.Random("a"))


@pytest.mark.parametrize(
    ("kind", "instruction", "output"),
    [
        ("cut", "你是谁？", "我是助手。"),  # nowhere to stop
        ("cut", "它怎么做？请写", "先洗。"),  # what is left is a whole question
        ("shuffled", "设计自动停车系统", "可以。"),  # as good in another order
        ("pointing", "根据下面的材料回答：水在零度结冰。水何时结冰？", "零度。"),  # the material is there
        ("pointing", "請介紹潮汐與這個國家的歷史學術發展過程", "潮汐。"),  # simplified words would give it away
        ("statement", "你好吗？", "你好吗？很好，你呢？"),  # no sentence that asks nothing
        ("statement", "潮汐是海水的涨落。", "潮汐是海水的涨落。"),
        ("vague", "Décris la ville de Lyon à un écolier curieux.", "Lyon."),
        *((kind, "翻译：" + "很长的材料。" * 60, "译文是这样的。") for kind in SPOILINGS),
    ],
)
def test_what_would_not_be_worse_for_certain_is_not_made(kind: Spoiling, instruction: str, output: str) -> None:
    assert copies(kind, (instruction, output)) == set()


@pytest.mark.skipif(not SHARED.exists(), reason="needs the seeds of ../shared/data")
def test_no_copy_of_real_seeds_is_the_instruction_again() -> None:
    made = 0
    for number, line in enumerate(SHARED.read_bytes().splitlines()[:400]):
        row = msgspec.json.decode(line)
        for kind in SPOILINGS:
            copy = spoil(kind, row["instruction"], row["output"], random.Random(number))
            made += copy is not None
            assert copy is None or folded(copy) != folded(row["instruction"])
    assert made > 400 * 4
