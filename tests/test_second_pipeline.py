"""A pipeline that no room knows of runs, resumes, and is seen by status, trace, verify and clean (tests/titles.py)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import stages
from kun.cli.main import main
from kun.pipeline.run_folder import RunFolder
from kun.store import shards
from tests.titles import TITLES, Titled, titles

pytestmark = pytest.mark.slow


class Shell:
    """`kun` as it is with the second pipeline, in the folder of a finished run of the first one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, status: int = 0) -> str:
        self.monkeypatch.setattr(sys, "argv", ["kun", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = self.capsys.readouterr()
        assert end.value.code == status, err
        return out


@pytest.fixture
def kun(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shutil.copytree(finished / "run", tmp_path / "run", symlinks=True)
    shutil.copytree(finished / "world", tmp_path / "world")
    text = (finished / "small.yaml").read_text(encoding="utf-8").replace(f"{finished}/world", f"{tmp_path}/world")
    (tmp_path / "small.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "PIPELINES", (*stages.PIPELINES, titles))
    return Shell(monkeypatch, capsys)


def test_it_runs_resumes_and_is_seen_everywhere(kun: Shell) -> None:
    assert "let the primary chat write a title for each output" in kun("run", "--help", "--config", "small.yaml")
    assert "next: kun run titles --config run/config.yaml" in kun("status", "run")

    out = kun("run", "titles", "--config", "small.yaml")
    assert "titles/wudao: " in out and "wrote run/titled/wudao.jsonl" in out and "complete" in out
    rows = [json.loads(line) for line in Path("run/titled/wudao.jsonl").read_bytes().splitlines()]
    assert rows and all(list(row) == ["title", "output"] and row["title"] for row in rows)
    before = Path("run/titled/wudao.jsonl").read_bytes()

    folder = Path("run/titles/wudao")
    (name, *_) = shards.order(folder)
    (folder / f"part-{name}.done.json").unlink()  # as if it had been killed
    (folder / "done.json").unlink()
    assert "next: kun run titles" in kun("status", "run")
    kun("run", "titles", "--config", "small.yaml")
    assert Path("run/titled/wudao.jsonl").read_bytes() == before
    assert "titles/wudao: nothing to do" in kun("run", "titles", "--config", "small.yaml")

    table = kun("status", "run")

    assert "titled: current" in table
    life = json.loads(kun("trace", "run", "titled/wudao:1", "--json"))
    assert life["life"][-1]["stage"] == "titles" and set(life["outputs"]) == {"final", "titled"}
    assert life["outputs"]["titled"] == {"file": "titled/wudao.jsonl", "line": 1}
    assert "all is well" in kun("verify", "run")
    data = (folder / f"part-{name}.jsonl").read_bytes()
    (folder / f"part-{name}.jsonl").write_bytes(data[:-9])
    found = kun("verify", "run", status=1)
    assert "BAD: titles/wudao" in found and "kun run titles --config run/config.yaml" in found
    kun("run", "titles", "--config", "small.yaml", "--force")
    assert (folder / f"part-{name}.jsonl").read_bytes() == data
    assert "all is well" in kun("verify", "run")

    assert "nothing is left over" in kun("clean", "run")
    kun("run", "titles", "--config", "small.yaml", "--score.sampling.max-tokens", "9")
    assert "titles-wudao-" in kun("clean", "run", "--yes")
    assert "nothing is left over" in kun("clean", "run")
    assert "all is well" in kun("verify", "run")


def test_its_damaged_rows_are_named(kun: Shell) -> None:
    kun("run", "titles", "--config", "small.yaml")
    path = Path("run/titled/wudao.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"title":"', b'"title":"x', 1))
    found = kun("verify", "run", status=1)
    assert "BAD: titled" in found and "wudao.jsonl: line 1 is not what record" in found
    kun("run", "titles", "--config", "small.yaml")
    assert "all is well" in kun("verify", "run")
    kept = list(shards.read_all(RunFolder(Path("run")).path / TITLES.name / "wudao", Titled))
    assert [record.title for record in kept] == [
        json.loads(line)["title"] for line in path.read_bytes().splitlines()
    ]  # fmt: skip
