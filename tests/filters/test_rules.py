import math
import pickle
import random
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config import Filter
from kun.demo.tokens import build_tokenizer
from kun.errors import InputError
from kun.filters import length
from kun.filters.percentiles import Limits, percentile, sample, thresholds
from kun.filters.repetition import repeated_share, repetitive
from kun.records import Document, Origin
from kun.store.digests import of_bytes

PROSE = (
    "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多，远处的湖面在阳光下闪着光。"
    "下山时我们在一家小店吃了面，老板说今年的游客比往年少了一些，不过他并不着急。"
)


def test_too_short_counts_characters():
    assert length.too_short("一二三", 3) is None
    assert length.too_short("一二", 3).reason == "too_short"


def test_too_long_counts_tokens():
    assert length.too_long(512, 512) is None
    assert length.too_long(513, 512).reason == "too_long"


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build_tokenizer().save_pretrained(folder)
    return length.token_counter(folder)


def test_control_tokens_in_a_text_count_as_text(counter):
    assert counter("好") == 1
    assert counter("<|im_end|>") == len("<|im_end|>")
    assert counter("</s>" * 3) == 12


@given(st.text(alphabet="字a. \n😀", max_size=120), st.integers(1, 30))
def test_a_count_up_to_decides_as_a_whole_count(text, limit):
    def count(text):
        return len(text)

    assert (length.count_up_to(count, text, limit) > limit) == (count(text) > limit)
    if len(text) <= limit:
        assert length.count_up_to(count, text, limit) == len(text)


def test_a_beginning_of_few_tokens_is_not_taken_for_the_whole():
    assert length.count_up_to(lambda text: text.count("字"), "=" * 400 + "字" * 50, 20) == 50


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        length.token_counter(tmp_path)


def test_counting_needs_no_torch(tmp_path):
    import subprocess
    import sys

    build_tokenizer().save_pretrained(tmp_path)
    script = (
        "import sys; from pathlib import Path; from kun.filters.length import token_counter\n"
        "assert token_counter(Path(sys.argv[1]))('好') == 1; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


@pytest.mark.parametrize("times", [2, 3, 10])
@pytest.mark.parametrize("size", [5, 17, 90])
def test_a_unit_of_any_length_repeated(size, times):
    unit = PROSE[:size]
    share = repeated_share(unit * times)
    assert share == pytest.approx(1 - 1 / times, abs=0.05)


ENTRIES = ("首页", "登录", "注册", "联系我们", "返回顶部", "友情链接", "版权所有", "下一页")
MENU = " | ".join(random.Random(0).choices(ENTRIES, k=50))


@pytest.mark.parametrize("text", ["哈" * 50, "ab" * 40, MENU, PROSE * 2, f"{PROSE}\n\n{PROSE}"])
def test_what_repeats_itself_is_rejected(text):
    assert repetitive(text, 0.5).reason == "repetition"


@pytest.mark.parametrize("text", [PROSE, "", "短", "四个字的", PROSE + PROSE[:40]])
def test_prose_is_not(text):
    assert repetitive(text, 0.5) is None


@given(st.text(alphabet="ab 中", max_size=200))
def test_a_share_is_a_share(text):
    assert 0 <= repeated_share(text) < 1


@pytest.mark.parametrize("unit", ["a", "ab", PROSE, "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))])
def test_repetition_takes_linear_time(unit):
    seconds = []
    for size in (200_000, 800_000):
        text = (unit * (size // len(unit) + 1))[:size]
        start = time.perf_counter()
        repeated_share(text)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 16 * seconds[0] + 0.5  # 4 for linear, 16 for quadratic; the rest is a busy machine


def documents(count):
    return [
        Document(id=of_bytes(str(n).encode())[:20], subset="web", text=str(n), origin=Origin("a", n))
        for n in range(count)
    ]


def test_a_sample_is_the_same_in_any_order_and_fair():
    population = documents(2000)
    chosen = sample(iter(population), 200)
    assert sample(reversed(population), 200) == chosen
    assert len({d.id for d in chosen}) == 200
    assert 800 < statistics.mean(d.origin.row for d in chosen) < 1200
    assert sample(population[:5], 200) != [] and len(sample(population[:5], 200)) == 5


def test_thresholds():
    ppls = [float(n) for n in range(101)]
    assert thresholds(Filter(ppl_min="p5", ppl_max="p90"), ppls[::-1]) == Limits(5.0, 90.0)
    assert thresholds(Filter(ppl_min=3.5, ppl_max=None), ppls) == Limits(3.5, None)
    assert thresholds(Filter(ppl_min="p1", ppl_max="p99"), []) == Limits(None, None)
    assert thresholds(Filter(ppl_min="p0", ppl_max="p100"), [7.0]) == Limits(7.0, 7.0)
    assert pickle.loads(pickle.dumps(Limits(1.0, None))) == Limits(1.0, None)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpy_s(numbers, percent):
    import numpy as np

    assert math.isclose(
        percentile(sorted(numbers), percent), np.percentile(numbers, percent), rel_tol=1e-9, abs_tol=1e-6
    )
