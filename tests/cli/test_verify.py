"""`kun verify` as a user meets it: a received run without its corpora, a damaged shard, the printed remedy."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from kun.pipeline.lock import hold
from kun.store import shards
from kun.verify.steps import MARKERS
from tests.runs import REPOSITORY, kun
from tests.verify.test_run import break_disk

TEXTS = [f"第{n}天的天气很好，我们一起去公园里散步，看看湖边的第{n}种花。" for n in range(9)]


@pytest.fixture(scope="module")
def filtered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("filtered")
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS]
    (made / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (made / "my.yaml").write_text(
        f"run: runs/my\nbase_model: {REPOSITORY}/kun/demo/base\nprompts: demo\nworkers: 1\n"
        "corpora: {web: {paths: [corpus.jsonl], format: jsonl}}\n"
        "ingest: {shard_rows: 3}\nfilter: {min_chars: 5, near_duplicates: null}\n"
    )
    done = kun(made, "run", "stage2", "--config", "my.yaml")
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def folder(filtered_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(filtered_once, tmp_path, symlinks=True, dirs_exist_ok=True)


def part(folder: Path, number: int) -> Path:
    """The kept rows of a shard of a step."""
    return shards.part(folder, shards.order(folder)[number])


def remedies(text: str) -> list[str]:
    return re.findall(r"^    again: (.*)$", text, re.MULTILINE)


def follow(folder: Path, remedy: str) -> None:
    discard, _, again = remedy.rpartition(" && ")
    subprocess.run(discard, shell=True, check=True, cwd=folder)
    program, *arguments = shlex.split(again)
    assert program == "kun"
    done = kun(folder, *arguments, models="stage2" not in arguments)
    assert done.returncode == 0, done.stderr


def test_a_sound_run_ends_with_0(folder):
    done = kun(folder, "verify", "runs/my")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^stage2_filter/web +ok +9 rows, 9 kept, 3 shards$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("all is well\n")


@pytest.mark.parametrize("moved", [False, True])
def test_the_printed_remedy_makes_again_the_bad_shard_only(folder, moved):
    run = folder / ("elsewhere" if moved else "runs/my")
    if moved:
        (folder / "runs/my").rename(run)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in run.glob("stage2_*/web/part-*.jsonl")}
    damaged = part(run / "stage2_ingest/web", 1)
    damaged.write_text(damaged.read_text(encoding="utf-8").replace("第4种", "第５种"), encoding="utf-8")
    done = kun(folder, "verify", run.relative_to(folder))
    assert done.returncode == 1
    assert f"{damaged.name}: is not what was published" in done.stdout
    (remedy,) = remedies(done.stdout)
    follow(folder, remedy)
    assert kun(folder, "verify", run.relative_to(folder)).returncode == 0
    for path, (data, inode) in before.items():
        assert path.read_bytes() == data
        assert (path.stat().st_ino == inode) == (path.name.split(".")[0] != damaged.stem or "ingest" not in str(path))


def test_a_received_run_without_corpora_and_base_model(folder, tmp_path):
    received = tmp_path / "received"
    shutil.copytree(folder / "runs/my", received, symlinks=True)
    config = (received / "config.yaml").read_text(encoding="utf-8")
    gone = config.replace(f"{REPOSITORY}/kun/demo/base", "/gone/base").replace(
        "prompts: demo", "prompts: /gone/prompts"
    )
    (received / "config.yaml").write_text(gone.replace("corpus.jsonl", "/gone/corpus.jsonl"), encoding="utf-8")
    assert kun(received, "verify", ".").returncode == 0
    record = json.loads(part(received / "stage2_filter/web", 1).open(encoding="utf-8").readline())
    life = kun(received, "trace", ".", record["id"])
    assert "stage2_filter: kept" in life.stdout, life.stderr
    shown = kun(received, "status", ".")
    assert shown.returncode == 0 and "blocked" in shown.stdout, shown.stderr
    assert "9 blocked" in shown.stdout  # the counts are there all the same


def test_an_index_that_the_disk_does_not_give_any_more_is_made_again(folder):
    index = (folder / "runs/my/stage2_index/web").resolve()
    for path in index.iterdir():
        if path.name not in MARKERS:
            break_disk(path)
    done = kun(folder, "verify", "runs/my")
    assert done.returncode == 1
    assert re.search(r"^ +\.: a file cannot be read \(.*Input/output error", done.stdout, re.MULTILINE), done.stdout
    (remedy,) = remedies(done.stdout)
    follow(folder, remedy)
    assert kun(folder, "verify", "runs/my").returncode == 0


def test_a_run_that_is_at_work_is_left_alone(folder):
    with hold(folder / "runs/my/lock", "kun run stage3"):
        done = kun(folder, "verify", "runs/my")
    assert done.returncode == 2 and "runs/my: in use by 'kun run stage3' (process" in done.stderr


def test_json_names_step_file_shard_and_remedy(folder):
    lost = part(folder / "runs/my/stage2_filter/web", 2)
    lost.unlink()
    done = kun(folder, "verify", "runs/my", "--json")
    found = json.loads(done.stdout)
    (bad,) = [step for step in found["steps"] if step["state"] == "bad"]
    assert (done.returncode, found["ok"], bad["step"]) == (1, False, "stage2_filter/web")
    assert bad["problems"] == [{"file": lost.name, "what": "is gone", "shard": lost.stem.removeprefix("part-")}]
    assert f"rm -f {lost.stem}.done.json done.json) && kun run stage2 --config runs/my/config.yaml" in bad["remedy"]


def test_what_is_no_run_ends_with_2(tmp_path):
    (tmp_path / "something").mkdir()
    for name, said in (("something", "is neither a run of Kun"), ("gone", "gone: there is no such folder")):
        done = kun(tmp_path, "verify", name)
        assert done.returncode == 2 and said in done.stderr
    done = kun(tmp_path, "verify", "something", "--workers", "-3")
    assert done.returncode == 2 and "--workers -3: a number of processes" in done.stderr


def test_a_plain_name_that_leads_to_another_step(folder):
    link = folder / "runs/my/stage2_filter/web"
    own = link.resolve()
    link.unlink()
    link.symlink_to((folder / "runs/my/stage2_ingest/web").resolve())
    done = kun(folder, "verify", "runs/my")
    assert done.returncode == 1 and f"left over: runs/my/store/{own.name}" not in done.stdout
    assert re.search(r"^stage2_ingest/web +ok", done.stdout, re.MULTILINE)
    (remedy,) = remedies(done.stdout)
    follow(folder, remedy)
    assert link.resolve() == own and kun(folder, "verify", "runs/my").returncode == 0


@pytest.mark.slow
def test_a_whole_run_damaged_in_every_stage(finished, tmp_path):
    """Model, index, shards, data set: each remedy, followed, gives back the same bytes."""
    shutil.copytree(finished, tmp_path, symlinks=True, dirs_exist_ok=True)
    run = tmp_path / "run"

    def data() -> dict[Path, bytes]:
        names = ("*.safetensors", "part-*.jsonl", "final/*", "stage2_index/*/*")
        files = {path for name in names for path in run.rglob(name) if path.is_file() and path.name != "done.json"}
        return {path: path.read_bytes() for path in files}

    assert kun(tmp_path, "verify", "run").returncode == 0
    before = data()
    damaged = [
        run / "stage1_train/label/adapter_config.json",
        run / "stage2_index/wudao/units.json",
        part(run / "stage3_label/wanjuan", 0),
        part(run / "stage4_verdicts/skypile", -1),
        part(run / "stage5_polish/wudao", 0),
        run / "final/wanjuan.jsonl",
    ]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-30] + b"\n")
    done = kun(tmp_path, "verify", "run")
    assert done.returncode == 1
    told = {"stage1_train/label", "stage2_index/wudao", "stage3_label/wanjuan", "stage4_verdicts/skypile"}
    assert set(re.findall(r"^(\S+) +BAD", done.stdout, re.MULTILINE)) == told | {"stage5_polish/wudao", "final"}
    for remedy in remedies(done.stdout):
        follow(tmp_path, remedy)
    assert kun(tmp_path, "verify", "run").returncode == 0
    assert data() == before
    alone = kun(tmp_path, "verify", "run/final")
    assert alone.returncode == 0 and "not checked against the records (this folder alone was read)" in alone.stdout
    for name in ("label", "chat"):
        shutil.rmtree((run / "stage1_train" / name).resolve())
    done = kun(tmp_path, "verify", "run")
    assert done.returncode == 0 and re.search(r"^stage1_train/chat +absent$", done.stdout, re.MULTILINE)
