"""CSV files, columns of tables, nested fields and arrays as corpora; wrong fields are told before anything is read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun.config.schema import Corpus
from kun.corpora import find, read_corpus
from kun.corpora.first_rows import check_first_rows
from kun.corpora.units import is_plain_lines
from kun.errors import InputError


def corpus_of(path, kind, field=None):
    return Corpus(paths=(str(path),), format=kind, field=field)


def rows(path, kind, field=None):
    found = read_corpus("web", corpus_of(path, kind, field))
    return [(row.origin.row, row.text if row.reject is None else row.reject.reason) for row in found]


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.csv", 'id,text\n1,春\n\n2,"夏，\n秋"\n3,冬\n', [(1, "春"), (3, "夏，\n秋"), (5, "冬")]),
        ("a.tsv", "text\tid\n春,夏\t1\n", [(1, "春,夏")]),
        ("a.csv", 'text\n"春\n夏\n秋\n', [(1, "not_csv"), (2, "夏"), (3, "秋")]),  # swallows nothing
        ("a.csv", 'text\n"春\n"夏\n', [(1, "not_csv"), (2, "not_csv")]),
        ("a.csv", "text,id\n春,夏,1\n秋,2\n", [(1, "not_csv"), (2, "秋")]),  # an unquoted comma would cut the text
        ("a.csv", f"text\n{'长' * 140_000}\n", [(1, "长" * 140_000)]),
        ("a.csv", "body\n春\n", [(0, "no_field")]),
        ("a.csv", "text,text\n春,夏\n", [(0, "no_field")]),
    ],
)
def test_csv(tmp_path, name, data, found):
    (tmp_path / name).write_text(data, encoding="utf-8")
    assert rows(tmp_path, "csv") == found


def test_csv_in_another_encoding_costs_a_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text\n\xd6\xd0\n" + "夏\n".encode())
    assert rows(tmp_path, "csv") == [(1, "not_utf8"), (2, "夏")]


def test_nested_fields(tmp_path):
    lines = [
        {"data": {"text": "春", "n": 1}},
        {"data.text": "夏"},
        {"data": {"body": "x"}},
        {"data": "x"},
        {"data": {"text": 1}},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert rows(tmp_path, "jsonl", "data.text") == [
        *((0, "春"), (1, "夏")),
        *((2, "no_field"), (3, "not_text"), (4, "not_text")),
    ]
    pq.write_table(pa.table({"data": [{"text": "春"}, {"text": None}, None]}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet", "parquet", "data.text") == [(0, "春"), (1, "not_text"), (2, "not_text")]


def test_a_json_array_is_read_as_jsonl_too(tmp_path):
    data = [{"text": "春"}, {"text": "夏"}]
    for number, indent in enumerate((None, 1)):
        (tmp_path / f"{number}.json").write_text(json.dumps(data, indent=indent), encoding="utf-8")
    (tmp_path / "2.jsonl").write_text('[{"text": 1}]\n{"text": "秋"}\n', encoding="utf-8")  # lines, the first one bad
    files = find("web", corpus := corpus_of(tmp_path, "jsonl"))
    assert [row for _, row in rows(tmp_path, "jsonl")] == ["春", "夏", "春", "夏", "not_object", "秋"]
    assert [is_plain_lines(file, corpus.format) for file in files] == [False, False, True]


def test_two_columns_of_one_name_are_refused(tmp_path):
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    corpus = corpus_of(tmp_path, "parquet")
    with pytest.raises(
        InputError, match=r"corpora\.web\.field: text: .* 2 columns are named 'text'; columns: text, text"
    ):
        check_first_rows("web", corpus, find("web", corpus))


@pytest.mark.parametrize(
    ("name", "kind", "data", "message"),
    [
        ("a.jsonl", "jsonl", b'{"body": "x", "meta": {"text": "y"}}', r"web\.field: text: .*body, meta, meta\.text"),
        ("a.json", "wudao", b'{"content": "x"}\n', r"web\.format: wudao: .*For JSON lines use format jsonl"),
        ("a.csv", "csv", b"id,body\n", r"web\.field: text: .*columns: id, body"),
        ("a.txt", "text", "春".encode("gb18030"), r"web\.format: text: .*not_utf8.*iconv"),
        ("a.parquet", "parquet", b"version https://git-lfs.github.com/spec/v1\n", r"web\.paths: .*git lfs pull"),
        ("a.txt", "text", b"<html><head>", r"web\.paths: .*a\.txt: holds a web page"),
    ],
)
def test_a_corpus_that_cannot_be_meant_is_refused_at_once(tmp_path, name, kind, data, message):
    (tmp_path / name).write_bytes(data)
    corpus = corpus_of(tmp_path, kind)
    with pytest.raises(InputError, match=message):
        check_first_rows("web", corpus, find("web", corpus))


def test_one_sound_row_is_enough(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{broken\n{"body": "x"}\n{"text": "y"}\n')
    corpus = corpus_of(tmp_path, "jsonl")
    check_first_rows("web", corpus, find("web", corpus))
