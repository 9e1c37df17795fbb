import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kun.config.schema import Config
from kun.dataset.final import assemble
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.stage import StepSettings
from kun.report.trace import find, render
from kun.store.digests import Digests
from tests.dataset.test_final import OUTPUTS, finished_run, state_of
from tests.small_pipeline import CountingEngine, Small
from tests.verify.test_run import break_disk

STAGES = ["documents", "even_lengths", "questions"]


@pytest.fixture
def small(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符", "三字符", "两字", "六个字符的文", ""]}, CountingEngine(breaks={2}))
    small.go()
    return small


@pytest.mark.parametrize(
    ("record", "outcomes"),
    [
        ("wudao-0", ["kept", "kept", "kept"]),
        ("wudao-1", ["kept", "rejected"]),
        ("wudao-2", ["kept", "kept", "failed"]),
        ("wudao-3", ["kept", "kept", "kept"]),
        ("wudao-4", ["rejected"]),
    ],
)
def test_the_life_of_every_record_is_found(small, record, outcomes):
    found = find(small.run, record)
    assert [event["outcome"] for event in found["life"]] == outcomes


def test_it_says_what_was_added_and_why_it_ended(small):
    text = render(find(small.run, "wudao-1"))
    assert "三字符" in text and "rejected: odd" in text and "3 characters" in text
    assert "instruction: 4 characters about what?" in render(find(small.run, "wudao-0"))
    assert "engine: broken" in render(find(small.run, "wudao-2"))


@pytest.mark.parametrize(
    ("stage", "file", "outcomes"),
    [
        ("even_lengths", "part-00000.jsonl", ["kept", "unknown", "kept"]),
        ("documents", "part-00000.jsonl", ["unknown", "kept", "kept"]),
        ("questions", "part-00000.jsonl", ["kept", "kept", "unknown"]),
        ("even_lengths", "part-00000.done.json", ["kept", "kept", "kept"]),
        ("even_lengths", "", ["kept", "unknown", "kept"]),
    ],
)
def test_a_stage_whose_file_is_gone_says_which(small, stage, file, outcomes):
    path = small.path / stage / "wudao" / file
    path.unlink() if file else shutil.rmtree(path.resolve())
    found = find(small.run, "wudao-0")
    assert [event["outcome"] for event in found["life"]] == outcomes
    if "unknown" in outcomes:
        assert f"{stage}: unknown: {path}: gone or damaged; `kun verify {small.path}`" in render(found)
    assert len(find(small.run, "wudao-4")["life"]) == 1  # a reject of the first stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_file_the_disk_does_not_give_says_which(small, stage):
    path = small.path / stage / "wudao/part-00000.jsonl"
    break_disk(path)
    found = find(small.run, "wudao-0")
    assert f"{stage}: unknown: {path}: gone or damaged; `kun verify {small.path}`" in render(found)
    assert len(found["life"]) == 3


def test_a_damaged_line_is_said(small):
    path = small.path / "even_lengths/wudao/part-00000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"tokens":4', b'"tokens":x'))
    found = find(small.run, "wudao-0")
    assert [event["outcome"] for event in found["life"]] == ["kept", "unknown", "kept"]
    assert "even_lengths: unknown: the line that has it is damaged" in render(found)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('["a",{"id":"wudao-0"}]', "the line that has it is damaged"),
        ('{"text":{"id":"wudao-0"}}', "shard 00000 is there without the record"),
        ('{"id":"wudao-0","text":' + "[" * 5000, "the line that has it is damaged"),
        ("", "shard 00000 is there without the record"),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_line_that_is_another_or_gone_is_unknown(small, stage, line, why):
    path = small.path / stage / "wudao/part-00000.jsonl"
    path.write_text(line + path.read_text()[path.read_text().index("\n") :])
    found = find(small.run, "wudao-0")
    assert [event["outcome"] for event in found["life"]] == [
        "unknown" if one == stage else "kept" for one in STAGES
    ]  # fmt: skip
    assert why in render(found)


def test_a_stage_of_older_settings_says_so(small):
    small.settings["filter.min"] = 2
    for stage in small.stages()[:2]:
        run_stage(stage, small.run)
    note = "made from other settings than the present ones of even_lengths/wudao"
    found = find(small.run, "wudao-0")
    assert [event.get("note") for event in found["life"]] == [None, None, note]
    assert f"questions: kept\n    {note}\n" in render(found)
    path = small.path / "questions/wudao/part-00000.jsonl"
    path.write_text("")
    text = render(find(small.run, "wudao-0"))
    assert f"questions: unknown: {path.parent}: shard 00000 was made without the record\n    {note}" in text
    small.go()
    assert not any("note" in event for event in find(small.run, "wudao-0")["life"])


def test_a_final_line_of_older_settings_says_so(tmp_path):
    run, stage = finished_run(tmp_path / "run", OUTPUTS)
    assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), Digests(tmp_path / "digests.json"))
    assert "note" not in find(run, "wudao:2")["outputs"]["final"]
    with pytest.raises(InputError, match=r"there is no line 999 of wudao\.jsonl; give it as wudao:18"):
        find(run, "wudao:999")
    (step,) = stage.steps
    now = replace(step, settings=lambda: StepSettings(Config().only([]), {"prompts.polish": "def"}))
    again = RunFolder(run.path)
    shutil.copytree(run.folder(step), again.folder(now), ignore=shutil.ignore_patterns("fingerprint.json"))
    again.show(now)
    text = render(find(again, "wudao:2"))
    assert text.endswith("line 2\n    made from other settings than the present ones of stage5_polish/wudao")


def as_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 200), as_folder, Path.unlink])
def test_a_lineage_that_cannot_be_read_is_named(tmp_path, damage):
    run, stage = finished_run(tmp_path / "run", OUTPUTS)
    assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), Digests(tmp_path / "digests.json"))
    identity = find(run, "wudao:2")["id"]
    assert find(run, identity)["outputs"]["final"] == {"file": "final/wudao.jsonl", "line": 2}
    lineage = run.path / "final/lineage.parquet"
    damage(lineage)
    told = f"{lineage}: (gone|damaged).*; `kun verify {run.path}`"
    with pytest.raises(InputError, match=told):
        find(run, "wudao:2")
    found = find(run, identity)
    assert found["outputs"]["final"]["line"] is None and re.search(
        f"^final: unknown: {told}", render(found), re.MULTILINE
    )


def test_an_unknown_id_is_an_error(small):
    with pytest.raises(InputError, match="no record has the id nowhere"):
        find(small.run, "nowhere")
    with pytest.raises(InputError, match="has no final files yet"):
        find(small.run, "wudao:²")
    for key in ("\udcff", "wudao:\udcff", "\udcff:1"):
        with pytest.raises(InputError, match="which is no UTF-8"):
            find(small.run, key)


def test_a_text_does_not_steer_the_terminal(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个\x1b]0;字符\x07", "三字符"]}, CountingEngine())
    small.go()
    text = render(find(small.run, "wudao-0"))
    assert "\x1b" not in text and "\\x1b]0;字符" in text
    with pytest.raises(InputError, match="has no final files"):
        find(small.run, "wudao:" + "9" * 5000)
