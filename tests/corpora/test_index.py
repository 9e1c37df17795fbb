import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Corpus
from kun.corpora import index, read_corpus, units
from kun.corpora.files import find
from kun.corpora.ingest import counted, documents, items, splitter
from kun.errors import InputError
from kun.store.digests import of_file


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Two files with texts that come again within and between them, blank lines, and rows that give no document."""
    monkeypatch.setattr(units, "PART_BYTES", 100)
    monkeypatch.setattr(units, "GROUP_BYTES", 50)
    monkeypatch.setattr(units, "ONE_OF", 1)
    texts = [f"第{number % 7}个文本。" for number in range(40)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_text("\n".join([*lines[:25], "", "{broken", '{"text": " "}', "{}"]))
    (tmp_path / "corpus/b.jsonl").write_text("\n".join(lines[25:]))
    return Corpus(paths=(str(tmp_path / "corpus"),), format="jsonl")


def no_split():
    return None


def build(folder, corpus, split=no_split, workers=1):
    return index.build(folder, "web", corpus, [of_file(file.path) for file in find("web", corpus)], split, workers)


def by_units(folder, corpus, duplicates, split=None):
    found = []
    for unit in index.units(folder, "web", corpus):
        found += documents("web", items(unit.rows(corpus), split), index.occurrences(folder, unit), duplicates)
    return found


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize("workers", [1, 2])
def test_units_read_one_by_one_give_what_the_whole_corpus_gives(corpus, tmp_path, duplicates, workers):
    folder = tmp_path / "index"
    folder.mkdir()
    report = build(folder, corpus, workers=workers)
    whole = list(items(read_corpus("web", corpus)))
    assert by_units(folder, corpus, duplicates) == list(documents("web", whole, counted(whole), duplicates))
    assert report == {"rows": 43, "parts": len(index.units(folder, "web", corpus)), "repeated": 33}
    assert report["parts"] > 10


def test_pieces_are_counted_like_rows(corpus, tmp_path):
    split = splitter(len, 3)
    build(tmp_path, corpus, lambda: split)
    whole = list(items(read_corpus("web", corpus), split))
    assert by_units(tmp_path, corpus, "keep", split) == list(documents("web", whole, counted(whole), "keep"))


def scanned(folder, corpus, monkeypatch):
    """The number of units that a build reads."""
    seen = []
    scan = index._scan
    with monkeypatch.context() as patch:
        patch.setattr(index, "_scan", lambda *task: seen.append(task[4]) or scan(*task))
        build(folder, corpus)
    return len(seen)


def slices(folder, corpus, rows=3):
    units = index.units(folder, "web", corpus)
    return [one for _, found in index.slices(folder, units, rows) for one in found]


def test_a_unit_that_is_known_is_not_read_again(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    assert scanned(folder, corpus, monkeypatch) > 5  # ranges of the same bytes are one table
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    min(folder.glob("*.digests")).unlink()
    assert scanned(folder, corpus, monkeypatch) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    a = tmp_path / "corpus" / "a.jsonl"
    a.rename(a.with_name("0.jsonl"))
    with pytest.raises(InputError, match="run the same command again"):
        index.units(folder, "web", corpus)  # a file was renamed after the index was made
    assert scanned(folder, corpus, monkeypatch) == 0


def test_borders_stay_where_a_corpus_changes(tmp_path):
    """Shards that a change does not touch have the key and the digest that they had."""
    texts = [f"第{number}篇文章，没有第二篇。" for number in range(400)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "index").mkdir()
    corpus = Corpus(paths=(str(tmp_path / "corpus"),), format="jsonl")

    def made(lines, **more):
        for name, content in {"big": lines, **more}.items():
            rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in content)
            (tmp_path / "corpus" / f"{name}.jsonl").write_text("".join(rows))
        build(tmp_path / "index", corpus)
        return {key: source for key, _, source in slices(tmp_path / "index", corpus, 10)}

    def touched(before, after):
        return len({key for key, source in after.items() if before.get(key) != source})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "PART_BYTES", 4000)
        patch.setattr(units, "GROUP_BYTES", 4000)
        patch.setattr(units, "ONE_OF", 8)
        small = {f"small{number:03d}": [f"另一篇，第{number}篇。"] for number in range(400)}
        first = made(texts, **small)
        assert 40 <= len(first) <= 110  # not 440
        assert touched(first, made([*texts, "附加的一篇。"], **small)) <= 10  # those of the last range of the file
        changed = made([*texts[:100], "更正过的一篇，比原来的长。", *texts[101:]], **small)
        assert touched(first, changed) <= 20  # a range, or two
        assert touched(changed, made(texts, **small)) <= 20
        assert touched(first, made(texts, small0005=["新的一篇文章。"], **small)) <= 20  # a group
        assert touched(made(texts, small0005=["新的一篇文章。"], **small), first) <= 20


def test_a_repeated_text_changes_the_shards_that_have_it(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "index").mkdir()
    corpus = Corpus(paths=(str(tmp_path / "corpus"),), format="jsonl")
    rows = [json.dumps({"text": f"第{number}篇。"}) + "\n" for number in range(30)]
    (tmp_path / "corpus" / "b.jsonl").write_text("".join(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "GROUP_BYTES", 1)
        build(tmp_path / "index", corpus)
        before = slices(tmp_path / "index", corpus, 10)
        (tmp_path / "corpus" / "a.jsonl").write_text(rows[15])
        build(tmp_path / "index", corpus)
        _, *after = slices(tmp_path / "index", corpus, 10)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


@given(keys=st.lists(st.integers(0, 30), max_size=200), bucket=st.sampled_from([8, 2**20]))
def test_repeats_are_counted_in_buckets_as_in_one_go(keys, bucket):
    """Key 0 stands for a row that gave no text."""
    digests = np.array([(key, key * 7) for key in keys], "<u8").reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "BUCKET", bucket)
        found = index.repeats(len(digests), lambda: iter(np.array_split(digests, 3)))
    seen, expected = Counter(), []
    for number, key in enumerate(keys):
        if key and seen[key]:
            expected.append([number, seen[key]])
        seen[key] += 1
    assert found.tolist() == expected
