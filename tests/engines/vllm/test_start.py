"""What vLLM cannot be started with is an error before it is started; none of this needs vLLM."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from kun.config.schema import Config, EngineConfig
from kun.engines.vllm import start as vllm_start
from kun.errors import ConfigError, InputError

LIVE = Config(engine=EngineConfig(kind="vllm", adapters="live"))


def adapter(folder: Path, **settings: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, **settings}))
    return folder


def test_without_vllm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(vllm_start, "version", none)
    with pytest.raises(ConfigError, match=r"engine\.kind: vllm is not installed: pip install 'kun\[gpu\]' .*`make"):
        vllm_start.is_cpu_build()


def test_a_setting_that_is_kuns_own_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_start, "version", lambda name: "1")
    config = Config(engine=EngineConfig(kind="vllm", vllm={"max_model_len": 9}))
    with pytest.raises(ConfigError, match=r"engine\.vllm\.max_model_len: Kun sets this itself; remove it"):
        vllm_start.vllm_start(config, tmp_path, 512)


@pytest.mark.parametrize("why", ["trainable_token_indices", "modules_to_save"])
def test_an_adapter_that_cannot_be_live_is_named(tmp_path: Path, why: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"engine\.adapters: live: {tmp_path} trains .*{why}.*; set engine\.adapters"
    ):
        vllm_start.is_live(LIVE, adapter(tmp_path, **{why: {"embed_tokens": [1]}}), cpu=False)


def test_a_rank_that_vllm_has_no_room_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.lora\.r: vLLM takes ranks up to 512, not 600; set engine\.adapters"):
        vllm_start._room(adapter(tmp_path, r=600))
    assert vllm_start._room(adapter(tmp_path, r=9)) == 16


@pytest.mark.parametrize("content", [None, "{"])
def test_a_damaged_model_folder_is_named_with_the_remedy(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(InputError, match=r"adapter_config\.json: cannot be read .*; put the model's files there again"):
        vllm_start.is_live(LIVE, tmp_path, cpu=False)
    (tmp_path / "fingerprint.json").write_text('{"digest": "0", "step": {"part": "label", "command": "stage1"}}')
    with pytest.raises(InputError, match=r"adapter_config\.json: cannot be read .*`kun run stage1 --force`"):
        vllm_start.is_live(LIVE, tmp_path, cpu=False)


SOURCE = """
class Base:
    model: str = "m"
    def method(self): ...

class AsyncEngineArgs(Base):
    max_num_seqs: int = 1
"""


def installed(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package vllm with this source of its options, the only one that is found."""
    (folder / "vllm/engine").mkdir(parents=True)
    (folder / "vllm/__init__.py").write_text("raise ImportError('vllm was imported')")
    (folder / "vllm/engine/arg_utils.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


def test_options_are_checked_without_vllm_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, SOURCE, monkeypatch)
    vllm_start.check_options({"max_num_seqs": 4})
    with pytest.raises(ConfigError, match=r"^engine\.vllm\.max_num_seq: not a setting of .*; max_num_seqs\?"):
        vllm_start.check_options({"max_num_seq": 4})
    with pytest.raises(ConfigError, match=r"engine\.vllm\.model: Kun sets this itself"):
        vllm_start.check_options({"model": "other"})


@pytest.mark.parametrize(
    "source", ["class AsyncEngineArgs(other.Args): ...", "x = 1", "class AsyncEngineArgs(Gone): ..."]
)
def test_options_of_a_vllm_of_another_form_are_left_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    installed(tmp_path, source, monkeypatch)
    assert vllm_start.option_names() is None
    vllm_start.check_options({"anything": 1})
    with pytest.raises(ConfigError, match=r"engine\.vllm\.model: Kun sets this itself"):
        vllm_start.check_options({"model": "other"})
