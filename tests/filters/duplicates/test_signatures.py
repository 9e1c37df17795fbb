import random

import numpy as np
import pytest

from kun.filters.duplicates import signatures
from kun.filters.duplicates.signatures import Bands, band_keys, bands, gram_set, grams, sign, unsigned

TEXT = "春天来了，院子里的桃树开满了花，蜜蜂忙着采蜜；孩子们在树下跑来跑去，老人们坐在门口晒太阳。"
CHARACTERS = [chr(code) for code in range(0x4E00, 0x9000)]


def similarity(one, other):
    slots = sign([one, other])
    return float((slots[0] == slots[1]).mean())


def pair(rng, share, size=400):
    """Two texts of which this share of the n-grams is in both, and how much it is exactly."""
    start = "".join(rng.choices(CHARACTERS, k=round(size * 2 * share / (1 + share))))
    one, other = (start + "".join(rng.choices(CHARACTERS, k=size - len(start))) for _ in range(2))
    sets = [{text[at : at + 5] for at in range(len(text) - 4)} for text in (one, other)]
    return one, other, len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, TEXT.replace("，", ",").replace("；", "\n").replace("。", " ")),
        ("ＡＢＣ产品１２３，欢迎选购", "abc产品123欢迎 选购😀"),
        ("ﾊﾝｶｸ文字です、よろしく", "ハンカク文字です。よろしく"),
        ("短", "短。"),
        (TEXT, TEXT.replace("桃树", "桃\u2028树")),
    ],
)
def test_width_case_white_space_and_punctuation_do_not_count(one, other):
    assert similarity(one, other) == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [(TEXT, "今天的股市收盘上涨了百分之二，成交量比昨天大。"), ("短", "长"), ("第一页", "第二页"), ("短", "短短")],
)
def test_other_texts_share_nothing(one, other):
    assert similarity(one, other) <= 0.02


def test_a_text_without_letters_and_digits_is_not_signed():
    slots = sign(["！！！", "", "\ud800😀", TEXT])
    assert unsigned(slots).tolist() == [True, True, True, False]
    assert (band_keys(slots, Bands(18, 7)) != 0).all(axis=0).tolist() == [False, False, False, True]


def test_a_text_is_signed_alike_in_any_company():
    others = ["", "短", TEXT * 3, "\0" * 9, "！"]
    assert (sign([*others, TEXT, *others])[5] == sign([TEXT])[0]).all()


def test_signatures_stay_what_they_are():
    """Another library, another table of Unicode or another machine must not change them unseen."""
    assert sign([TEXT])[0, :6].tolist() == [5492, 35296, 12642, 27076, 21265, 19707]


def test_n_grams_are_counted_within_each_text():
    hashes, starts = grams(["一二三四五六", "", "一二三四五", "六", "二三四五六七"])
    assert np.diff(starts.astype(int)).tolist() == [2, 0, 1, 1, 2]
    assert hashes[0] == hashes[2] and hashes[1] == hashes[4]
    assert len(set(hashes.tolist())) == 4


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_the_estimate_is_near_the_truth(share):
    rng = random.Random(3)
    errors = [similarity(one, other) - exact for one, other, exact in (pair(rng, share) for _ in range(100))]
    assert abs(np.mean(errors)) < 0.015
    assert np.std(errors) < 0.045


def test_the_similarity_is_exact():
    for share in (0.3, 0.7, 0.9):
        one, other, exact = pair(random.Random(4), share)
        assert signatures.similarity(gram_set(one), gram_set(other)) == exact
    assert signatures.similarity(gram_set(TEXT), gram_set("短")) == 0.0


def test_bands_find_what_lies_above_the_limit_and_compare_little_below():
    assert bands(0.7) == Bands(18, 7)
    for limit in (0.5, 0.6, 0.7, 0.8):
        assert bands(limit).found(limit + 0.1) >= 0.98
        assert bands(limit).found(limit - 0.3) <= 0.06
    assert bands(1.0).found(0.97) >= 0.98


def test_a_band_has_a_key_of_its_own_slots():
    one = sign([TEXT])
    other = one.copy()
    other[0, 7] += 1  # in the second band
    same = band_keys(one, Bands(18, 7)) == band_keys(other, Bands(18, 7))
    assert same[:, 0].tolist() == [True, False] + [True] * 16
