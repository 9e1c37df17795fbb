"""What a user meets on the command line, in a process of its own; stage 2 needs no model, only a tokenizer."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kun.pipeline.lock import hold
from tests.runs import REPOSITORY, command, environment, kun

TEXTS = ["今天的天气很好，我们一起去公园里散步，看看湖边的花。", "春天来了，院子里的桃树开满了花，蜜蜂忙着采蜜。"]


@pytest.fixture(scope="module")
def filtered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("filtered"))
    done = kun(folder, "run", "stage2", "--config", "my.yaml")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def filtered(filtered_once: Path, tmp_path: Path) -> Path:
    """What `folder` has, and its stage 2 in runs/my: a copy of one run."""
    return shutil.copytree(filtered_once, tmp_path, symlinks=True, dirs_exist_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def write_folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    (tmp_path / "corpus.jsonl").write_text("\n".join([*lines, "{not json", '{"other": 1}', lines[0]]), encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("corpora: {}")
    (tmp_path / "my.yaml").write_text(
        f"run: runs/my\nbase_model: {REPOSITORY}/kun/demo/base\nprompts: demo\nworkers: 1\n"
        "corpora: {web: {paths: [corpus.jsonl], format: jsonl}}\n"
        "filter: {min_chars: 5, near_duplicates: null}\n"
    )
    return tmp_path


def test_help_teaches(tmp_path):
    shown = kun(tmp_path, "--help").stdout
    assert "`kun run --help`" in shown and "trace" in shown
    settings = kun(REPOSITORY, "run", "--help").stdout
    assert re.search(r"^  stage1 +train the label model", settings, re.MULTILINE)
    assert "--score.threshold" in settings and "lowest score kept" in settings
    assert "--score.threshold" in kun(tmp_path, "run", "--help").stdout  # wherever it is typed


def test_bad_rows_are_named_rejects_and_a_finished_stage_says_so(folder):
    done = kun(folder, "run", "stage2", "--config", "my.yaml")
    assert done.returncode == 0, done.stderr
    assert "stage2_ingest/web: 5 in, 2 kept, 3 rejected (duplicate 1, no_field 1, not_json 1)" in done.stdout
    rejects = kun(folder, "show", "runs/my", "stage2_ingest", "--rejects").stdout
    assert '"file":"corpus.jsonl","row":2' in rejects and "{not json" in rejects
    assert "next: kun run stage1 --config my.yaml" in done.stdout
    again = kun(folder, "run", "stage2", "--config", "my.yaml")
    assert again.stdout.count("nothing to do") == 3 and again.returncode == 0


def test_an_empty_corpus_is_told_and_leaves_the_others_alone(folder):
    (folder / "empty.jsonl").touch()
    corpora = ["--corpora.void.paths", "empty.jsonl", "--corpora.void.format", "jsonl"]
    done = kun(folder, "run", "stage2", "--config", "my.yaml", *corpora)
    assert done.returncode == 0 and "stage2_filter/void: 0 in, 0 kept, 0 rejected" in done.stdout
    assert "warning: corpus void has no rows; see corpora.void.paths" in done.stderr
    assert "void: nothing to do" in kun(folder, "run", "stage2", "--config", "my.yaml", *corpora).stdout
    assert kun(folder, "verify", "runs/my").returncode == 0


def test_a_world_does_not_take_the_place_of_a_run(filtered):
    done = kun(filtered, "demo-data", "--out", "runs/my")
    assert done.returncode == 2 and "--out runs/my: is a run" in done.stderr


def test_the_stage_goes_before_the_settings(folder):
    done = kun(folder, "run", "--seed", "3", "stage2")
    assert done.returncode == 2
    assert "'3' is none of stage1, stage2, stage3, stage4, stage5, all; it goes before the settings" in done.stderr


def test_a_finished_stage_does_not_import_torch(filtered):
    code = "import atexit, sys, kun.cli.main as c; atexit.register(lambda: print('torch' in sys.modules)); c.main()"
    command = [sys.executable, "-c", code, "run", "stage2", "--config", "my.yaml"]
    done = subprocess.run(command, cwd=filtered, capture_output=True, text=True, env=environment())
    assert "nothing to do" in done.stdout and done.stdout.endswith("False\n")


def test_evaluation_files_are_kept_out_and_another_file_makes_the_filter_stale(folder):
    (folder / "eval.jsonl").write_text(json.dumps({"question": TEXTS[0]}), encoding="utf-8")
    options = ("--config", "my.yaml", "--decontaminate.files", "eval.jsonl")
    done = kun(folder, "run", "stage2", *options)
    assert "stage2_evaluations/index: ngram 20, files 1, rows 1, ngrams 4" in done.stdout, done.stderr
    assert "stage2_filter/web: 2 in, 1 kept, 1 rejected (contaminated 1)" in done.stdout
    rejects = kun(folder, "show", "runs/my", "stage2_filter", "--rejects", "--fields", "detail").stdout
    assert "eval.jsonl, row 0: 今天的天气很好" in rejects
    (folder / "eval.jsonl").write_text(json.dumps({"question": TEXTS[1]}), encoding="utf-8")
    assert "stale: decontaminate.files changed" in kun(folder, "status", "runs/my").stdout
    missing = kun(folder, "run", "stage2", "--config", "my.yaml", "--decontaminate.files", "none.jsonl")
    assert (missing.returncode, missing.stderr) == (2, "kun: decontaminate.files: none.jsonl: no such file or folder\n")


def test_status_and_trace(filtered):
    report = json.loads(kun(filtered, "status", "runs/my", "--json").stdout)
    ingest = next(s for s in report["stages"] if s["stage"] == "stage2_ingest")
    assert (ingest["subset"], ingest["in"], ingest["kept"]) == ("web", 5, 2)
    kept = kun(filtered, "show", "runs/my", "stage2_filter/web", "--limit", "1").stdout.splitlines()
    (record,) = map(json.loads, kept)
    assert {"id", "subset", "text", "origin", "ppl", "tokens"} == set(record)
    life = json.loads(kun(filtered, "trace", "runs/my", record["id"], "--json").stdout)["life"]
    assert [(e["stage"], e["outcome"]) for e in life] == [("stage2_ingest", "kept"), ("stage2_filter", "kept")]
    line = kun(filtered, "trace", "runs/my", "web:1")
    assert line.returncode == 2 and "runs/my: has no final files yet" in line.stderr


def test_a_changed_setting_makes_new_output_beside_the_old_and_says_why(filtered):
    text = (filtered / "my.yaml").read_text().replace("min_chars: 5", "min_chars: 25")
    (filtered / "my.yaml").write_text(text)
    shown = kun(filtered, "status", "--config", "my.yaml").stdout
    assert "stale" in shown and "stale: filter.min_chars changed" in shown
    done = kun(filtered, "run", "stage2", "--config", "my.yaml")
    assert "stage2_ingest/web: nothing to do" in done.stdout and "too_short 1" in done.stdout
    assert len(list((filtered / "runs/my/store").glob("stage2_filter-web-*"))) == 2
    back = kun(filtered, "run", "stage2", "--config", "my.yaml", "--filter.min-chars", "5")
    assert back.stdout.count("nothing to do") == 3


def test_one_subset_alone_gets_the_language_model_that_serves_all(folder):
    lm = REPOSITORY / "kun/demo/lm"
    done = kun(folder, "run", "stage2", "--config", "my.yaml", "--subset", "web", "--filter.lm.model", lm)
    assert done.returncode == 0, done.stderr
    assert "stage2_lm/kenlm" in done.stdout and "stage2_filter/web: 2 in" in done.stdout
    again = ["run", "stage2", "--config", "my.yaml", "--subset", "web", "--filter.lm.model", lm, "--force"]
    done = kun(folder, *again)
    assert "stage2_lm/kenlm: nothing to do" in done.stdout and "stage2_filter/web: 2 in" in done.stdout


def test_settings_that_are_refused_do_not_become_those_of_the_run(filtered):
    before = (filtered / "runs/my/config.yaml").read_bytes()
    refused = kun(filtered, "run", "stage1", "--config", "my.yaml", "--seed", "9")
    assert refused.returncode == 2 and "seeds.pairs: training needs it" in refused.stderr
    assert (filtered / "runs/my/config.yaml").read_bytes() == before


def test_the_settings_of_a_run_are_those_that_made_what_is_there(folder):
    options = ["run", "stage2", "--config", "my.yaml"]
    assert kun(folder, *options).returncode == 0
    path = folder / "runs/my/config.yaml"
    before = path.read_bytes()
    idle = kun(folder, *options, "--engine.kind", "vllm", "--label.max-chars", "7")
    assert idle.stdout.count("nothing to do") == 3 and path.read_bytes() == before
    assert kun(folder, *options, "--filter.min-chars", "25").returncode == 0
    assert "min_chars: 25" in path.read_text(encoding="utf-8")
    back = kun(folder, *options)  # nothing is made, and yet the plain names lead elsewhere
    assert back.stdout.count("nothing to do") == 3 and path.read_bytes() == before
    assert kun(folder, *options, "--label.max-chars", "7", "--force").returncode == 0
    assert "max_chars: 7" in path.read_text(encoding="utf-8")


def test_a_refused_run_leaves_the_settings_that_made_what_is_there(filtered):
    path = filtered / "runs/my/config.yaml"
    before = path.read_bytes()
    refused = kun(filtered, "run", "stage3", "--config", "my.yaml", "--filter.min-chars", "25")
    assert refused.returncode == 2 and path.read_bytes() == before
    assert kun(filtered, "run", "stage5", "--config", "my.yaml", "--run", "runs/none").returncode == 2
    assert not (filtered / "runs/none/config.yaml").exists()
    path.write_text("run: [", encoding="utf-8")
    assert kun(filtered, "run", "stage2", "--config", "my.yaml").returncode == 0 and path.read_bytes() == before
    for run in ("", ".", "/"):
        refused = kun(filtered, "run", "stage2", "--config", "my.yaml", "--run", run)
        assert (refused.returncode, "folder of its own" in refused.stderr) == (2, True)


def test_status_of_a_run_that_was_moved_names_its_folder(filtered):
    (filtered / "runs/my").rename(filtered / "moved")
    assert "next: kun run stage1 --config moved/config.yaml --run moved" in kun(filtered, "status", "moved").stdout


def test_a_reader_that_stops_reading_is_no_error(filtered):
    line = shlex.join(command("status", "runs/my", "--json")) + " | true"
    done = subprocess.run(line, shell=True, cwd=filtered, capture_output=True, text=True, env=environment())
    assert done.stderr == ""


def test_sigterm_stops_a_run_even_where_ctrl_c_is_ignored(folder):
    """As in the background of a script."""
    code = (
        "import os, signal, kun.cli.main, kun.cli.run; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "kun.cli.run._run = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), 0)[1]; kun.cli.main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "stage2"], cwd=folder, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 130 and "kun: stopped" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "stage2", "--config", "gone.yaml"], "gone.yaml: cannot be read"),
        (["run", "stage2", "--config", "my.yaml", "--subset", "weib"], "there is no corpus 'weib'; corpora: web"),
        (["run", "stage2", "--config", "my.yaml", "--corpora.web.paths", "gone/"], "corpora.web.paths: gone/: no such"),
        (["run", "stage2", "--config", "my.yaml", "--base-model", "."], "base_model: . is not a model folder"),
        (["run", "stage1", "--config", "my.yaml"], "seeds.pairs: training needs it"),
        (["run", "stage1", "--config", "my.yaml", "--seeds.pairs", "gone.jsonl"], "gone.jsonl: No such file"),
        (["run", "stage3", "--config", "my.yaml", "--seeds.pairs", "corpus.jsonl"], "reads stage2_filter/web"),
        (["run", "stage2", "--config", "my.yaml", "--run", "/proc/kun"], "/proc/kun"),
        (["status", "nowhere"], "nowhere: is not a run"),
        (["trace", "nowhere", "x"], "nowhere: is not a run"),
        (["status", "--wrong"], "unknown arguments: --wrong"),
        (["run", "stage2", "--config", "my.yaml", "--run", "corpus.jsonl"], "a file or folder is in the way"),
        (["run", "stage2", "--config", "empty.yaml"], "empty.yaml: corpora: none is named"),
        (
            ["run", "stage2", "--config", "my.yaml", "--corpora.web.paths", "."],
            "run: runs/my is in the folder of",
        ),
        (
            ["run", "stage2", "--config", "my.yaml", "--seed", "4294967296"],
            "--seed: Input should be less than",
        ),
        (["verify", "my.yaml"], "my.yaml: is no folder; give that of a run"),
        (["demo-data", "--out", "my.yaml"], "--out my.yaml: is a file; give another folder"),
    ],
)
def test_errors_are_one_clear_message_and_end_with_2(folder, arguments, message):
    done = kun(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_names_that_the_locale_cannot_encode(folder):
    shutil.move(folder / "corpus.jsonl", folder / "语料.jsonl")
    (folder / "my.yaml").rename(folder / "我的.yaml")
    options = ["run", "stage2", "--config", "我的.yaml", "--corpora.web.paths", "语料.jsonl", "--run", "运行"]
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command(*options), cwd=folder, env=environment() | plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "next: kun run stage1 --config '我的.yaml'" in done.stdout
    assert list((folder / "运行/stage2_filter/web").glob("part-*.jsonl"))


def test_a_wrong_field_is_told_before_anything_is_made(folder):
    done = kun(folder, "run", "stage2", "--config", "my.yaml", "--corpora.web.field", "body")
    assert done.returncode == 2 and "corpora.web.field: body: none of the first 5 rows has a text" in done.stderr
    assert not list((folder / "runs/my/store").glob("stage2*"))


@pytest.mark.parametrize(
    "words", [[], *([name] for name in ("run", "plan", "status", "trace", "verify", "clean", "lm"))]
)
def test_help_warns_of_nothing(folder, words):
    shown = kun(folder, *words, "--help")
    assert shown.returncode == 0 and not shown.stderr and "arning:" not in shown.stdout


def test_two_runs_at_once_are_refused_with_the_name_of_the_holder(filtered):
    with hold(filtered / "runs/my/lock", "kun run stage2 --config my.yaml"):
        done = kun(filtered, "run", "stage2", "--config", "my.yaml")
        seen = kun(filtered, "status", "runs/my").stdout.splitlines()[-1]
    holder = f"in use by 'kun run stage2 --config my.yaml' (process {os.getpid()} on"
    assert done.returncode == 2 and holder in done.stderr
    assert seen.startswith("at work: runs/my: ") and holder in seen


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_says_so_and_loses_nothing(folder):
    """A file system of 300 kB takes the corpus in, and not a second time as filtered rows."""
    long = "".join(chr(0x4E00 + n) for n in range(400))
    lines = [json.dumps({"text": f"第{n}页。{long}"}, ensure_ascii=False) for n in range(150)]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "runs").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder / "runs"]).returncode:
        pytest.skip("mounting is not allowed here")
    options = ["run", "stage2", "--config", "my.yaml", "--ingest.shard-rows", "10"]
    try:
        full = kun(folder, *options)
        assert full.returncode == 2
        assert "the disk is full" in full.stderr and "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=4m", folder / "runs"], check=True)
        done = kun(folder, *options)
        assert done.returncode == 1 and "nothing is left of web: stage2_filter kept none of 150 rows" in done.stderr
        assert "stage2_filter/web: 150 in" in done.stdout
        assert not list((folder / "runs").rglob(".*.tmp"))
    finally:
        subprocess.run(["umount", folder / "runs"], check=True)


def test_estimating_without_lmplz_says_how_to_get_it(folder):
    (folder / "clean.jsonl").write_text((folder / "corpus.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    code = "import kun.filters.perplexity.lmplz as m, kun.cli.main as c; m.find_program = lambda name: None; c.main()"
    options = ["run", "stage2", "--config", "my.yaml", "--filter.lm.estimate-from", "corpus.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=folder, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 2
    assert "make setup" in done.stderr and "libboost" in done.stderr
