import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import Corpus
from kun.corpora import units
from kun.corpora.files import CorpusFile
from kun.corpora.readers import read_part
from kun.corpora.units import count_lines, cut

LINE = st.sampled_from([b"", b" ", b'{"text": "a"}', '{"text": "一行\u2028话"}'.encode(), b"{broken", b'{"text": 1}\r'])


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(units, "PART_BYTES", 40)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "a.jsonl"


def rows(parts):
    """The rows of the parts in order, as the index numbers them."""
    corpus, first_row, found = Corpus(paths=("unused",), format="jsonl"), 0, []
    for part in parts:
        numbered = CorpusFile(part.path, part.name, part.start, part.end, first_row)
        found += read_part("web", corpus, numbered)
        first_row += count_lines(part)
    return found


@given(lines=st.lists(LINE, max_size=40), end=st.sampled_from([b"", b"\n"]), bom=st.booleans())
def test_the_parts_of_a_file_have_the_rows_of_the_whole(small_parts_once, path, lines, end, bom):
    path.write_bytes(b"\xef\xbb\xbf" * bom + b"\n".join(lines) + end)
    whole = CorpusFile(path, path.name)
    parts = [part for part, _ in cut(whole, "jsonl")]
    assert rows(parts) == rows([whole])
    assert sum(size for _, size in cut(whole, "jsonl")) == path.stat().st_size


@pytest.fixture(scope="module")
def small_parts_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "PART_BYTES", 40)
        yield


def test_a_large_file_is_many_parts_of_about_the_same_size(small_parts, path):
    path.write_bytes(b'{"text": "0123456789"}\n' * 100)
    sizes = [size for _, size in cut(CorpusFile(path, path.name), "skypile")]
    assert len(sizes) == 34 and set(sizes[:-1]) == {69}  # a quarter more, where no line says that it ends a part


def test_a_line_longer_than_a_part_is_not_cut(small_parts, path):
    path.write_bytes(b'{"text": "' + b"x" * 500 + b'"}\n{"text": "y"}\n')
    (long, _), (short, _) = cut(CorpusFile(path, path.name), "jsonl")
    assert long.end == short.start == 513


@pytest.mark.parametrize(("name", "kind"), [("a.jsonl.gz", "jsonl"), ("a.json", "wudao"), ("a.tar", "wanjuan")])
def test_what_can_only_be_read_from_its_beginning_is_one_part(small_parts, tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(b"\n" * 1000)
    assert [part for part, _ in cut(CorpusFile(path, name), kind)] == [CorpusFile(path, name)]


def test_a_parquet_file_is_cut_between_row_groups(small_parts, tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"第{number}个文本" for number in range(10)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=3)
    parts = [part for part, _ in cut(CorpusFile(path, path.name), "parquet")]
    assert [(part.start, part.end, part.first_row) for part in parts] == [(0, 1, 0), (1, 2, 3), (2, 3, 6), (3, 4, 9)]
    corpus = Corpus(paths=("unused",), format="parquet")
    found = [row for part in parts for row in read_part("web", corpus, part)]
    assert [(row.text, row.origin.row) for row in found] == [(text, row) for row, text in enumerate(texts)]


def test_a_damaged_parquet_file_is_left_to_its_reader(small_parts, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(json.dumps("no table" * 20).encode())
    ((part, _),) = cut(CorpusFile(path, path.name), "parquet")
    (row,) = read_part("web", Corpus(paths=("unused",), format="parquet"), part)
    assert row.reject.reason == "damaged"
