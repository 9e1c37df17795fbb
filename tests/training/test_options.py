"""Slips in the mappings for LoraConfig and SFTConfig are errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kun.config.files import load
from kun.config.schema import Config, Train
from kun.errors import ConfigError
from kun.training.options import lora_config, sft_config
from tests.runs import REPOSITORY


@pytest.mark.parametrize(
    ("section", "mapping", "words"),
    [
        (
            "sft",
            {"learning_rat": 1e-4},
            "train.sft.learning_rat: not a setting of SFTConfig; did you mean learning_rate",
        ),
        ("sft", {"learning_rate": "fast"}, "train.sft.learning_rate: 'fast'"),
        ("sft", {"lr_scheduler_type": "round"}, "train.sft.lr_scheduler_type"),
        ("sft", {"per_device_train_batch_size": 2.5}, "train.sft.per_device_train_batch_size: 2.5"),
        ("sft", {"per_device_train_batch_size": 0}, "train.sft.per_device_train_batch_size: 0: must be above 0"),
        ("sft", {"max_steps": 0}, "train.sft.max_steps: 0: must be above 0"),
        ("label", {"num_train_epochs": -1}, "train.label.num_train_epochs: -1"),
        ("sft", {"packing": True}, "train.sft.packing: Kun sets this itself"),
        ("label", {"num_train_epoch": 2}, "train.label.num_train_epoch: not a setting"),
        ("label", {"output_dir": "x"}, "train.label.output_dir: Kun sets this itself"),
    ],
)
def test_sft_settings(tmp_path: Path, section: str, mapping: dict[str, Any], words: str) -> None:
    config = Config(train=Train(**{section: mapping}))
    with pytest.raises(ConfigError) as caught:
        sft_config(config, "label", tmp_path)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"rank": 8}, "train.lora.rank: not a setting of LoraConfig"),
        ({"r": "many"}, "train.lora.r: 'many'"),
        ({"task_type": "SEQ_CLS"}, "train.lora.task_type: Kun sets this itself"),
        ({"init_lora_weights": "eva"}, "train.lora.init_lora_weights: eva starts from data"),
    ],
)
def test_lora_settings(mapping: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lora_config(Config(train=Train(lora=mapping)), ["embed_tokens"], ())
    assert str(caught.value).startswith(words)


def test_settings_reach_the_libraries(tmp_path: Path) -> None:
    config = Config(train=Train(sft={"learning_rate": "1e-4"}, label={"num_train_epochs": 6}), seed=5)
    arguments = sft_config(config, "label", tmp_path)
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.seed) == (1e-4, 6, 5)
    lora = lora_config(config, ["model.embed_tokens", "lm_head"], (7, 8))
    assert (lora.r, lora.lora_alpha) == (16, 32)
    assert lora.trainable_token_indices == {"model.embed_tokens": [7, 8], "lm_head": [7, 8]}


def test_embeddings_that_are_trained_whole_need_no_rows() -> None:
    config = Config(train=Train(lora={"modules_to_save": ["embed_tokens", "lm_head"]}))
    assert lora_config(config, ["model.embed_tokens", "lm_head"], (7,)).trainable_token_indices is None


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_libraries_take_the_shipped_settings(path: Path, tmp_path: Path) -> None:
    config = load(path)
    for job in ("label", "chat"):
        assert sft_config(config, job, tmp_path).num_train_epochs > 0
    assert lora_config(config, ["embed_tokens"], ()).r > 0
