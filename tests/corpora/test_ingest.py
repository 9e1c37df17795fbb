import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.corpora import Row
from kun.corpora.ingest import counted, documents, items, splitter
from kun.records import Document, Origin, Reject


def rows(*texts):
    return iter([Row(Origin("a.jsonl", number), text) for number, text in enumerate(texts)])


def read(subset, rows, split=None, duplicates="drop"):
    found = list(items(rows, split))
    return list(documents(subset, found, counted(found), duplicates))


def outcomes(*texts, **options):
    return [outcome for _, outcome in read("web", rows(*texts), **options)]


def test_a_row_becomes_a_normalised_document():
    ((raw, document),) = read("web", rows("\ufeff一行 \r\n二行\ud800"))
    assert document is raw
    assert (document.text, document.subset, document.origin) == ("一行\n二行", "web", Origin("a.jsonl", 0))
    assert len(document.id) == 20


def test_ids_are_of_subset_text_and_occurrence_only():
    first, other, again = outcomes("甲", "乙", "甲", duplicates="keep")
    assert len({first.id, other.id, again.id}) == 3
    assert [d.id for d in outcomes("乙", "甲", "甲 \r\n", duplicates="keep")] == [other.id, first.id, again.id]
    ((_, elsewhere),) = read("wiki", rows("甲"))
    assert elsewhere.id != first.id


def test_an_exact_duplicate_names_the_first():
    first, _, duplicate, third = outcomes("甲", "乙", "甲\r\n", "甲")
    assert duplicate == third == Reject("duplicate", first.id)


def test_what_gives_no_document():
    broken = Row(Origin("a.jsonl", 7), "raw\ud800", Reject("not_json", "why"))
    found = read("web", iter([*rows(" \n\0"), broken]))
    assert [outcome.reason for _, outcome in found] == ["empty", "not_json"]
    assert found[1][0].text == "raw" and found[1][0].origin.row == 7
    assert len({raw.id for raw, _ in found}) == 2


def test_reading_again_gives_the_same_items():
    texts = ["甲", "乙", "甲", "", "乙", "丙。丁。戊。"]
    options = {"duplicates": "keep", "split": splitter(len, 4)}
    assert read("web", rows(*texts), **options) == read("web", rows(*texts), **options)


def test_every_row_has_an_outcome_and_every_id_is_its_own():
    found = read("web", rows("甲", "甲", "甲", "", "", "\n"), duplicates="drop")
    assert len(found) == 6
    assert len({raw.id for raw, _ in found}) == 6


def test_an_over_long_text_is_cut_at_paragraphs_then_sentences():
    text = "一二三\n四五六\n七八九。十！甲乙丙丁戊己庚辛壬癸子丑。寅"
    found = outcomes(text, split=splitter(len, 8))
    assert [d.text for d in found] == ["一二三\n四五六", "七八九。十！", "甲乙丙丁戊己庚辛壬癸子丑。", "寅"]
    assert [d.origin.piece for d in found] == [0, 1, 2, 3]
    (short,) = outcomes("短", split=splitter(len, 8))
    assert short.origin == Origin("a.jsonl", 0)


def test_pieces_that_are_the_same_are_duplicates():
    first, second = outcomes("重复的句子。\n\n重复的句子。", split=splitter(len, 8))
    assert isinstance(first, Document) and second == Reject("duplicate", first.id)


@given(st.text(alphabet="字。\n，a ", max_size=80), st.integers(1, 20))
def test_a_split_loses_nothing_and_keeps_to_the_limit(text, limit):
    pieces = splitter(len, limit)(text)
    assert [c for piece in pieces for c in piece if not c.isspace()] == [c for c in text if not c.isspace()]
    assert all(len(p) <= limit or "。" not in p.strip("。") for p in pieces)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_row_is_empty_with_a_split_too(text):
    assert [outcome.reason for outcome in outcomes(text, split=splitter(len, 8))] == ["empty"]
