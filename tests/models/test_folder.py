"""Where a model is, and what its config.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kun.errors import InputError
from kun.models.folder import text_settings


def test_settings_are_those_of_the_part_that_reads_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 9}))
    assert text_settings(tmp_path) == {"vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {"vocab_size": 7}}))
    assert text_settings(tmp_path) == {"vocab_size": 7}


@pytest.mark.parametrize("text", [None, "", "[]", "null", "7", '{"text_config": 3}', "{", "\0"])
def test_what_is_no_configuration_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=rf"^{tmp_path}/config\.json: is not the configuration of a model \("):
        text_settings(tmp_path)
