"""The cache of answers by itself; what it is for is tested in test_server_engine.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.engines.server.answer_cache import AnswerCache
from kun.errors import BusyError


def test_two_runs_never_write_into_one_cache(tmp_path: Path) -> None:
    first = AnswerCache(tmp_path / "answers.sqlite", "label")
    with pytest.raises(BusyError, match=rf"{tmp_path}/answers\.sqlite: in use by another process; wait for it"):
        AnswerCache(tmp_path / "answers.sqlite", "label")
    first.close()
    AnswerCache(tmp_path / "answers.sqlite", "label").close()
