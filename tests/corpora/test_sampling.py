import gzip
import io
import json
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kun.config.schema import Corpus
from kun.corpora import read_corpus, sampling
from kun.corpora.sampling import sample_rows
from kun.errors import InputError


def write(path, count, compress=False):
    lines = b"".join(json.dumps({"text": f"第{row}行" + "字" * (row % 7)}).encode() + b"\n" for row in range(count))
    path.write_bytes(gzip.compress(lines) if compress else lines)
    return Corpus(paths=(str(path.parent),), format="jsonl")


def test_a_small_corpus_is_read_whole(tmp_path):
    corpus = write(tmp_path / "a.jsonl", 100)
    assert list(sample_rows("web", corpus, 1000, seed=0).rows) == list(read_corpus("web", corpus))
    some = sample_rows("web", corpus, 10, seed=0)
    assert len(some.rows) == 10 and set(some.rows) <= set(read_corpus("web", corpus))
    assert some == sample_rows("web", corpus, 10, seed=0) != sample_rows("web", corpus, 10, seed=1)


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(sampling, "WHOLE", 100)


def test_of_a_large_file_rows_at_random_places_are_read(tmp_path, large):
    corpus = write(tmp_path / "a.jsonl", 5000)
    taken = sample_rows("web", corpus, 400, seed=0)
    texts = [row.text for row in taken.rows]
    assert len(set(texts)) == len(texts) > 350
    assert set(texts) <= {row.text for row in read_corpus("web", corpus)}
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


def lines(lengths):
    return b"".join(json.dumps({"text": "x" * length}).encode() + b"\n" for length in lengths)


@pytest.mark.parametrize("sizes", [(100, 100), (20, 2000)])  # alike; two files of very different rows
def test_weights_estimate_the_rows_of_files_that_are_read_at_random_places(tmp_path, large, sizes):
    (tmp_path / "a.jsonl").write_bytes(lines([sizes[0]] * 4000))
    (tmp_path / "b.jsonl").write_bytes(lines([sizes[1], 3 * sizes[1]] * 1000))
    taken = sample_rows("web", Corpus(paths=(str(tmp_path),), format="jsonl"), 2000, seed=0)
    assert not taken.counted and len(taken.weights) == len(taken.rows)
    assert sum(taken.weights) == pytest.approx(6000, rel=0.15)
    of_a = sum(weight for row, weight in zip(taken.rows, taken.weights, strict=True) if row.origin.file == "a.jsonl")
    assert of_a == pytest.approx(4000, rel=0.15)
    text = sum(len(row.text) * weight for row, weight in zip(taken.rows, taken.weights, strict=True))
    assert text == pytest.approx(4000 * sizes[0] + 4000 * sizes[1], rel=0.1)


def written(folder, form):
    """5,000 rows of random words, so that compressed files are long enough to be read in part."""
    rng = random.Random(1)
    texts = ["".join(rng.choices("天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏", k=300)) for _ in range(5000)]
    objects = [json.dumps({"text": text, "content": text}, ensure_ascii=False).encode() for text in texts]
    data = b"\n".join(objects)
    if form == "wudao":
        (folder / "a.json").write_bytes(b"[" + b",".join(objects) + b"]")
    elif form == "jsonl.gz":
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(data))
    elif form == "jsonl.zst":
        (folder / "a.jsonl.zst").write_bytes(zstandard.compress(data))
    elif form == "text":
        (folder / "a.txt").write_text("\n\n".join(texts), encoding="utf-8")
    elif form == "parquet":
        pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    else:
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            info = tarfile.TarInfo("part/a.jsonl")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return Corpus(paths=(str(folder),), format={"jsonl.gz": "jsonl", "jsonl.zst": "jsonl"}.get(form, form))


@pytest.mark.parametrize("form", ["wudao", "wanjuan", "jsonl.gz", "jsonl.zst", "text", "parquet"])
def test_weights_estimate_the_rows_of_files_that_are_read_from_their_start(tmp_path, large, form):
    corpus = written(tmp_path, form)
    taken = sample_rows("web", corpus, 20, seed=0)
    assert len(taken.rows) == 20 and not taken.counted
    assert sum(taken.weights) == pytest.approx(5000, rel=0.05)


def test_rows_of_a_small_corpus_are_counted(tmp_path):
    taken = sample_rows("web", write(tmp_path / "a.jsonl", 100), 30, seed=0)
    assert taken.counted and sum(taken.weights) == pytest.approx(100)
    empty = sample_rows("web", write(tmp_path / "a.jsonl", 0), 30, seed=0)
    assert empty.rows == () == empty.weights and empty.counted


def test_a_file_that_goes_away_while_it_is_sampled_is_named(tmp_path, monkeypatch):
    corpus = write(tmp_path / "a.jsonl", 3)
    found = sampling.find("web", corpus)
    (tmp_path / "a.jsonl").unlink()
    monkeypatch.setattr(sampling, "find", lambda name, corpus: found)
    with pytest.raises(InputError, match=rf"{tmp_path}/a\.jsonl: No such file"):
        sample_rows("web", corpus, 10, seed=0)
    monkeypatch.setattr(sampling, "check_first_rows", lambda name, corpus, files: None)  # it was still there
    with pytest.raises(InputError, match=rf"corpora\.web\.paths: {tmp_path}/a\.jsonl: No such file"):
        sample_rows("web", corpus, 10, seed=0)
