"""Where a model is, what it is called, and what its config.json has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kun.errors import InputError
from kun.models.folder import plain_name, remedy, text_settings


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


def test_a_model_of_a_run_is_called_as_in_the_run_and_can_be_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "store/first-teacher-0123456789abcdef"
    folder.mkdir(parents=True)
    made = {"digest": "0123456789abcdef", "parts": {}, "step": {"stage": "first", "part": "teacher", "command": "one"}}
    (folder / "fingerprint.json").write_text(json.dumps(made))
    assert plain_name(folder) == "teacher"
    assert remedy(folder) == "train it again with `kun run one --force`"


@pytest.mark.parametrize("fingerprint", [None, "{", '{"digest": "0", "parts": {}}'])
def test_any_other_model_is_called_as_its_folder(tmp_path: Path, fingerprint: str | None) -> None:
    folder, link = tmp_path / "store/first-teacher-0123456789abcdef", tmp_path / "teacher"
    folder.mkdir(parents=True)
    link.symlink_to(folder)
    if fingerprint is not None:
        (folder / "fingerprint.json").write_text(fingerprint)
    assert plain_name(link) == "teacher"
    assert plain_name(folder) == folder.name
    assert remedy(folder) == "put the model's files there again"
