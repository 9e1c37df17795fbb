"""`kun plan` on small corpora with the embedded base's tokenizer: before a run, beside one, after one."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun.cli import plan as plan_command
from kun.config.schema import Config
from kun.engines.cache import EngineCache
from kun.errors import ConfigError, InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.planning.disk import ESTIMATED
from kun.planning.plan import Options, plan
from kun.planning.table import as_json, render
from kun.records import Filtered, Labelled, Origin, Polished, Reject, Scored, extend
from kun.store import shards
from kun.store.digests import Digests
from stages import pipeline
from tests.runs import REPOSITORY, environment, kun

PROSE = "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多，第{}处湖面在阳光下闪着光。"
TEXTS = [*(PROSE.format(number) for number in range(30)), "短", "3+3/;%DBAB__D44#x/9" * 3, "好" * 900]
BASE = REPOSITORY / "kun/demo/base"


def configuration(tmp_path, texts=TEXTS, **settings):
    path = tmp_path / "web.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    seeds = tmp_path / "seeds.jsonl"
    rows = [{"instruction": f"请介绍第{n}处湖。", "output": PROSE.format(n)} for n in range(20)]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    fields = {
        "run": str(tmp_path / "run"),
        "base_model": str(BASE),
        "prompts": "demo",
        "seeds": {"pairs": str(seeds)},
        "corpora": {"web": {"paths": [str(path)], "format": "jsonl"}},
        "filter": {"near_duplicates": None},
    }
    return Config.model_validate(fields | settings)


def look(config, **options):
    return plan(config, list(config.corpora), Options(**options))


def test_of_a_corpus_that_is_smaller_than_the_sample_the_plan_is_what_stage_2_then_does(tmp_path):
    config = configuration(tmp_path)
    (subset,) = look(config, sample=1000).subsets
    assert not (tmp_path / "run").exists()  # nothing is written
    run = RunFolder(tmp_path / "run")
    run.store.mkdir(parents=True)
    for stage in pipeline(config, Digests(tmp_path / "digests.json"), EngineCache(config)):
        if stage.command == "stage2":
            run_stage(stage, run)
            whole = run.current(stage.steps[0])
    assert subset.rows.basis == subset.filtered.basis == "counted"
    assert subset.rows.value == len(TEXTS)
    assert subset.rows.value * subset.filtered.value == pytest.approx(whole.kept) == pytest.approx(30)
    written = sum(path.stat().st_size for path in run.store.rglob("part-*.jsonl"))
    assert subset.rows.value * subset.filter_bytes == pytest.approx(written, rel=0.1)
    (again,) = look(config, sample=1000).subsets
    assert again.filtered.basis == "run" and again.filtered.value == pytest.approx(subset.filtered.value)


def test_tokens_are_those_of_the_prompts_and_the_seeds(tmp_path):
    found = look(configuration(tmp_path))
    label, score, polish = found.subsets[0].asked
    assert label.prompt.value > found.work[0].repeated / found.work[0].rows > 0
    assert label.reply.basis == "seeds" and 5 < label.reply.value < 40
    assert score.reply.value == 0 and score.reply.basis == "setting" and score.cached and not label.cached
    assert polish.prompt.value > label.prompt.value
    assert polish.reply.basis == "assumed" and "seeds.polish" in polish.reply.how
    label_model, chat_model = found.training
    assert label_model.epochs == 6 and chat_model.epochs == 4
    assert label_model.tokens == pytest.approx(label_model.examples * 6 * 110, rel=0.3)


def test_options_of_vllm_are_checked_as_a_run_checks_them(tmp_path):
    engine = {"kind": "vllm", "vllm": {"max_model_len": 9}}
    with pytest.raises(ConfigError, match=r"engine\.vllm\.max_model_len: Kun sets this itself; remove it"):
        look(configuration(tmp_path, engine=engine))


@pytest.mark.parametrize("form", ["wudao", "wanjuan", "skypile", "jsonl", "text", "parquet"])
def test_every_format_is_planned(tmp_path, form):
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = [PROSE.format(number) for number in range(40)]
    data = "".join(json.dumps({"text": text, "content": text}) + "\n" for text in texts).encode()
    if form == "wudao":
        (folder / "a.json").write_text(json.dumps([{"content": text} for text in texts]))
    elif form == "wanjuan":
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("a.jsonl")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    elif form == "text":
        (folder / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(texts).encode()))
    elif form == "parquet":
        pq.write_table(pa.table({"text": texts}), folder / "a.parquet")
    else:
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(data))
    found = look(configuration(tmp_path, corpora={"web": {"paths": [str(folder)], "format": form}}))
    assert found.subsets[0].rows.value == 40 and found.work[-1].rows == pytest.approx(40)


@pytest.mark.parametrize(("texts", "said"), [([], "web: has no rows"), (["短"] * 9, "keeps nothing of the sample")])
def test_a_corpus_with_nothing_to_plan_with(tmp_path, texts, said):
    found = look(configuration(tmp_path, texts))
    assert said in render(found, "my.yaml")
    assert all(work.rows == work.prefill == work.decode == 0 for work in found.work)
    assert msgspec.json.encode(as_json(found))


def test_a_text_over_the_window_is_not_asked_and_not_kept(tmp_path):
    window = {"engine": {"window": 360}, "label": {"sampling": {"max_tokens": 256}}}
    window["filter"] = {"near_duplicates": None, "quality": {"repetition": None}}
    alone = look(configuration(tmp_path, [PROSE.format(1)] * 1, **window))
    found = look(configuration(tmp_path, [PROSE.format(1), "。".join(PROSE.format(n) for n in range(5))], **window))
    label = found.subsets[0].asked[0]
    assert found.work[0].rows == pytest.approx(2) and found.work[0].kept == pytest.approx(1)
    assert "50.0% of the sample is over the window" in label.kept.how
    assert found.work[0].prefill == pytest.approx(alone.work[0].prefill)


def test_text_that_no_terminal_loves(tmp_path):
    odd = [PROSE.format("🏔️👨‍👩‍👧"), PROSE.format("\ud83d"), PROSE.format("\u2028零"), PROSE.format("繁體與ＡＢＣ")]
    found = look(configuration(tmp_path, odd))
    assert found.subsets[0].rows.value == 4 and found.work[-1].rows == pytest.approx(4)
    assert msgspec.json.encode(as_json(found)) and render(found, "my.yaml").encode()


def test_a_base_without_weights_is_enough_and_one_without_a_tokenizer_is_not(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASE, base, ignore=shutil.ignore_patterns("*.safetensors"))
    config = configuration(tmp_path, base_model=str(base))
    assert "has no weights yet" in look(config).disk[0].how
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        look(config)
    with pytest.raises(InputError, match="base_model: no folder"):
        look(configuration(tmp_path, base_model=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="base_model: is not set"):
        look(configuration(tmp_path, base_model=None))


def test_perplexity_where_the_model_is_given_and_a_word_where_it_is_not(tmp_path):
    off = {"near_duplicates": None}
    given = look(
        configuration(
            tmp_path, filter={**off, "lm": {"model": str(REPOSITORY / "kun/demo/lm")}, "ppl_min": None, "ppl_max": 1.1}
        )
    )
    assert given.subsets[0].filtered.value == 0  # nothing reads that well
    estimated = {**off, "lm": {"estimate_from": str(tmp_path / "web.jsonl")}}
    found = look(configuration(tmp_path, filter=estimated))
    assert any("`kun filter-preview` does it" in note for note in found.notes)


def disk(config, **options):
    return {space.what: space for space in look(config, **options).disk}


def test_the_language_model_is_in_the_disk_s_sum(tmp_path):
    estimated = configuration(
        tmp_path, filter={"near_duplicates": None, "lm": {"estimate_from": str(tmp_path / "web.jsonl")}}
    )
    assert disk(estimated)["stage2 lm"].bytes == ESTIMATED["trie"] * (tmp_path / "web.jsonl").stat().st_size
    given = configuration(tmp_path, filter={"near_duplicates": None, "lm": {"model": str(REPOSITORY / "kun/demo/lm")}})
    assert disk(given)["stage2 lm"].bytes < 1000  # its lm.json; the model itself stays where it is
    assert "stage2 lm" not in disk(configuration(tmp_path))


def test_merged_copies_have_the_bytes_of_their_type(tmp_path):
    base = sum(path.stat().st_size for path in BASE.glob("*.safetensors"))
    half, whole = (
        disk(configuration(tmp_path, engine={"kind": "vllm", "adapters": "merged", "dtype": dtype}))["merged models"]
        for dtype in ("bfloat16", "float32")
    )
    assert whole.bytes == 2 * half.bytes and "float32" in whole.how
    assert half.bytes == pytest.approx(2 * base, rel=0.01)  # the embedded base is bfloat16


def test_damaged_weights_are_named(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    (base / "model.safetensors").write_bytes(b"\xff" * 9000)
    with pytest.raises(InputError, match=r"base_model: .*model\.safetensors cannot be read"):
        look(configuration(tmp_path, base_model=str(base), engine={"kind": "vllm"}))


def test_gpus_and_a_price_without_rates_say_what_they_need(tmp_path):
    config = configuration(tmp_path)
    for options in ({"gpus": 8}, {"price": 2.5}):
        assert any("say nothing without rates" in note for note in look(config, **options).notes)
    assert not any("rates" in note for note in look(config).notes)


def publish(run, stage, kept, rejected):
    folder = run / stage / "web"
    outcomes = [(one, one) for one in kept] + [(one, Reject(reason)) for one, reason in rejected]
    shards.publish(folder, "00000", outcomes, rows=len(outcomes), source={})


def test_seeds_that_are_too_long_are_told(tmp_path):
    config = configuration(tmp_path, train={"max_length": 130})
    rows = [{"instruction": f"介绍第{n}处。", "output": PROSE.format(n) * 3} for n in range(9)]
    with (tmp_path / "seeds.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows, {"instruction": "问" * 200, "output": "答"}])
    notes = "\n".join(look(config).notes)
    assert "seeds: label model: 9 of 30 seeds (30.0%) are cut to train.max_length 130" in notes
    assert "seeds: chat model: 1 of 30 seeds (3.3%) are left out: longer than train.max_length" in notes


def test_what_the_run_has_done_takes_the_place_of_assumptions(tmp_path):
    texts = [
        Filtered(id=f"{n:020x}", subset="web", text=PROSE.format(n), origin=Origin("a", n), ppl=None, tokens=50)
        for n in range(10)
    ]
    labelled = [extend(text, Labelled, instruction="请介绍这座山。" * 4) for text in texts]
    scored = [extend(one, Scored, score=0.9) for one in labelled]
    polished = [extend(one, Polished, output=one.text[: len(one.text) // 2], faithfulness=1.0) for one in scored]
    run = tmp_path / "run"
    publish(run, "stage3_label", labelled[:8], [(texts[8], "unfinished"), (texts[9], "empty")])
    publish(run, "stage4_verdicts", scored[:8], [])
    publish(run, "stage4_score", scored[:6], [(one, "low_score") for one in scored[6:8]])
    publish(run, "stage5_polish", polished[:3], [(one, "repeats") for one in scored[3:6]])
    config = configuration(tmp_path)
    label, score, polish = look(config).subsets[0].asked
    assert [one.kept.value for one in (label, score, polish)] == pytest.approx([0.8, 0.75, 0.5])
    assert {one.kept.basis for one in (label, score, polish)} == {"run"}
    length = look(configuration(tmp_path, run=str(tmp_path / "no"))).subsets[0].asked[2].reply.value
    assert polish.reply.basis == "run" and polish.reply.value < 0.7 * length
    assert label.reply.value > 0.1 * config.label.sampling.max_tokens  # one of ten was cut off there
    given = look(config, kept=(0.1, 0.2, 0.3)).subsets[0].asked
    assert [one.kept.value for one in given] == [0.1, 0.2, 0.3] and given[0].kept.basis == "given"
    share = look(configuration(tmp_path, score={"select": "top_share", "top_share": 0.25})).subsets[0].asked[1].kept
    assert (share.value, share.basis) == (0.25, "setting")


def arguments(*typed):
    parser = argparse.ArgumentParser()
    plan_command.add_command(parser.add_subparsers())
    return parser.parse_args(["plan", "--config", "my.yaml", *typed])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--sample", "0"], "--sample 0: at least one row"),
        (["--prefill-rate", "0", "--decode-rate", "5"], "--prefill-rate 0: tokens a second, above 0"),
        (["--prefill-rate", "5", "--decode-rate", "-1"], "--decode-rate -1: tokens a second, above 0"),
        (["--prefill-rate", "nan", "--decode-rate", "5"], "--prefill-rate nan"),
        (["--prefill-rate", "5"], "go together"),
        (["--prefill-rate", "5", "--decode-rate", "5", "--probe"], "not both"),
        (["--probe", "0"], "--probe 0: seconds, above 0"),
        (["--gpus", "0"], "--gpus 0"),
        (["--price", "-2"], "--price -2"),
        (["--kept", "0.5", "1.5", "1"], "three shares from 0 to 1"),
    ],
)
def test_options_that_make_no_sense_are_named(typed, said):
    with pytest.raises(InputError, match=said.replace("-", "[-]")):
        plan_command.options_of(arguments(*typed))


@pytest.mark.parametrize("epochs", ["abc", None, -1])
def test_epochs_that_are_none_are_an_error(tmp_path, epochs):
    with pytest.raises(ConfigError, match=r"train\.label: num_train_epochs: .*: a number of epochs is needed"):
        plan(configuration(tmp_path, train={"label": {"num_train_epochs": epochs}}), ["web"], Options())


def test_from_the_command_line_without_torch(tmp_path):
    config = configuration(tmp_path)
    (tmp_path / "my.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    done = kun(tmp_path, "plan", "--config", "my.yaml", "--prefill-rate", "1e4", "--decode-rate", "1e3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"]["gpu_hours"] > 0
    code = "import sys; from kun.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules, 'torch'"
    options = ["plan", "--config", "my.yaml", "--filter.min-chars", "10000"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "the filter keeps nothing of the sample" in done.stdout
    assert "next: kun plan --config my.yaml --filter.min-chars 10000 --probe" in done.stdout
    (tmp_path / "none.yaml").write_text("run: run\n")
    done = kun(tmp_path, "plan", "--config", "none.yaml")
    assert done.returncode == 2 and "corpora: none is named" in done.stderr


@pytest.mark.slow
def test_a_plan_beside_a_finished_run_is_what_the_run_did(finished, tmp_path):
    config = finished / "small.yaml"
    before = json.loads(kun(tmp_path, "plan", "--config", config, "--json").stdout)
    shutil.copytree(finished / "run", tmp_path / "run", symlinks=True)
    done = kun(tmp_path, "plan", "--config", config, "--probe", "4", "--json", models=True)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    funnel = json.loads(kun(tmp_path, "status", "run", "--json").stdout)["stages"]
    for work in after["work"]:
        (step,) = (step for step in funnel if (step["stage"], step.get("subset")) == (work["stage"], work["subset"]))
        assert work["rows"] == pytest.approx(step["in"], abs=1)  # a share of a few rows is not whole
        assert work["kept"] == pytest.approx(step["kept"], abs=1)
    assert after["rates"]["basis"] == "probe" and "says nothing of a GPU" in after["rates"]["how"]
    assert "a longer --probe" in after["rates"]["how"]
    assert after["rates"]["prefill"] > after["rates"]["decode"] > 0
    for first, second in zip(before["work"], after["work"], strict=True):
        if first["stage"] == "stage3_label":  # nothing but perplexity was missing before
            assert first["prefill"] == pytest.approx(second["prefill"], rel=0.25)
