import json
from dataclasses import replace
from typing import Any, cast

import msgspec
import pyarrow.parquet as parquet
import pytest

from kun.config.schema import Config
from kun.dataset.final import assemble, final_states, is_current
from kun.pipeline.run_folder import RunFolder, summarise
from kun.pipeline.stage import Stage, Step, StepSettings
from kun.pipeline.status import Final, State
from kun.records import Origin, Polished, Reject
from kun.report.trace import find
from kun.store import shards
from kun.store.digests import Digests
from stages.stage5_polish import POLISH
from tests.small_pipeline import nothing

OUTPUTS = ["答案，有全角标点。", '{"a": "b"}\\', "行\u2028分隔\n第二行", "表情🙂 繁體", ""]


def polished(i: int, output: str) -> Polished:
    fields = {
        "ppl": 91.5,
        "tokens": 7,
        "instruction": f"第{i}问？",
        "score": 0.9,
        "output": output,
        "faithfulness": 1.0,
    }
    return Polished(id=f"{i:016x}", subset="wudao", text="原文", origin=Origin("part-000.json", i), **fields)


def polishing(*steps: Step) -> Stage:
    """The last stage, with steps that were made without its work."""
    return Stage(POLISH, cast(Any, None), steps)


def finished_run(path, outputs, subset="wudao", prompt="abc") -> tuple[RunFolder, Stage]:
    run = RunFolder(path)
    step = Step(POLISH, subset, lambda: StepSettings(Config().only([]), {"prompts.polish": prompt}))
    folder = run.begin(step)
    keys = []
    for index, start in enumerate(range(0, max(len(outputs), 1), 2)):
        rows = [
            (r, r if r.output else Reject("too_short"))
            for r in map(polished, range(start, start + 2), outputs[start : start + 2])
        ]
        keys.append(f"{index:05d}")
        shards.publish(folder, keys[-1], rows, rows=len(rows), source={})
    run.finish(step, summarise(folder, keys, run.source(step)))
    return run, polishing(step)


def state_of(run, stage) -> list[State]:
    return [State("stage5", stage.name, one.part, "complete", (), run.current(one), True) for one in stage.steps]


def known(run) -> Digests:
    return Digests(run.store / "digests.json")


@pytest.fixture
def final(tmp_path):
    run, stage = finished_run(tmp_path / "runs" / "测试", OUTPUTS)
    assert assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), known(run))
    return run, stage


def test_what_status_says_of_it(tmp_path):
    run, stage = finished_run(tmp_path / "run", OUTPUTS)
    funnel = state_of(run, stage)
    assert final_states(run, [stage], known(run), funnel) == [Final("final", "stage5", "missing")]
    assemble(run, stage, Config(run=str(run.path)), funnel, known(run))
    assert final_states(run, [stage], known(run), funnel) == [Final("final", "stage5", "current", 4)]
    blocked = [replace(funnel[0], condition="blocked")]
    assert final_states(run, [stage], known(run), blocked) == [Final("final", "stage5", "blocked", 4)]
    (run.path / "final" / "wudao.jsonl").write_bytes(b"{}\n")
    assert final_states(run, [stage], known(run), funnel) == [Final("final", "stage5", "stale", 4)]
    (run.path / "final" / "lineage.parquet").write_bytes(b"PAR1")
    assert final_states(run, [stage], known(run), funnel) == [Final("final", "stage5", "stale")]


def test_rows_have_exactly_instruction_and_output(final):
    lines = (final[0].path / "final" / "wudao.jsonl").read_bytes().split(b"\n")
    rows = [json.loads(line) for line in lines if line]
    assert rows == [{"instruction": f"第{i}问？", "output": OUTPUTS[i]} for i in range(4)]
    assert "答案，有全角标点。".encode() in lines[0]


def test_lineage_leads_back_to_file_and_row(final):
    run, _ = final
    table = parquet.read_table(run.path / "final" / "lineage.parquet")
    assert table.num_rows == 4
    row = table.to_pylist()[2]
    assert (row["subset"], row["line"], row["file"], row["row"], row["text"]) == (
        "wudao",
        3,
        "part-000.json",
        2,
        "原文",
    )
    assert "prompts.polish" in table.schema.metadata[b"kun"].decode()


def test_a_line_of_the_final_file_can_be_traced(final):
    found = find(final[0], "wudao:3")
    assert found["id"] == f"{2:016x}"
    assert found["outputs"]["final"] == {"file": "final/wudao.jsonl", "line": 3}


def test_again_there_is_nothing_to_do_and_new_rows_replace_the_folder_whole(final, tmp_path):
    run, stage = final
    assert not assemble(run, stage, Config(), state_of(run, stage), known(run))
    run, stage = finished_run(run.path, OUTPUTS[:3])
    assert assemble(run, stage, Config(), state_of(run, stage), known(run))
    assert (run.path / "final" / "wudao.jsonl").read_text(encoding="utf-8").count('"instruction"') == 3
    assert len(list(run.store.glob("final-*"))) == 1


@pytest.mark.parametrize("name", ["wudao.jsonl", "lineage.parquet"])
def test_a_file_that_was_deleted_is_made_again(final, name):
    run, stage = final
    before = (run.path / "final" / name).read_bytes()
    (run.path / "final" / name).unlink()
    assert assemble(run, stage, Config(), state_of(run, stage), known(run))
    assert (run.path / "final" / name).read_bytes() == before


@pytest.mark.parametrize("name", ["wudao.jsonl", "lineage.parquet", "README.md"])
def test_a_file_that_was_truncated_is_made_again(final, name):
    run, stage = final
    path = run.path / "final" / name
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 4])
    assert assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), known(run))
    assert path.read_bytes() == before


def test_the_card_has_the_funnel_and_the_settings(final):
    card = (final[0].path / "final" / "README.md").read_text(encoding="utf-8")
    assert "| stage5_polish/wudao | 5 | 4 | 1 | 0 | too_short 1 |" in card
    assert "config_name: wudao\n" in card and "max_tokens: 512" in card
    assert "Personal data" not in card


def test_the_card_counts_personal_data_where_it_is_looked_for(tmp_path):
    run = RunFolder(tmp_path / "run")
    step = Step(POLISH, "wudao", nothing)
    folder = run.begin(step)
    masked = msgspec.structs.replace(polished(0, "请打[电话]。"), text="电话[电话]，[邮箱]", cleaned=("phone", "email"))
    other = msgspec.structs.replace(polished(1, "答案。"), text="[電話]", cleaned=("page_lines", "phone"))
    rejected = polished(2, "答案，13812345678")
    rows = [(masked, masked), (other, other), (rejected, Reject("phone"))]
    shards.publish(folder, "00000", rows, rows=3, source={})
    run.finish(step, summarise(folder, ["00000"], run.source(step)))
    own = {"phone": "mask", "email": "mask", "identity_number": "drop"}
    corpora = {"wudao": {"paths": [str(tmp_path)], "format": "wudao", "filter": {"privacy": own}}}
    stage = polishing(step)
    assemble(run, stage, Config.model_validate({"corpora": corpora}), state_of(run, stage), known(run))
    card = (run.path / "final" / "README.md").read_text(encoding="utf-8")
    assert "| phone numbers (`phone`) | 2 | 1 | 1 |" in card
    assert "| e-mail addresses (`email`) | 1 | 0 | 0 |" in card
    assert "| identity numbers (`identity_number`) | 0 | 0 | 0 |" in card and "`qq`" not in card
    table = parquet.read_table(run.path / "final" / "lineage.parquet").to_pylist()
    assert [row["cleaned"] for row in table] == [["phone", "email"], ["page_lines", "phone"]]


@pytest.mark.slow
def test_the_folder_loads_as_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    run, stage = finished_run(tmp_path / "run", OUTPUTS)
    _, empty = finished_run(run.path, [], subset="skypile")
    both = polishing(*empty.steps, *stage.steps)
    assemble(run, both, Config(run=str(run.path)), state_of(run, stage), known(run))
    rows = load_dataset(str(run.path / "final"), "wudao", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == ["instruction", "output"]
    assert [row["output"] for row in rows] == [output for output in OUTPUTS if output]
    assert (run.path / "final" / "skypile.jsonl").read_bytes() == b""


@pytest.mark.slow
def test_without_a_name_all_subsets_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    run, stage = finished_run(tmp_path / "run", OUTPUTS)
    _, other = finished_run(run.path, ["另一个语料的输出"], subset="skypile")
    both = polishing(*other.steps, *stage.steps)
    assemble(run, both, Config(run=str(run.path)), state_of(run, stage), known(run))
    rows = load_dataset(str(run.path / "final"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["output"] for row in rows] == ["另一个语料的输出", *(output for output in OUTPUTS if output)]
    assert is_current(run, both, known(run))  # the card is read as before


@pytest.mark.slow
def test_the_cache_of_datasets_tells_two_runs_apart(tmp_path, monkeypatch):
    """It knows them by the name of the folder, which is `final` in both, and by the header of the card."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    for name, outputs in (("one", OUTPUTS), ("other", list(reversed(OUTPUTS)))):
        run, stage = finished_run(tmp_path / name, outputs)
        assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), known(run))
        rows = load_dataset(str(run.path / "final"), "wudao", split="train", cache_dir=str(tmp_path / "cache"))
        assert [row["output"] for row in rows] == [output for output in outputs if output]


@pytest.mark.slow
def test_a_data_set_without_rows_has_a_card_that_can_be_read(tmp_path):
    from huggingface_hub import DatasetCard

    run, stage = finished_run(tmp_path / "run", [])
    assemble(run, stage, Config(run=str(run.path)), state_of(run, stage), known(run))
    assert DatasetCard.load(run.path / "final" / "README.md").data.language == ["zh"]
    assert is_current(run, stage, known(run))
    (run.path / "final" / "wudao.jsonl").unlink()
    assert not is_current(run, stage, known(run))


def test_names_and_settings_stay_inside_their_place_on_the_card(tmp_path):
    run, stage = finished_run(tmp_path / "runs" / "x", OUTPUTS)
    settings = Config(run="a/<script>`\n# b", base_model="m`|\nx", seeds={"pairs": "````\n<script>"})
    assemble(run, stage, settings, state_of(run, stage), known(run))
    card = (run.path / "final" / "README.md").read_text(encoding="utf-8")
    before, _, inside = card.partition("`````yaml\n")
    assert "<script>" not in before and "\n# b" not in before and "Base model `m'| x`" in before
    block, fence, after = inside.partition("`````\n")
    assert "<script>" in block and fence and "<script>" not in after and "`````" not in after
