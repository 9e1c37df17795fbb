"""`kun seeds check` tells what a file gives, what it does not and what to do, and writes the pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kun.training.seeds import SeedPair, read_seeds
from tests.runs import REPOSITORY, kun

SHAREGPT = [
    {"conversations": [{"from": "human", "value": f"问{n}"}, {"from": "gpt", "value": f"答{n}"}], "id": n}
    for n in range(3)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sharegpt.json").write_text(json.dumps([*SHAREGPT, SHAREGPT[0]], ensure_ascii=False))
    (tmp_path / "faq.csv").write_text("title,reply\n营业时间？,早九点到晚六点。\n地址？,{{address}}\n")
    return tmp_path


def test_what_is_used_and_what_is_not(folder: Path) -> None:
    done = kun(folder, "seeds", "check", "sharegpt.json", "faq.csv")
    assert done.returncode == 1, done.stderr  # the second file gives nothing
    for words in (
        "sharegpt.json: 4 rows, 3 pairs to train on",
        "read as conversation (conversations): 4 rows",
        "not used, duplicate: 1",
        "line 4: the same as line 1",
        "fields that are not read: id (4)",
        "request: 问0",
        "faq.csv: 2 rows, 0 pairs to train on",
        "ERROR: seeds.pairs: faq.csv has no usable seed: 2 missing_field",
        "name them in seeds.fields.instruction and seeds.fields.output",
    ):
        assert words in done.stdout, words


def test_with_settings_the_pairs_are_written_and_read_again(folder: Path) -> None:
    settings = ["--seeds.fields.instruction", "title", "--seeds.fields.output", "reply", "--train.max-length", "60"]
    base = ["--base-model", REPOSITORY / "kun/demo/base", "--prompts", "demo"]
    done = kun(folder, "seeds", "check", "faq.csv", "--out", "pairs.jsonl", "--json", *settings, *base)
    assert done.returncode == 0, done.stderr
    (checked,) = json.loads(done.stdout)
    assert checked["pairs"] == 2 and checked["formats"] == {"pairs (title, reply)": 2}
    assert checked["odd"] == {"placeholders such as {{name}}, to be filled in first": 1}
    assert checked["models"]["label"][0] == "label model: 2 examples"
    again = read_seeds(str(folder / "pairs.jsonl"), SeedPair, "seeds.pairs", [])
    assert again[0].row == SeedPair("营业时间？", "早九点到晚六点。")


def test_no_file_is_asked_for(folder: Path) -> None:
    done = kun(folder, "seeds", "check")
    assert done.returncode == 2 and "which file?" in done.stderr


def test_pairs_take_the_place_of_no_seeds_and_of_no_device(folder: Path) -> None:
    (folder / "link.jsonl").symlink_to(folder / "faq.csv")
    wrong = {"faq.csv": "is one of the seed files", "link.jsonl": "is no plain file", ".": "is no plain file"}
    wrong |= {"nowhere/pairs.jsonl": "there is no folder nowhere; make it first"}
    for out, words in wrong.items():
        done = kun(folder, "seeds", "check", "faq.csv", "--out", out)
        assert done.returncode == 2 and words in done.stderr, done.stderr
