"""`run.log` of a run, `--quiet` and `--verbose`, as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kun.config.files import load_of_run
from kun.store import digests
from tests.runs import REPOSITORY, environment, kun

TEXTS = ["今天的天气很好，我们一起去公园里散步，看看湖边的花。", "春天来了，院子里的桃树开满了花，蜜蜂忙着采蜜。"]
RUN = ("run", "stage2", "--config", "my.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "my.yaml").write_text(
        f"run: runs/my\nbase_model: {REPOSITORY}/kun/demo/base\nprompts: demo\nworkers: 1\n"
        "corpora: {web: {paths: [corpus.jsonl], format: jsonl}, void: {paths: [empty.jsonl], format: jsonl}}\n"
        "filter: {min_chars: 5, near_duplicates: null}\n"
    )
    return tmp_path


def log_of(folder: Path) -> str:
    return (folder / "runs/my/run.log").read_text(encoding="utf-8")


def test_the_log_of_a_run_has_command_versions_settings_warnings_and_what_was_done(folder):
    done = kun(folder, *RUN)
    log = log_of(folder)
    assert "INFO kun.cli.log" in log and f"command: kun {' '.join(RUN)}\n" in log
    assert "versions: python 3." in log and ", kun " in log and ", torch " in log
    settings = digests.of_value(load_of_run(folder / "runs/my").model_dump(mode="json"))[:16]
    assert f"settings: digest {settings}; host " in log
    assert "INFO kun.cli.run" in log and "stage2_ingest: started: web, void\n" in log
    assert "stage2_ingest/web: 2 in, 2 kept" in log and "stage2_ingest: finished after " in log
    warning = "warning: corpus void has no rows; see corpora.void.paths\n"
    assert warning in log and warning in done.stderr and "WARNING kun.cli.run" in log
    assert log.endswith("exit status 0\n")
    again = kun(folder, *RUN, "--filter.ppl-max", "x3", "--force")
    assert again.returncode == 0 and log_of(folder).startswith(log)
    assert kun(folder, "verify", "runs/my").returncode == 0


def test_errors_and_their_exit_status_are_logged(folder):
    done = kun(folder, "run", "stage1", "--config", "my.yaml")
    assert done.returncode == 2 and done.stderr.startswith("kun: seeds.pairs: training needs it")
    assert f"ERROR kun.cli.main [{log_of(folder).split('[')[1].split(']')[0]}] {done.stderr}" in log_of(folder)
    assert log_of(folder).endswith("exit status 2\n")


def test_an_unexpected_error_has_its_traceback_on_the_console_and_in_the_log(folder):
    code = "import kun.cli.run as r, kun.cli.main as c;r.run_stage = lambda *_: [][7]; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN], cwd=folder, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 70
    assert done.stderr.startswith("Traceback") and "please report it" in done.stderr.splitlines()[-1]
    assert "    IndexError: list index out of range" in log_of(folder) and "CRITICAL kun.cli.main" in log_of(folder)
    assert log_of(folder).endswith("exit status 70\n")


def test_quiet_shows_errors_only(folder):
    done = kun(folder, *RUN, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "warning: corpus void has no rows" in log_of(folder)
    failed = kun(folder, "run", "stage1", "--config", "my.yaml", "--quiet")
    assert failed.returncode == 2 and failed.stderr.startswith("kun: seeds.pairs") and failed.stdout == ""


def test_verbose_says_what_is_being_done(folder):
    done = kun(folder, *RUN, "--verbose")
    assert "stage2_ingest: started: web, void\n" in done.stderr and "versions: " in done.stderr
    assert "stage2_ingest/web: 2 in" in done.stdout and "stage2_ingest/web: 2 in" not in done.stderr
    refused = kun(folder, *RUN, "--verbose", "--quiet")
    assert refused.returncode == 2 and "not allowed with argument" in refused.stderr


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_commands_that_work_for_a_while_take_both(folder, option):
    kun(folder, *RUN)
    for arguments in (
        ("plan", "--config", "my.yaml"),
        ("filter-preview", "--config", "my.yaml"),
        ("verify", "runs/my"),
    ):
        done = kun(folder, *arguments, option)
        assert done.returncode == 0 and done.stdout, done.stderr


def test_no_secret_is_shown_or_logged(folder, monkeypatch):
    """A key that somebody has put into the URL of a server, which an error names."""
    monkeypatch.setenv("KUN_API_KEY", "sk-geheim-42")
    monkeypatch.setenv("HF_TOKEN", "hf_geheim")
    options = ("--engine.kind", "server", "--engine.server.urls", "http://127.0.0.1:9/sk-geheim-42/v1")
    (folder / "hf_geheim.yaml").write_text((folder / "my.yaml").read_text())
    kun(folder, *RUN)
    done = kun(folder, "run", "stage3", "--config", "hf_geheim.yaml", *options, "--engine.server.retries", "0")
    assert done.returncode == 2
    for text in (log_of(folder), done.stdout, done.stderr, (folder / "runs/my/lock").read_text()):
        assert "geheim" not in text
    assert "command: kun run stage3 --config ***.yaml" in log_of(folder)
    refused = kun(folder, *RUN, "--seed", "hf_geheim")
    assert "geheim" not in refused.stderr and "***" in refused.stderr


def test_a_log_that_cannot_be_written_ends_no_run(folder):
    (folder / "runs/my/run.log").mkdir(parents=True)
    done = kun(folder, *RUN)
    assert done.returncode == 0 and "run.log: cannot be written" in done.stderr


def test_a_run_that_is_refused_writes_nothing_into_the_log(folder):
    from kun.pipeline.lock import hold

    kun(folder, *RUN)
    before = log_of(folder)
    with hold(folder / "runs/my/lock", "another"):
        assert kun(folder, *RUN).returncode == 2
    assert log_of(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_log_on_a_full_disk_ends_no_run(folder):
    (folder / "log").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder / "log"]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (folder / "log/filler").write_bytes(b"x" * 4096)
        code = (
            "import pathlib, logging; from kun.execution.log import LogSetup, configure;"
            "configure(LogSetup(file=pathlib.Path('log/run.log'))); logging.getLogger('kun').warning('goes on')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 0 and "goes on" in done.stderr and "No space left" in done.stderr
    finally:
        subprocess.run(["umount", folder / "log"], check=True)
