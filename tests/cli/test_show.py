"""`kun show` prints whole records, joined from what each step stores; runs of the old layout are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kun.cli.main import main
from kun.config.files import dump
from kun.config.schema import Config
from tests.small_pipeline import Small


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    small = Small(tmp_path / "run", {"wudao": ["四个字符", "三字符", "", "两字", "长" * 60], "web": ["六个字符的文"]})
    small.go()
    (small.path / "config.yaml").write_text(dump(Config(run=str(small.path))), encoding="utf-8")

    def call(*arguments: str, status: int = 0) -> list[dict] | str:
        monkeypatch.setattr(sys, "argv", ["kun", "show", str(small.path), *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert end.value.code == status, err
        return err if status else [json.loads(line) for line in out.splitlines()]

    call.path = small.path  # type: ignore[attr-defined]
    return call


def test_kept_records_are_whole(show):
    web, first, second = show("questions")
    assert (web["subset"], web["text"], web["instruction"]) == ("web", "六个字符的文", "6 characters about what?")
    assert (first["id"], second["id"]) == ("wudao-0", "wudao-3")
    assert list(first) == ["id", "subset", "text", "origin", "ppl", "tokens", "instruction"]
    assert show("questions", "--subset", "wudao", "--limit", "1", "--fields", "id,tokens") == [
        {"id": "wudao-0", "tokens": 4}
    ]
    assert show("questions/web") == [web]


def test_rejects_have_their_texts(show):
    (odd,) = show("even_lengths", "--rejects")
    assert (odd["id"], odd["text"], odd["reason"], odd["detail"]) == ("wudao-1", "三字符", "odd", "3 characters")
    (empty,) = show("documents", "--rejects")
    assert (empty["id"], empty["origin"], empty["reason"]) == ("wudao-2", {"file": "a.txt", "row": 2}, "empty")


def test_what_is_not_there_is_an_error(show):
    assert "no records of answers here; steps with records: documents/web" in show("answers", status=2)
    assert "--limit -1: must not be below 0" in show("questions", "--limit", "-1", status=2)
    assert "--fields id,words: no field words; fields: id, subset" in show(
        "questions", "--fields", "id,words", status=2
    )


def test_a_run_of_the_old_layout_is_refused(show):
    folder = show.path / "labels" / "web"
    folder.mkdir(parents=True)
    (folder / "part-00000.done.json").write_text('{"rows":1,"source":"abc"}')
    assert "was made by an earlier version of Kun, whose shards are laid out otherwise" in show("questions", status=2)
