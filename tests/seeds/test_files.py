"""Rows come out of every kind of file as they were put in, whatever its name, encoding or compression; or an error says
what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun.config.files import load
from kun.config.schema import Seeds
from kun.errors import ConfigError, InputError
from kun.seeds.files import digest, read_items
from kun.seeds.pairs import Fault
from kun.store.digests import Digests

ROWS = [
    {"instruction": "什么是潮汐？", "output": "海水的\n涨落，\t每天两次。"},
    {"instruction": "春天", "output": '他说"好"。'},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'instruction,output\r\n什么是潮汐？,"海水的\n涨落，\t每天两次。"\r\n春天,"他说""好""。"\r\n'
TSV = 'instruction\toutput\n什么是潮汐？\t每天两次\n春天\t"好"他说\n'
FILES: dict[str, bytes] = {
    "a.jsonl": LINES.encode(),
    "a.json": LINES.encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "crlf.jsonl": LINES.replace("\n", "\r\n").encode(),
    "array.json": json.dumps(ROWS).encode(),
    "array.jsonl": json.dumps(ROWS, indent=1).encode(),
    "document.json": json.dumps({"data": ROWS}, indent=1).encode(),
    "a.jsonl.gz": gzip.compress(LINES.encode()),
    "a.csv": CSV.encode(),
    "bom.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "gb18030.csv": CSV.encode("gb18030"),
    "utf16.csv": CSV.encode("utf-16"),
    "utf16.jsonl": LINES.encode("utf-16"),
    "gb18030.jsonl": LINES.encode("gb18030"),
    "semicolons.csv": CSV.replace(",什", "，什").replace("instruction,", "instruction;").replace("？,", "？;")
        .replace("春天,", "春天;").encode(),
    "no ending": LINES.encode(),
}  # fmt: skip


def rows(path: Path | str, **settings: Any) -> list[Any]:
    return [item.value for item in read_items(str(path), Seeds(**settings))]


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_a_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    assert rows(tmp_path / name) == ROWS


def test_traditional_chinese_is_told_from_simplified(tmp_path: Path) -> None:
    told = {"instruction": "臺灣的歷史是怎樣的？", "output": "請參閱下列書籍，並且說明這個國家的經濟發展過程。"}
    (tmp_path / "a.jsonl").write_bytes(json.dumps(told, ensure_ascii=False).encode("big5"))
    assert rows(tmp_path / "a.jsonl") == [told]


def test_parquet_keeps_nested_values(tmp_path: Path) -> None:
    turns = [{"messages": [{"role": "user", "content": "问"}]}]
    pq.write_table(pa.Table.from_pylist(turns), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == turns


def test_tabs_without_quoting(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(TSV, encoding="utf-8")
    assert [row["output"] for row in rows(tmp_path / "a.tsv")] == ["每天两次", '"好"他说']


def test_a_table_without_a_header_has_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("问\t答\n再问\t再答\n", encoding="utf-8")
    assert rows(tmp_path / "a.tsv", header=False) == [{1: "问", 2: "答"}, {1: "再问", 2: "再答"}]


def test_lines_and_rows_are_numbered_as_an_editor_shows_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n" + LINES, encoding="utf-8")
    assert [item.line for item in read_items(str(tmp_path / "a.csv"), Seeds())] == [2, 4]
    assert [item.line for item in read_items(str(tmp_path / "a.jsonl"), Seeds())] == [2, 3]


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(FILES[name if name in FILES else "a.jsonl"])
    (tmp_path / "README.md").write_text("# seeds")
    assert rows(tmp_path) == ROWS * 2 == rows(tmp_path / "*.*s*")
    assert digest(str(tmp_path / "*.*s*"), Digests(tmp_path / "cache"))


def test_nan_is_null_and_what_is_no_json_is_a_row_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"input": NaN, "text": "raw\ttab"}\n{broken\n"\\ud800"\n')
    first, second, third = rows(tmp_path / "a.jsonl")
    assert first == {"input": None, "text": "raw\ttab"}
    assert isinstance(second, Fault) and isinstance(third, Fault) and second.reason == third.reason == "not_json"


def test_a_damaged_row_of_a_file_in_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES.encode() + b'{"instruction": "\xff"}\n')
    *good, fault = rows(tmp_path / "a.jsonl")
    assert good == ROWS and isinstance(fault, Fault) and fault.reason == "not_utf8"


def test_a_row_with_more_cells_than_names_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,output\n问,答,多\n问,答\n")
    fault, row = rows(tmp_path / "a.csv")
    assert isinstance(fault, Fault) and "3 cells" in fault.detail and row == {"instruction": "问", "output": "答"}


def test_a_quote_that_is_never_closed_costs_its_row_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'instruction,output\nask,"never closed\nask,b\nask,"a" b\n')
    first, row, last = read_items(str(tmp_path / "a.csv"), Seeds())
    assert isinstance(first.value, Fault) and isinstance(last.value, Fault) and row.value["output"] == "b"
    assert (first.line, first.value.reason, last.line, last.value.reason) == (2, "not_csv", 4, "not_csv")


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"instruction,output\n问,{'长' * 200_000}\n")
    assert len(rows(tmp_path / "a.csv")[0]["output"]) == 200_000


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "latin-1": ("a.csv", "instruction,output\nQuê?,Não é possível\n".encode("latin-1"), "seeds.encoding"),
    "shift-jis": ("a.csv", "instruction,output\nこれは何ですか,それはペンです\n".encode("shift-jis"), "seeds.encoding"),
    "two columns of one name": ("a.csv", b"output,output\na,b\n", "two columns are named 'output'"),
    "a spreadsheet": ("a.xlsx", b"PK\x03\x04", "as CSV"),
    "an archive": ("a.zip", b"PK\x03\x04", "unpack it"),
    "an array without an end": ("a.json", b'[{"a": 1}, {"a"', "truncated"),
    "a download that broke off": ("a.jsonl.gz", gzip.compress(LINES.encode() * 100)[:-20], "truncated"),
    "no whole parquet": ("a.parquet", b"PAR1 and so on", "no whole Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_for_certain_is_an_error(tmp_path: Path, name: str) -> None:
    file, content, words = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        rows(tmp_path / file)
    assert str(caught.value).startswith(f"seeds.pairs: {tmp_path / file}: ")


def test_an_encoding_that_is_not_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"abc")
    with pytest.raises(InputError, match="is not utf-16-le to its end"):
        rows(tmp_path / "a.jsonl", encoding="utf-16-le")
    (tmp_path / "a.csv").write_bytes(b"instruction,\xff\na,b\n")
    with pytest.raises(InputError, match="its first line, the header, cannot be read"):
        rows(tmp_path / "a.csv", encoding="utf-8")
    with pytest.raises(ConfigError, match="no encoding that Python knows"):
        load(None, ["--seeds.encoding", "klingon"])


def test_what_cannot_be_read_at_all() -> None:
    with pytest.raises(InputError, match="/proc/self/mem: Input/output error"):
        rows("/proc/self/mem")


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("question,answer\nQuê?,Não é\n".encode("latin-1"))
    assert rows(tmp_path / "a.csv", encoding="latin-1") == [{"question": "Quê?", "answer": "Não é"}]


def test_two_parquet_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["output", "output"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="two columns are named"):
        rows(tmp_path / "a.parquet")


def test_a_saved_dataset_and_its_splits(tmp_path: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(str(tmp_path / "two"))
    datasets.DatasetDict({"dev": made, "test": made}).save_to_disk(str(tmp_path / "three"))
    assert rows(tmp_path / "one") == ROWS == rows(tmp_path / "two")
    assert rows(tmp_path / "two", dataset={"split": "test"}) == ROWS[1:]
    with pytest.raises(InputError, match="which split"):
        rows(tmp_path / "three")
    (tmp_path / "one/dataset_info.json").write_text("{broken")
    with pytest.raises(InputError, match="datasets library cannot load it"):
        rows(tmp_path / "one")


def test_a_data_set_of_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"hf download --repo-type dataset owner/seeds"):
        rows("owner/seeds")
    folder = tmp_path / "hub/datasets--owner--seeds"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc/train.jsonl").write_text(LINES, encoding="utf-8")
    (folder / "snapshots/abc/test.jsonl").write_text(LINES, encoding="utf-8")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert rows("owner/seeds") == ROWS
    assert digest("owner/seeds", Digests(tmp_path / "cache.json"))


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"seeds\.pairs: gone\.csv: no such file"):
        rows("gone.csv")
