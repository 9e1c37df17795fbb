import math
import pickle
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Config, Filter, LanguageModel
from kun.demo.tokens import build_tokenizer
from kun.errors import ConfigError, InputError
from kun.filters import length
from kun.filters.perplexity import lmplz
from kun.filters.perplexity.percentiles import Limits, percentile, sample, thresholds
from kun.filters.rules import measure
from kun.records import Document, Origin
from kun.store.digests import of_bytes
from tests.filters.perplexity.tiny_lm import write_arpa


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
    def count(texts):
        return list(map(len, texts))

    first, second = length.count_up_to(count, [text, "字"], limit)
    assert (first > limit) == (len(text) > limit)
    assert second == 1
    if len(text) <= limit:
        assert first == len(text)


def test_a_beginning_of_few_tokens_is_not_taken_for_the_whole():
    def count(texts):
        return [text.count("字") for text in texts]

    assert length.count_up_to(count, ["字", "=" * 400 + "字" * 50, "字" * 9], 20) == [1, 50, 9]


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
    assert thresholds(Filter(ppl_min=3.5, ppl_max=None, lm=LanguageModel(model="lm")), ppls) == Limits(3.5, None)
    assert thresholds(Filter(ppl_min="x0.1", ppl_max="x4"), ppls) == Limits(5.0, 200.0)
    assert thresholds(Filter(ppl_min="p1", ppl_max="x99"), []) == Limits(None, None)
    assert thresholds(Filter(ppl_min="p0", ppl_max="p100"), [7.0]) == Limits(7.0, 7.0)
    assert pickle.loads(pickle.dumps(Limits(1.0, None))) == Limits(1.0, None)


def test_limits_that_cross_on_a_corpus_are_named(tmp_path):
    lm = LanguageModel(model=str(write_arpa(tmp_path)))
    lmplz.make(lm, tmp_path / "lm")
    config = Config(filter=Filter(lm=lm, ppl_min="x3", ppl_max=1.5))
    with pytest.raises(ConfigError, match=r"on this corpus ppl_min x3 is \d+\.\d, above ppl_max 1\.5, which is 1\.5"):
        measure(config, documents(20), tmp_path / "lm")


def test_a_multiple_of_the_median_hardly_moves_with_the_share_of_noise():
    prose, noise = [30.0 + n % 40 for n in range(900)], [5000.0] * 100
    clean, raw = (thresholds(Filter(ppl_max="x4"), ppls).high for ppls in (prose, prose + noise))
    assert clean < raw < 1.1 * clean


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpy_s(numbers, percent):
    import numpy as np

    assert math.isclose(
        percentile(sorted(numbers), percent), np.percentile(numbers, percent), rel_tol=1e-9, abs_tol=1e-6
    )
