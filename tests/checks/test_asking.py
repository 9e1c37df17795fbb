"""Instructions that ask nothing, and lists that name an item twice."""

from __future__ import annotations

import time

import pytest

from kun.checks.asking import asks, asks_nothing, named_twice

CITY = (
    "卡塞雷斯（西班牙语：Cáceres）西班牙城市，是卡塞雷斯省的首府。卡塞雷斯城是罗马人在公元前25年建立的。"
    "罗保铭，男，汉族，1952年10月生，天津人，1971年4月参加工作。将水烧开后加入面条。"
)
DRUG = "放线菌酮由灰色链霉菌产生，通过干扰易位步骤来抑制真核生物的蛋白质合成。"
TRADITIONAL = "放線菌酮由灰色鏈黴菌產生，透過干擾易位步驟來抑制真核生物的蛋白質合成。"
ENGLISH = "Cambodia does not fully comply with the minimum standards. It drafted a pilot program in 2013."


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("卡塞雷斯城是罗马人在公元前25年建立的。", CITY),
        ("罗保铭，天津人。", CITY),
        ("将水烧开后加入面条。", CITY),  # a request, but the text's own
        ("卡塞雷斯省的首府", CITY),
        ("放线菌酮抑制蛋白质合成", DRUG),
        ("放線菌酮抑制蛋白質合成", TRADITIONAL),
        ("It drafted a pilot program in 2013.", ENGLISH),
        ("Cambodia does not comply with the minimum standards", ENGLISH),
    ],
)
def test_a_statement_or_heading_that_stands_in_the_text_asks_nothing(statement: str, text: str) -> None:
    assert asks_nothing(statement, text)


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("卡塞雷斯城是谁在公元前25年建立的", CITY),
        ("罗保铭是天津人吗", CITY),
        ("介绍罗保铭", CITY),
        ("卡塞雷斯的历史", CITY),
        ("放線菌酮如何抑制蛋白質合成", TRADITIONAL),
        ("说明放线菌酮抑制蛋白质合成的步骤", DRUG),
        ("Which standards does Cambodia not comply with", ENGLISH),
        ("Describe the pilot program in 2013.", ENGLISH),
        ("我今天睡不着，头很痛。", CITY),  # a statement, but the user's own
        ("你好", "你好，有什么可以帮你的？"),
    ],
)
def test_a_question_a_request_a_topic_and_a_statement_of_the_user_ask(instruction: str, text: str) -> None:
    assert not asks_nothing(instruction, text)


def test_a_verb_with_the_sign_of_the_past_is_no_request() -> None:
    assert asks("分析这种方法")
    assert not asks("分析了这种方法")


@pytest.mark.parametrize(
    ("instruction", "item"),
    [
        ("福贝古镇在哪里？请介绍它的海拔、最佳季节和海拔。", "海拔"),
        ("请说明雁兰摄影展的日期、地点、时间、票价和时间。", "时间"),
        ("請介紹它的海拔、季節與海拔。", "海拔"),
        ("Describe the height, best season and height of Mount X.", "height"),
        ("Compare its price, weight, and price.", "price"),
    ],
)
def test_an_item_that_a_list_has_twice_is_found(instruction: str, item: str) -> None:
    assert named_twice(instruction) == item


@pytest.mark.parametrize(
    "instruction",
    [
        "请介绍它的海拔、面积和最佳季节。",
        "比较苹果和香蕉、苹果和梨。",
        "儿童医院、诊所和医院有什么区别？",
        "人和人之间为什么要交流？",
        "把3、7、3和1按大小排列。",
        "Compare cats and dogs, cats and mice.",
        "A family has a boy, a girl and a boy. How old are they?",
    ],
)
def test_a_list_without_a_repeated_item_is_left_alone(instruction: str) -> None:
    assert named_twice(instruction) is None


@pytest.mark.parametrize("text", ["在" * 1000, "。用" * 500, "a," * 500, "、".join("的" * 500), "and " * 250])
def test_hostile_instructions_take_no_time(text: str) -> None:
    start = time.process_time()
    asks_nothing(text, text * 2)
    asks(text)
    named_twice(text)
    assert time.process_time() - start < 2
