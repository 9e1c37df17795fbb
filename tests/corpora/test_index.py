import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Corpus
from kun.corpora import index, read_corpus, units
from kun.corpora.ingest import counted, documents, items, splitter
from kun.corpora.readers import read_part


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Two files with texts that come again within and between them, blank lines, and rows that give no document."""
    monkeypatch.setattr(units, "PART_BYTES", 100)
    texts = [f"第{number % 7}个文本。" for number in range(40)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_text("\n".join([*lines[:25], "", "{broken", '{"text": " "}', "{}"]))
    (tmp_path / "corpus/b.jsonl").write_text("\n".join(lines[25:]))
    return Corpus(paths=(str(tmp_path / "corpus"),), format="jsonl")


def no_split():
    return None


def by_units(folder, corpus, duplicates, split=None):
    found = []
    for unit in index.units(folder, "web", corpus):
        rows = read_part("web", corpus, unit.found)
        found += documents("web", items(rows, split), index.occurrences(folder, unit), duplicates)
    return found


@pytest.mark.parametrize("duplicates", ["drop", "keep"])
@pytest.mark.parametrize("workers", [1, 2])
def test_units_read_one_by_one_give_what_the_whole_corpus_gives(corpus, tmp_path, duplicates, workers):
    folder = tmp_path / "index"
    folder.mkdir()
    report = index.build(folder, "web", corpus, no_split, workers)
    whole = list(items(read_corpus("web", corpus)))
    assert by_units(folder, corpus, duplicates) == list(documents("web", whole, counted(whole), duplicates))
    assert report == {"rows": 43, "parts": len(index.units(folder, "web", corpus)), "repeated": 33}
    assert report["parts"] > 10


def test_pieces_are_counted_like_rows(corpus, tmp_path):
    split = splitter(len, 3)
    index.build(tmp_path, "web", corpus, lambda: split)
    whole = list(items(read_corpus("web", corpus), split))
    assert by_units(tmp_path, corpus, "keep", split) == list(documents("web", whole, counted(whole), "keep"))


def test_a_part_that_was_read_is_not_read_again(corpus, tmp_path, monkeypatch):
    index.build(tmp_path, "web", corpus, no_split)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    (tmp_path / "part-00003.digests").unlink()
    scanned = []
    scan = index._scan
    monkeypatch.setattr(index, "_scan", lambda *task: scanned.append(task[4]) or scan(*task))
    index.build(tmp_path, "web", corpus, no_split)
    assert scanned == [3]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


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
