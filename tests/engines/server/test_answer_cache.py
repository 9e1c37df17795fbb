"""The cache of answers by itself; what it is for is tested in test_engine.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.engines.base import Generated
from kun.engines.server.answer_cache import AnswerCache
from kun.errors import BusyError


def test_two_runs_never_write_into_one_cache(tmp_path: Path) -> None:
    first = AnswerCache(tmp_path / "answers.sqlite")
    with pytest.raises(BusyError, match=rf"{tmp_path}/answers\.sqlite: in use by another process; wait for it"):
        AnswerCache(tmp_path / "answers.sqlite")
    first.close()
    AnswerCache(tmp_path / "answers.sqlite").close()


def test_what_another_version_of_kun_wrote_is_asked_again(tmp_path: Path) -> None:
    answers = AnswerCache(tmp_path / "answers.sqlite")
    answers.keep("one", Generated([1], True))
    assert answers.find("one") == Generated([1], True)
    answers._execute("UPDATE answers SET answer = ?", [b'{"tokens":[1],"finished":true}'])
    assert answers.find("one") is None
    answers.close()
