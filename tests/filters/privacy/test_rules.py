import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kun.config.schema import Privacy
from kun.filters.privacy.formats import MAYBE
from kun.filters.privacy.rules import KINDS, PLACEHOLDERS, find, mask, measure, personal
from kun.records import Reject
from tests.filters.privacy.samples import ORDINARY, PERSONAL

ALL = Privacy(**dict.fromkeys(KINDS, "mask"))


def seen(text):
    return [(one.kind, text[one.start : one.end]) for one in find(text)]


@pytest.mark.parametrize(
    ("kind", "marked"), [(kind, marked) for kind, samples in PERSONAL.items() for marked in samples]
)
def test_it_is_found_whole_and_nothing_else(kind, marked):
    bare = re.sub("[«»]", "", marked)
    expected = [(kind, one) for one in re.findall("«(.*?)»", marked)]
    assert expected and seen(bare) == expected
    assert MAYBE.search(bare)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_and_words_are_not(text):
    assert seen(text) == []
    assert seen(f"甲：{text}。\n乙") == []


def test_the_checksum_decides():
    number = "110101199003071233"
    for digit in "0123456789X":
        assert bool(find(f"号{number[:-1]}{digit}")) == (digit == number[-1])
    card = "622202020012345678"
    assert [digit for digit in "0123456789" if find(f"卡{card}{digit}")] == ["8"]


@pytest.mark.parametrize("date", ["19901301", "19900230", "21000101", "18991231", "19000229"])
def test_an_identity_number_has_a_date_of_birth(date):
    from stdnum.iso7064 import mod_11_2

    body = f"110101{date}123"
    assert find(f"身份证{body}{mod_11_2.calc_check_digit(body)}") == []


def test_kinds_that_stand_together_are_told_apart():
    text = "张三，110101199003071233，13812345678/010-62345678，zs@qq.com，QQ：12345678，微信：zs_888"
    assert [kind for kind, _ in seen(text)] == ["identity_number", "phone", "phone", "email", "qq", "wechat"]
    assert mask(text, ALL)[0] == "张三，[身份证号]，[电话]/[电话]，[邮箱]，QQ：[QQ号]，微信：[微信号]"


def test_only_what_is_to_be_masked_is_masked():
    text = "电话13812345678，邮箱zs@qq.com"
    assert mask(text, Privacy()) == (text, ())
    assert mask(text, Privacy(phone="drop")) == (text, ())
    assert mask(text, Privacy(phone="mask", email="drop")) == ("电话[电话]，邮箱zs@qq.com", ("phone",))
    assert measure([text, ""], ["phone", "qq"])["phone"].tolist() == [1, 0]


def test_the_placeholder_is_in_the_script_of_the_text():
    assert mask("請於辦公時間內來電詢問：13812345678，謝謝", ALL)[0] == "請於辦公時間內來電詢問：[電話]，謝謝"
    assert mask("Call +86 138 1234 5678 now", ALL)[0] == "Call [phone] now"


@pytest.mark.parametrize("blank", ["\u2028", "\u3000", "\n", "😀", "\ud800", "\u200d"])
def test_odd_characters_around_it_stay(blank):
    text = f"电话{blank}13812345678{blank}完"
    assert mask(text, ALL) == (f"电话{blank}[电话]{blank}完", ("phone",))


def test_what_a_model_wrote_is_a_reject_where_the_kind_is_not_off():
    output = "请拨打13812345678，或写信到zs@qq.com"
    assert personal(output, Privacy()) is None
    assert personal(output, Privacy(email="mask")) == Reject("email", "zs@qq.com")
    assert personal(output, ALL) == Reject("phone", "13812345678")
    assert personal("请拨打[电话]", ALL) is None


PIECES = [re.sub("[«»]", "", marked) for samples in PERSONAL.values() for marked in samples]
PIECES += [one for samples in PERSONAL.values() for marked in samples for one in re.findall("«(.*?)»", marked)]
PIECES += [
    *ORDINARY,
    *(words[0] for words in PLACEHOLDERS.values()),
    *"0123456789.-_+()[]@#: ，。：aQx\n",
    "QQ",
    "微信号",
]
texts = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=40)


@given(texts, st.sampled_from([ALL, Privacy(phone="mask"), Privacy(email="mask", qq="mask", wechat="drop")]))
@example("zs@qq.com13812345678", ALL)
@example("029-88255936A123456(3)", ALL)
@example("QQ：12345-13812345678", ALL)
@example("138-1234-5678(02)2345-6789", ALL)
def test_masking_takes_out_what_is_found_and_nothing_else(text, settings):
    masked, kinds = mask(text, settings)
    gone = [one for one in find(text) if one.kind in kinds]
    assert bool(gone) == bool(kinds) == (masked != text)
    parts, end = [], 0
    for one in gone:
        assert end <= one.start < one.end
        parts.append(re.escape(text[end : one.start]))
        parts.append("(?:" + "|".join(map(re.escape, PLACEHOLDERS[one.kind])) + ")")
        end = one.end
    assert re.fullmatch("".join([*parts, re.escape(text[end:])]), masked)
    assert mask(masked, settings) == (masked, ())


HOSTILE = [
    "1",
    "1 ",
    "@",
    "a.",
    "a@",
    "a@a.",
    "138 1234 ",
    "0",
    "+1 2",
    "QQ群",
    "加V",
    "微信",
    "(86-0",
    "1-",
    "http://",
]
HOSTILE += ["身份证", "身份证1", "62", "6222 0202 ", "(at)", "a[at]", "电话", "电话：", "１", "13812345678，", "#"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_long_text_takes_linear_time(unit):
    seconds = []
    for size in (250_000, 1_000_000):
        text = unit * (size // len(unit))
        start = time.process_time()
        find(text)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0] + 0.3
    assert seconds[1] < 10
