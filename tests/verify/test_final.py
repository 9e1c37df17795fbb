"""A data set with its run, and alone: every edited, deleted or swapped line is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from kun.cli.verify import remedy
from kun.config.schema import Config
from kun.dataset.card import read_card
from kun.dataset.final import assemble
from kun.pipeline.run_folder import RunFolder
from kun.store.digests import Digests
from kun.verify.final import NO_DIGEST, UNCHECKED, is_final, verify_final
from kun.verify.steps import find
from tests.dataset.test_final import OUTPUTS, finished_run, polishing, state_of
from tests.verify.test_run import break_disk


@pytest.fixture
def made(tmp_path):
    run, step = finished_run(tmp_path / "run", OUTPUTS)
    assert assemble(run, step, Config(run=str(run.path)), state_of(run, step), Digests(tmp_path / "digests.json"))
    return run, step


def problems(run) -> list[str]:
    steps, known = find(run.path)
    found = verify_final(run.path / "final", known, [(step.name, step.digest) for step in steps])
    assert (found.state == "bad") == bool(found.problems)
    return [f"{problem.file}: {problem.what}" for problem in found.problems]


def alone(folder: Path, tmp_path: Path) -> list[str]:
    copy = tmp_path / "downloaded"
    shutil.copytree(folder, copy)
    assert is_final(copy)
    found = verify_final(copy)
    assert UNCHECKED.format("this folder alone was read") in found.notes
    return [f"{problem.file}: {problem.what}" for problem in found.problems]


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def write(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


DIGEST = "wudao.jsonl: the digest of wudao.jsonl is not the one in the card"
RECORD = "record {:016x}"


def test_what_was_made_is_well(made, tmp_path):
    assert problems(made[0]) == []
    assert alone(made[0].path / "final", tmp_path) == []
    _, known = find(made[0].path)
    found = verify_final(made[0].path / "final", known)
    assert (found.counts.rows, found.notes, found.discard) == (4, [], [])


@pytest.mark.parametrize(
    ("damage", "with_run", "without"),
    [
        (
            lambda lines: [lines[0], *lines[2:]],
            f"line 2 {RECORD.format(1)}, which should be here, is missing",
            f"line 2 row {1:016x} of lineage.parquet, which should be here, is missing",
        ),
        (
            lambda lines: [lines[1], lines[0], *lines[2:]],
            f"line 1 changed places with line 2 (it should be {RECORD.format(0)})",
            f"line 1 changed places with line 2 (it should be row {0:016x} of lineage.parquet)",
        ),
        (
            lambda lines: [*lines[:3], lines[3].replace("问".encode(), "問".encode())],
            f"line 4 is not what {RECORD.format(3)} gives",
            f"line 4 is not what row {3:016x} of lineage.parquet gives",
        ),
        (
            lambda lines: [*lines[:3], lines[3].replace("繁體".encode(), "繁体".encode())],
            f"line 4 is not what {RECORD.format(3)} gives",
            None,  # outputs are not in the lineage: the digest of the card alone says it
        ),
        (lambda lines: [*lines, lines[0]], "line 5 is of no record", "line 5 is of no record"),
        (lambda lines: [b"{", *lines[1:]], f"line 1 is not what {RECORD.format(0)} gives", "line 1 is not what"),
    ],
)
def test_a_damaged_line_is_named(made, tmp_path, damage, with_run, without):
    path = made[0].path / "final" / "wudao.jsonl"
    write(path, damage(lines_of(path)))
    assert problems(made[0]) == [DIGEST, f"wudao.jsonl: {with_run}"]
    said = alone(made[0].path / "final", tmp_path)
    assert said[0] == DIGEST and len(said) == (1 if without is None else 2)
    assert without is None or said[1].startswith(f"wudao.jsonl: {without}")


def test_a_lineage_that_was_edited(made, tmp_path):
    path = made[0].path / "final" / "lineage.parquet"
    table = parquet.read_table(path)
    texts = ["原文", "原文", "改过的文", "原文"]
    edited = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))
    parquet.write_table(edited, path)
    digest = "lineage.parquet: the digest of lineage.parquet is not the one in the card"
    assert problems(made[0]) == [digest, f"lineage.parquet: line 3 is not what {RECORD.format(2)} gives"]
    assert alone(path.parent, tmp_path) == [digest]


def test_the_folder_of_a_whole_run_alone_is_not_called_a_copy(made, tmp_path, monkeypatch):
    run, _ = made
    (run.path / "config.yaml").touch()
    (run.path / "final" / "wudao.jsonl").unlink()
    shutil.copytree(run.path / "final", tmp_path / "downloaded")
    monkeypatch.chdir(tmp_path)
    for folder in (Path("run/final"), run.path / "final", (run.path / "final").resolve()):
        assert "`kun verify run`" in (remedy(folder, verify_final(folder)) or "")
    alone = Path("downloaded")
    assert "this is a copy without its store" in (remedy(alone, verify_final(alone)) or "")


def test_a_lineage_that_cannot_be_read_leaves_the_records_unknown(made):
    run, _ = made
    (run.path / "final" / "lineage.parquet").write_bytes(b"PAR1")
    found = verify_final(run.path / "final", find(run.path)[1])
    assert UNCHECKED.format("lineage.parquet does not tell which they are") in found.notes


def test_a_card_that_was_edited_is_what_is_blamed(made):
    path = made[0].path / "final" / "README.md"
    text = path.read_text(encoding="utf-8")
    place = text.index("BLAKE2b-128 ") + 12
    path.write_text(text[:place] + "0" * 32 + text[place + 32 :], encoding="utf-8")
    assert problems(made[0]) == ["README.md: the digest of wudao.jsonl is not the one in the card"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Where the rows went", "Nothing was lost", "its text is not the one that its header has the digest of"),
        ("BLAKE2b-128 ", "BLAKE2b-128 x", "its header cannot be read (Expected `str` matching regex"),
        ("language:", "language: [", "its header cannot be read (while parsing"),
        ("\n---\n", "\n", "its header has no end"),
        ("wudao.jsonl: ", "../wudao.jsonl: ", "its header cannot be read (Expected `str` matching regex"),
        ("language:", "again: &a {x: 1}\nlanguage: &b [*a, *b]\nlanguage:", "its header cannot be read"),
    ],
)
def test_a_card_that_is_not_what_was_written(made, tmp_path, old, new, problem):
    path = made[0].path / "final" / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert [found for found in problems(made[0]) if not found.startswith(f"README.md: {problem}")] == []
    assert alone(path.parent, tmp_path)[0].startswith(f"README.md: {problem}")


@pytest.mark.parametrize("name", ["wudao.jsonl", "lineage.parquet"])
def test_a_digest_in_the_header_that_is_wrong_or_missing(made, tmp_path, name):
    folder = made[0].path / "final"
    digest = dict(read_card(folder).files)[name]
    text = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(text.replace(f"  {name}: BLAKE2b-128 {digest}\n", ""), encoding="utf-8")
    told = verify_final(folder).notes
    assert (NO_DIGEST.format(name) in told) == (name == "lineage.parquet")  # the rows have another, for `datasets`
    (folder / "README.md").write_text(text.replace(digest, "0" * 32), encoding="utf-8")
    assert problems(made[0]) == [f"README.md: the digest of {name} is not the one in the card"]
    assert alone(folder, tmp_path) == [f"{name}: the digest of {name} is not the one in the card"]


@pytest.mark.parametrize("name", ["wudao.jsonl", "lineage.parquet", "README.md"])
def test_a_file_that_is_gone(made, tmp_path, name):
    (made[0].path / "final" / name).unlink()
    assert problems(made[0]) == [f"{name}: is gone"]
    assert alone(made[0].path / "final", tmp_path) == [f"{name}: is gone"]


def test_a_file_that_was_put_in(made):
    (made[0].path / "final" / "weibo.jsonl").write_text('{"instruction":"问","output":"答"}\n', encoding="utf-8")
    assert problems(made[0]) == ["weibo.jsonl: is of no subset of the data set"]


def test_a_lineage_that_cannot_be_read_is_damage_not_an_end(made, tmp_path):
    (made[0].path / "final" / "lineage.parquet").write_bytes(b"PAR1")
    assert "lineage.parquet: cannot be read" in problems(made[0])


def test_a_data_set_of_other_records_than_the_present(made):
    run, stage = made
    again = RunFolder(run.path)
    again.begin(replace(stage.steps[0], spec=replace(stage.spec, version=2)))
    assert problems(run)[0].startswith("README.md: the data set was not made from the present stage5_polish/wudao")


def test_a_subset_without_rows(tmp_path):
    run, step = finished_run(tmp_path / "run", OUTPUTS)
    _, empty = finished_run(run.path, [], subset="skypile")
    both = polishing(*empty.steps, *step.steps)
    assemble(run, both, Config(run=str(run.path)), state_of(run, both), Digests(tmp_path / "digests.json"))
    assert problems(run) == []
    (run.path / "final" / "skypile.jsonl").write_bytes(b"{}\n")
    digest = "skypile.jsonl: the digest of skypile.jsonl is not the one in the card"
    assert problems(run) == [digest, "skypile.jsonl: line 1 is of no record"]


@pytest.mark.parametrize("name", ["wudao.jsonl", "lineage.parquet", "README.md"])
def test_a_file_that_the_disk_does_not_give_any_more(made, name):
    break_disk(made[0].path / "final" / name)
    assert f"{name}: cannot be read (Input/output error)" in problems(made[0])


def test_other_folders_are_no_data_set(tmp_path):
    (tmp_path / "README.md").write_text("# something else", encoding="utf-8")
    assert not is_final(tmp_path) and not is_final(tmp_path / "gone")
