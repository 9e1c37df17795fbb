import gzip
import json

import pytest

from kun.config import Corpus
from kun.corpora import read, sampling
from kun.corpora.sampling import sample_rows


def write(path, count, compress=False):
    lines = b"".join(json.dumps({"text": f"第{row}行" + "字" * (row % 7)}).encode() + b"\n" for row in range(count))
    path.write_bytes(gzip.compress(lines) if compress else lines)
    return Corpus(paths=(str(path.parent),), format="jsonl")


def test_a_small_corpus_is_read_whole(tmp_path):
    corpus = write(tmp_path / "a.jsonl", 100)
    assert list(sample_rows("web", corpus, 1000, seed=0).rows) == list(read("web", corpus))
    some = sample_rows("web", corpus, 10, seed=0)
    assert len(some.rows) == 10 and set(some.rows) <= set(read("web", corpus))
    assert some == sample_rows("web", corpus, 10, seed=0) != sample_rows("web", corpus, 10, seed=1)


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(sampling, "WHOLE", 100)


def test_of_a_large_file_rows_at_random_places_are_read(tmp_path, large):
    corpus = write(tmp_path / "a.jsonl", 5000)
    taken = sample_rows("web", corpus, 400, seed=0)
    texts = [row.text for row in taken.rows]
    assert len(set(texts)) == len(texts) > 350
    assert set(texts) <= {row.text for row in read("web", corpus)}
    numbers = [int(text[1 : text.index("行")]) for text in texts]
    assert 2000 < sum(numbers) / len(numbers) < 3000  # from all of the file
    assert taken.by_byte == {"a.jsonl"} and "at random places of 1 file" in taken.how


def test_a_file_that_can_only_be_read_from_its_start_gives_its_beginning(tmp_path, large):
    corpus = write(tmp_path / "a.jsonl.gz", 5000, compress=True)
    taken = sample_rows("web", corpus, 10, seed=0)
    assert len(taken.rows) == 10 and max(row.origin.row for row in taken.rows) < 200
    assert "from the beginning of 1 file" in taken.how and not taken.by_byte


def test_one_line_without_an_end_and_an_empty_file(tmp_path, large):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "one.jsonl").write_bytes(json.dumps({"text": "字" * 200}).encode())
    taken = sample_rows("web", Corpus(paths=(str(tmp_path),), format="jsonl"), 5, seed=0)
    assert [row.text for row in taken.rows] == ["字" * 200]
