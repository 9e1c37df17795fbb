import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kun.corpora.evaluation import find_evaluations, read_texts
from kun.errors import InputError

ROWS = [{"question": "中国最长的河？", "choices": ["长江", "黄河"], "meta": {"id": 7}}, {"question": "一\u2028二"}]
TEXTS = [(0, ["中国最长的河？", "长江", "黄河"]), (1, ["一\n二"])]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1200\n"


def lines(rows=ROWS):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def read_all(path, fields=()):
    return [item for file in find_evaluations([str(path)]) for item in read_texts(file, fields)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("eval.jsonl", lines()),
        ("eval.json", json.dumps(ROWS, ensure_ascii=False, indent=1).encode()),
        ("eval.json", lines()),  # JSON lines under another name
        ("eval.jsonl.gz", gzip.compress(lines())),
        ("eval.json.zst", zstandard.compress(json.dumps(ROWS).encode())),
        ("eval.jsonl", b"\xef\xbb\xbf" + lines()),
    ],
)
def test_json_in_all_its_forms(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert read_all(tmp_path / name) == TEXTS


def test_one_json_document_over_many_lines_is_one_row(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "范廷颂是枢机。", "qas": [{"id": "1", "question": "他是谁？"}]}]}]}
    (tmp_path / "dev.json").write_text(json.dumps(squad, indent=2), encoding="utf-8")
    assert read_all(tmp_path / "dev.json") == [(0, ["范廷颂是枢机。", "1", "他是谁？"])]
    assert read_all(tmp_path / "dev.json", ["question"]) == [(0, ["他是谁？"])]


def test_tables_and_text(tmp_path):
    pq.write_table(pa.table({"q": ["甲", None], "choices": [["乙", "丙"], []], "n": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text('\ufeffid,question\n0,"第一，\n问"\n1,第二问\n', encoding="utf-8")
    (tmp_path / "c.txt").write_text("第一段\n\n\n第二段\n接着\n", encoding="utf-8")
    assert read_all(tmp_path) == [
        *((0, ["甲", "乙", "丙"]), (1, [])),
        *((0, ["id", "question"]), (1, ["0", "第一，\n问"]), (3, ["1", "第二问"])),
        *((0, ["第一段"]), (3, ["第二段\n接着"])),
    ]
    assert read_all(tmp_path / "b.csv", ["question"]) == [(1, ["第一，\n问"]), (3, ["第二问"])]


def test_fields_are_found_at_any_depth(tmp_path):
    (tmp_path / "e.jsonl").write_bytes(lines(ROWS[:1]))
    assert read_all(tmp_path / "e.jsonl", ["choices"]) == [(0, ["长江", "黄河"])]
    with pytest.raises(InputError, match=r"decontaminate\.fields: .*row 0 has no text in answer; .*question, choices"):
        read_all(tmp_path / "e.jsonl", ["answer"])
    (tmp_path / "e.csv").write_text("哪条河最长？,长江\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"decontaminate\.fields: .*its header, has no text in q; .*no header: leave"):
        read_all(tmp_path / "e.csv", ["q"])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("e.jsonl", b"", "has no rows"),
        ("e.json", b"[]", "has no rows"),
        ("e.txt", b"\n\n", "has no rows"),
        ("e.jsonl", lines() + b"\n{broken\n", "row 2: no JSON"),
        ("e.json", lines()[:-5], "row 1: no JSON"),
        ("e.json", json.dumps(ROWS).encode()[:-5], "row 1: truncated"),
        ("e.jsonl.gz", gzip.compress((lines() + b"\n") * 99)[:-9], "truncated"),
        ("e.jsonl", "中".encode("gb18030"), "row 0: no JSON"),
        ("e.csv", b"q\n\xd6\xd0\n", "row 1: not_utf8"),
        ("e.csv", b'q\na\n"b\nc\nd\n', "row 2: not_csv, a quote is opened and not closed .* 2 lines below"),
        ("e.csv", b'q\n"a"b\n', "row 1: not_csv, .*double its quotes"),
        ("e.jsonl", POINTER, "git lfs pull"),
        ("e.parquet", POINTER, "git lfs pull"),
        ("e.csv", b"\n<!DOCTYPE html>\n<title>Sign in</title>", "a web page"),
        ("e.txt", b"\xd6\xd0", "row 0: not_utf8"),
        ("e.parquet", b"PAR1", "no whole Parquet"),
    ],
)
def test_what_cannot_be_read_is_an_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"decontaminate\.files: .*{name}.*{message}"):
        read_all(tmp_path / name)


def test_files_that_are_missing(tmp_path):
    with pytest.raises(InputError, match=r"decontaminate\.files: .*none\.jsonl: no such file"):
        find_evaluations([str(tmp_path / "none.jsonl")])
    with pytest.raises(InputError, match=r"decontaminate\.files: the folder .* holds no file"):
        find_evaluations([str(tmp_path)])
    with pytest.raises(InputError, match=r"decontaminate\.files: no file matches"):
        find_evaluations([str(tmp_path / "*.jsonl")])


@pytest.mark.parametrize(
    ("name", "data", "texts"),
    [
        ("a.jsonl", b'{"question": "a", "question": "b"}', ["a", "b"]),  # a parser would keep the last
        ("a.jsonl", b'{"x": ' + b"[" * 900 + b'"deep"' + b"]" * 900 + b"}", ["deep"]),
    ],
)
def test_no_text_of_a_row_is_missed(tmp_path, name, data, texts):
    (tmp_path / name).write_bytes(data)
    assert [strings for _, strings in read_all(tmp_path / name)] == [texts]


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"question,question\na,b\n", [(0, ["question", "question"]), (1, ["a", "b"])]),
        (b"question\na,b,c\n", [(0, ["question"]), (1, ["a", "b", "c"])]),
        (b"first question,A\nsecond,B\n", [(0, ["first question", "A"]), (1, ["second", "B"])]),  # no header
        # quotes that join two rows into one, or begin a text that goes over two lines
        (b'q,a\n"one,1\ntwo",2\n', [(0, ["q", "a"]), (1, ["one,1\ntwo", "2"]), (1, ['"one', "1"]), (1, ['two"', "2"])]),
        (b'q,a\n"one\ntwo",2\n', [(0, ["q", "a"]), (1, ["one\ntwo", "2"])]),
    ],
)
def test_no_row_of_a_table_is_missed(tmp_path, data, rows):
    (tmp_path / "a.csv").write_bytes(data)
    assert read_all(tmp_path / "a.csv") == rows


def test_a_cell_of_any_length_and_a_column_named_twice(tmp_path):
    (tmp_path / "a.csv").write_text("q\n" + "长" * 200_000, encoding="utf-8")
    assert read_all(tmp_path / "a.csv")[1] == (1, ["长" * 200_000])
    pq.write_table(pa.table([["one"], ["two"]], names=["q", "q"]), tmp_path / "a.parquet")
    assert read_all(tmp_path / "a.parquet", ["q"]) == [(0, ["one", "two"])]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_nesting_is_an_error_that_names_the_row(tmp_path, name, opening):
    (tmp_path / name).write_bytes(opening * 100_000 + b"\n\n")
    with pytest.raises(InputError, match="row 0"):
        read_all(tmp_path / name)


def test_one_document_that_unpacks_to_gigabytes_is_an_error(tmp_path):
    with gzip.open(tmp_path / "a.json.gz", "wb", 1) as file:
        file.write(b'{\n"a": "')
        file.writelines([bytes(2**20)] * 40)
    with pytest.raises(InputError, match="too_big"):
        read_all(tmp_path)
    with gzip.open(tmp_path / "a.csv.gz", "wb", 1) as file:
        file.writelines([b"x" * 2**20] * 40)
    (tmp_path / "a.json.gz").unlink()
    with pytest.raises(InputError, match="too_big"):
        read_all(tmp_path)
