"""Checks of answers, by hand-made cases and hostile ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.checks import answers

LIMIT = 1.0  # seconds for a megabyte


@pytest.mark.parametrize(
    ("reply", "instruction"),
    [
        ("指令：“什么是光合作用？”", "什么是光合作用？"),
        ("“指令：什么是光合作用？”", "什么是光合作用？"),
        ("**指令：** 介绍一下北京。", "介绍一下北京。"),
        ("【问题】写诗", "写诗"),
        ("Instruction: Explain tides.", "Explain tides."),
        ("「何謂潮汐？」", "何謂潮汐？"),
        ("```写一段代码```", "写一段代码"),
        ("  什么是潮汐？\u3000\u3000\u3000\u3000\u3000还有别的话", "什么是潮汐？"),
        ("什么是潮汐？\n\n\n\n\n还有别的话", "什么是潮汐？"),
        ("什么是潮汐？\n什么是潮汐？", "什么是潮汐？"),
        ("什么是潮汐？\n\n什么是潮汐\n为什么？", "什么是潮汐？\n\n为什么？"),
        # and what must stay
        ("“A”和“B”有什么区别？", "“A”和“B”有什么区别？"),
        ("“A”和“B”", "“A”和“B”"),
        ("问题出在哪里？", "问题出在哪里？"),
        ("说明这段程序：\n        print(1)", "说明这段程序：\n        print(1)"),
        ("写出{text}的含义 <b>", "写出{text}的含义 <b>"),
        ("", ""),
        ("“", "“"),
    ],
)
def test_clean_instruction(reply: str, instruction: str) -> None:
    assert answers.clean_instruction(reply) == instruction


@given(st.text(max_size=60))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert isinstance(answers.clean_instruction(text), str)
    once = answers.clean_output(text)
    assert once == once.strip()


def test_clean_output() -> None:
    assert answers.clean_output(" 答复：潮汐由引力引起。\n") == "潮汐由引力引起。"
    assert answers.clean_output("答复他的信要写清楚") == "答复他的信要写清楚"


@pytest.mark.parametrize(
    ("instruction", "twice"),
    [
        ("什么是潮汐？什么是潮汐？", True),
        ("什么是潮汐？ 什么是潮汐。什么是潮汐", True),
        ("请解释光合作用。请解释光合作用。并举例", True),
        ("What is a tide? what is a tide?", True),
        ("为什么天是蓝的？为什么海是蓝的？", False),
        ("谢谢", False),
        ("介绍爸爸", False),
        ("", False),
        ("？？？", False),
    ],
)
def test_says_twice(instruction: str, twice: bool) -> None:
    assert (answers.says_twice(instruction) is not None) is twice


def test_pointing_words_ignore_case() -> None:
    assert answers.pointing_word("Summarise the Text", ("image", "text")) == "text"
    assert answers.pointing_word("什么是潮汐？", ("材料",)) is None


def test_copied_needs_thirty_letters_in_a_row() -> None:
    text = "西湖位于浙江省杭州市西部，湖面约六平方公里，三面环山，是著名的风景游览胜地，每年游人众多。"
    assert answers.copied("介绍西湖位于浙江省杭州市西部，湖面约六平方公里，三面环山，是著名的风景", text)
    assert answers.copied("西湖位于浙江省杭州市哪里？面积多大？", text) is None


def test_unusable() -> None:
    assert answers.unusable("a <|im_end|> b") == ("control_token", "<|im_end|>")
    assert answers.unusable("a</s>") == ("control_token", "</s>")
    assert answers.unusable("好\ufffd") == ("garbled", "U+FFFD at character 1")
    assert answers.unusable("a < b | c > d，1<|x|，<b>粗</b>\u2028") is None


def test_echo_knows_the_prompts_own_words_only() -> None:
    prompt = "【文字】\n{text}\n【文字结束】\n写出一条独立成立的完整指令，不要解释。\n指令：{text}"
    assert answers.echo("好的。写出一条独立成立的完整指令，不要解释", prompt)
    assert answers.echo("什么是独立成立的完整指令？", prompt) is None
    assert answers.echo("【文字】", prompt) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("我很好" * 6, True),
        ("我很好" * 5 + "。谢谢大家来看我，祝各位身体健康", False),
        ("我 很好\n" * 6, True),
        ("哈哈哈哈哈哈，真有意思", True),
        ("开头正常，后来" + "啊" * 20, True),
        ("先说一句。" + "同一句话反反复复说个没完没了。" * 6, True),
        ("潮汐是海水在月球和太阳的引力作用下产生的周期性涨落。白天的叫潮，夜间的叫汐，合称潮汐。", False),
        ("价格是1000000000000000000元", False),
        ("---\n标题\n---", False),
        ("", False),
    ],
)
def test_repeats(text: str, found: bool) -> None:
    assert (answers.repeats(text, limit=5) is not None) is found


@given(st.text(alphabet="ab", max_size=40), st.integers(1, 6))
def test_opening_repeats_is_what_its_definition_says(text: str, limit: int) -> None:
    units = (text[:p] for p in range(1, len(text) + 1) if text.startswith(text[:p] * (limit + 1)))
    assert answers.opening_repeats(text, limit) == next(units, None)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "ab" * 500_000,
        "a" * 999_999 + "b",
        ("a" * 160_000 + "b") * 6,
        "a" * 160_000 + "b" + "a" * 840_000,
    ],
)
def test_a_megabyte_of_repetition_takes_linear_time(text: str) -> None:
    start = time.process_time()
    answers.opening_repeats(text, 5)
    assert time.process_time() - start < LIMIT
    answers.repeats(text, 5)
    answers.says_twice(text)
    answers.clean_instruction(text)
    answers.clean_instruction(" \n" * 500_000 + text[:10])
    answers.unusable(text + "<|" * 100_000)
    assert time.process_time() - start < 5 * LIMIT


@pytest.mark.parametrize(
    ("reply", "good", "bad", "expected"),
    [
        ("优", "优", "差", True),
        ("评判：差。", "优", "差", False),
        ("不优", "优", "差", False),
        ("优，不差", "优", "差", None),
        ("合格", "合格", "不合格", True),
        ("不合格", "合格", "不合格", False),
        ("合格，也可以说不合格", "合格", "不合格", None),
        ("没有不合格之处", "合格", "不合格", False),
        ("ＧＯＯＤ!", "good", "bad", True),
        ("Not good.", "good", "bad", False),
        ("bad, not good", "good", "bad", False),
        ("goodness, badly", "good", "bad", None),
        ("good or bad", "good", "bad", None),
        ("", "good", "bad", None),
        ("I cannot judge that", "good", "bad", None),
    ],
)
def test_verdict(reply: str, good: str, bad: str, expected: bool | None) -> None:
    assert answers.verdict(reply, good, bad) is expected


def test_a_sentence_said_more_often_than_the_source_says_it_is_found() -> None:
    source = "门票每人54元。最高处海拔519米。好。好。"
    assert answers.says_again("门票每人54元。最高处海拔519米。门票每人54元。", source) == "门票每人54元"
    assert answers.says_again("门票每人54元。最高处海拔519米。好。好。", source) is None
    refrain = "一去二三里，烟村四五家。"
    assert answers.says_again(refrain * 2, refrain * 2) is None
    assert answers.says_again(refrain * 3, refrain * 2) == refrain[:-1]


def test_labels_are_taken_off_however_many_there_are() -> None:
    assert answers.clean_instruction("指令：问题：**Q1:** “请介绍杭州。”") == "请介绍杭州。"
    assert answers.clean_output("答：" * 300_000 + "好") == "好"


@given(st.text(alphabet="ab。", max_size=40), st.text(alphabet="ab。", max_size=60))
def test_copied_is_the_first_stretch_that_the_text_has(instruction: str, text: str) -> None:
    bare, source = answers.folded(instruction), answers.folded(text)
    found = (bare[start : start + 5] for start in range(len(bare) - 4))
    assert answers.copied(instruction, text, 5) == next((part for part in found if part in source), None)
