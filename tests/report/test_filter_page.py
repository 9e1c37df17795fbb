"""The page of `kun filter-preview`: each plot is the same wherever it is drawn, and says what its bars are."""

import re
from dataclasses import replace

from kun.filters.bounds import Bound
from kun.records import Document, Origin
from kun.report.filter_page import page
from kun.report.filter_plot import histograms
from kun.report.filter_preview import CorpusSample, SampledDocument, measures

LIMIT = Bound("too_long", "at_most", 50, "characters")


def sample(lengths: list[int], subset: str = "web") -> CorpusSample:
    judged = []
    for row, length in enumerate(lengths):
        broken = ("too_long",) if length > 50 else ()
        document = Document(id=f"{row:016x}", subset=subset, text="字" * length, origin=Origin("a.jsonl", row))
        judged.append(SampledDocument(document, (), {"too_long": length}, broken, broken[0] if broken else None))
    return CorpusSample(subset, "all of it", len(judged), {}, (LIMIT,), tuple(judged))


def drawn(lengths: list[int]):
    seen = sample(lengths)
    return histograms(seen, measures(seen))[0]


def test_a_plot_has_a_bin_for_every_value_and_says_what_is_in_it():
    plot = drawn([10] * 3 + [90] * 2)
    assert len(plot.bins) == 60
    assert [words.partition(": ")[2] for words in plot.bins if words] == ["3 kept", "2 beyond the limit"]
    assert "too_long: at most 50" in plot.svg and "var(--kept)" in plot.svg and "#3b82c4" not in plot.svg


def test_a_tall_bar_is_cut_off_and_its_number_told():
    assert " 97 " in drawn([0] * 97 + [90] * 2).svg
    assert " 3 " not in re.sub("<path.*?>", "", drawn([0] * 3 + [90] * 2).svg)


def test_wide_spans_are_logarithmic():
    assert re.findall(r">([\d,]+)</text>", drawn([1, 10, 100, 10_000]).svg) == ["1", "10", "100", "1,000", "10,000"]
    assert ">6,000</text>" in drawn([0, 10, 100, 10_000]).svg


def test_a_plot_does_not_depend_on_those_before_it():
    wide, narrow = sample([1, 10, 100, 10_000]), sample([10, 20])
    first, again, last = histograms(narrow, [*measures(narrow), *measures(narrow), *measures(narrow)])
    assert first == again == last
    mixed = [measures(wide)[0], replace(measures(wide)[0], values=(10, 20, 30, 40)), measures(wide)[0]]
    assert [histograms(wide, [one])[0] for one in mixed] == histograms(wide, mixed)


def test_the_page_is_the_same_each_time_and_no_id_comes_twice():
    samples = [sample([10, 20, 90]), sample([10, 90], "wiki")]
    text = page("Preview", samples)
    assert page("Preview", samples) == text
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and {"web", "web.too_long", "wiki"} <= set(ids)


def test_markup_in_names_stays_text():
    bad = '"><script>'
    seen = sample([10, 90])
    notes = CorpusSample(bad, bad, 2, {bad: 1}, seen.bounds, seen.judged, notes=(bad,))
    assert "<script" not in page(bad, [notes])
