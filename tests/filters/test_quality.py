import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Quality
from kun.filters import quality
from kun.filters.repetition import LENGTH, repeated_share
from kun.text import characters as c
from kun.text.characters import common_han, count

NEWS = (
    "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多，远处的湖面在阳光下闪着光。"
    "下山时我们在一家小店吃了面，老板说今年的游客比往年少了一些，不过他并不着急。"
)
GOOD = {
    "prose": NEWS,
    "traditional": "這座橋建於一九三二年，全長約四百公尺，是當時全島最長的吊橋。戰後曾經兩度整修，"
    "如今只開放行人與腳踏車通行，每逢假日總有許多遊客前來拍照。",
    "poem": "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。",
    "list": "做这道菜需要：\n1. 鸡蛋三个\n2. 西红柿两个\n3. 葱一根\n4. 盐少许\n先把鸡蛋打散，再把西红柿切块。",
    "dialogue": "“你去哪儿？”\n“回家。”\n“这么早？”\n“嗯，孩子发烧了，我得去医院看看。”\n“那快走吧，路上小心。”",
    "english": "用 pip install requests 安装之后，就可以在 Python 里写 import requests；Session 对象会保留 cookie，"
    "适合连续访问同一个网站。",
    "formula": "已知 f(x) = x^2 + 3x - 4，求 f(x) = 0 的根。因式分解得 (x + 4)(x - 1) = 0，所以 x = -4 或者 x = 1。",
    "comment": "送货很快~~~ 包装也不错👍 就是颜色比图片上深一点，总体还是满意的，下次还会再来！！",
    "numbers": "2019年该县实现地区生产总值215.6亿元，比上年增长6.3%；"
    "其中第一产业42.1亿元，第二产业88.9亿元，第三产业84.6亿元。",
    "address": "更多内容见 https://www.example.com/docs/guide/install.html?lang=zh-CN 这一页，"
    "里面一步一步写得很清楚，照着做就行。",
    "rare names": "赑屃、螭吻、蒲牢、狴犴、饕餮、睚眦、狻猊、椒图，是传说中龙的儿子，各有各的脾气和爱好，"
    "常常用来装饰建筑和器物，所以古人说龙生九子不成龙，各有所好。",
}
MENU = " | ".join(
    random.Random(0).choices(("首页", "登录", "注册", "联系我们", "返回顶部", "友情链接", "版权所有", "下一页"), k=40)
)
BAD = {
    "rare_characters": NEWS[:60].encode().decode("gbk", "replace"),
    "random_codes": "".join(random.Random(0).choices("0123456789abcdefABCDEF+-_/;%#&=", k=150)),
    "digits": "13800138000 13900139001 13700137002 价格 128 256 512 1024 电话 0108888999 邮编 100080",
    "symbols": "★★★★★●●●●●▲▲▲▲▲◆◆◆◆◆■■■■■好评如潮★★★★★欢迎选购●●●●●",
    "ellipses": "然后…他…就…走…了…再…也…没…有…回…来…过…一…次…真…的…",
    "unique_characters": "哈哈呵" * 30,
    "entropy": "啊" * 40 + "好",
    "unbroken": "".join(random.Random(1).choices(common_han(), k=300)),
    "boilerplate": MENU,
    "duplicate_lines": "\n".join(["今天的天气真的很好。", "我们一起出去走走吧。"] * 4 + [NEWS]),
    "bullet_lines": "- 苹果\n- 香蕉\n- 西瓜\n* 桃子\n（1）葡萄\n2. 樱桃",
    "repetition": NEWS * 2,
}
EVERY = Quality(bullet_lines=0.9)


def test_every_rule_has_a_setting_and_every_setting_a_rule():
    assert [rule.reason for rule in quality.RULES] == list(Quality.model_fields)
    assert set(BAD) == set(Quality.model_fields)


@pytest.mark.parametrize("kind", GOOD)
def test_good_text_breaks_no_rule(kind):
    values = quality.measure([GOOD[kind]])
    bounds = [bound for bound in quality.bounds(Quality()) if bound.broken(values[bound.reason])]
    assert [(bound, values[bound.reason][0]) for bound in bounds] == []


@pytest.mark.parametrize("reason", BAD)
def test_a_rule_drops_what_it_names(reason):
    bound = next(bound for bound in quality.bounds(EVERY) if bound.reason == reason)
    value = quality.measure([BAD[reason]])[reason][0]
    assert bound.broken_by(value), value
    assert bound.reject(value).reason == reason and f"{value:.5g}" in bound.reject(value).detail


@pytest.mark.parametrize("reason", BAD)
def test_a_rule_can_be_off(reason):
    off = EVERY.model_copy(update={reason: None})
    on, left = ({bound.reason for bound in quality.bounds(settings)} for settings in (EVERY, off))
    assert on - left == {reason}


@given(st.lists(st.text(alphabet="ab1+。 \n好鑫漢한あ😀…", max_size=60), max_size=8), st.randoms())
def test_what_is_measured_of_a_text_depends_on_that_one_alone(texts, rng):
    together = quality.measure(texts)
    order = rng.sample(range(len(texts)), len(texts))
    for reason, values in together.items():
        assert values.tolist() == [quality.measure([text])[reason][0] for text in texts]
        assert quality.measure([texts[n] for n in order])[reason].tolist() == [values[n] for n in order]


def test_many_texts_are_counted_in_parts(monkeypatch):
    texts = [NEWS[n : n + 40] for n in range(60)]
    whole = quality.measure(texts)
    monkeypatch.setattr(quality, "PART", 100)
    assert all((quality.measure(texts)[reason] == values).all() for reason, values in whole.items())


def test_no_text_and_empty_texts():
    assert all(len(values) == 0 for values in quality.measure([]).values())
    assert all(np.isfinite(values).all() and len(values) == 2 for values in quality.measure(["", ""]).values())


@pytest.mark.parametrize(
    ("kind", "characters"),
    [
        (c.HAN, "好漢国國們〇"),
        (c.RARE, "鑫鱀�\ue18d𠮷"),
        (c.KANA, "あアー"),
        (c.HANGUL, "한ㄱ"),
        (c.LETTER, "éЖαก"),
        (c.PUNCTUATION, "，。！？、；：“”「」《》…—～"),
        (c.SYMBOL, "★●😀→＃"),
        (c.DIGIT, "09０９"),
        (c.ASCII_PUNCTUATION, ".,!?~"),
        (c.ASCII_SYMBOL, "#$%&*+/<=>@^_`{|}"),
        (c.BLANK, " \t\n\u3000\xa0"),
    ],
)
def test_kinds(kind, characters):
    assert set(count([characters]).kinds.tolist()) == {kind}


@given(st.lists(st.text(max_size=40), max_size=5))
def test_counts_are_those_of_a_loop(texts):
    counted = count(texts)
    assert counted.lengths.tolist() == [len(text) for text in texts]
    assert np.bincount(counted.different, minlength=len(texts)).tolist() == [len(set(text)) for text in texts]
    assert counted.counts.sum(axis=1).tolist() == [len(text) for text in texts]
    pairs = zip(counted.different.tolist(), counted.times.tolist(), strict=True)
    assert sorted(pairs) == sorted((n, text.count(char)) for n, text in enumerate(texts) for char in set(text))


def share(text):
    return repeated_share(count([text]))[0]


def slow_share(text):
    text, seen, covered = "".join(text.split()), set(), set()
    for start in range(len(text) - LENGTH + 1):
        gram = text[start : start + LENGTH]
        covered |= set(range(start, start + LENGTH)) if gram in seen else set()
        seen.add(gram)
    return len(covered) / len(text) if text else 0.0


@given(st.text(alphabet="ab 中", max_size=200))
def test_repetition_is_that_of_a_plain_loop(text):
    assert share(text) == pytest.approx(slow_share(text))


@pytest.mark.parametrize("times", [2, 3, 10])
@pytest.mark.parametrize("size", [5, 17, 90])
def test_a_unit_of_any_length_repeated(size, times):
    assert share(NEWS[:size] * times) == pytest.approx(1 - 1 / times, abs=0.05)


@pytest.mark.parametrize("text", ["哈" * 50, "ab" * 40, MENU, NEWS * 2, f"{NEWS}\n\n{NEWS}"])
def test_what_repeats_itself_is_rejected(text):
    assert share(text) > Quality().repetition


@pytest.mark.parametrize("text", [NEWS, "", "短", "四个字的", NEWS + NEWS[:40]])
def test_prose_does_not_repeat_itself(text):
    assert share(text) <= Quality().repetition


@pytest.mark.parametrize("unit", ["a", "ab", NEWS, "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))])
def test_a_long_text_takes_linear_time(unit):
    seconds = []
    for size in (200_000, 800_000):
        text = (unit * (size // len(unit) + 1))[:size]
        start = time.perf_counter()
        quality.measure([text])
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 16 * seconds[0] + 0.5  # 4 for linear, 16 for quadratic; the rest is a busy machine
