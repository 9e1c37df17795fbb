"""Broken bases are refused before training, or what is loaded is what was trained; so is each setting of LoRA."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from kun.config.schema import Config
from kun.errors import ConfigError, InputError
from kun.models import checksum
from kun.models.chat import load_chat
from tests.broken_bases import KINDS
from tests.tiny_models import base_llama, llama
from tests.training.settings import pairs, small_config, write_lines

pytestmark = pytest.mark.slow


def one_step(folder: Path, base: Path, **train: Any) -> Config:
    """One optimiser step on three pairs."""
    sft = {"learning_rate": 0.1, "per_device_train_batch_size": 2, "max_steps": 1}
    config = small_config(folder, base, train={"sft": sft, **train}, seeds={"held_out": 0.0})
    write_lines(folder / "pairs.jsonl", pairs(3))
    return config


def rehearsed(folder: Path, base: Path, **train: Any) -> None:
    """What is tried before training, and nothing after it."""
    from kun.training.trial import rehearse
    from stages.stage1_train import collect

    config, chat = one_step(folder, base, **train), load_chat(base)
    rehearse(config, chat, collect(config, "label", chat, []), folder / "work")


@pytest.mark.parametrize("name", KINDS)
def test_a_base_is_refused_or_used_as_it_is(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from kun.models.loading import load_base, load_model
    from stages.stage1_train import train_model

    kind = KINDS[name]
    base = kind.make(tmp_path / "base")
    steps: list[int] = []
    save = "merged" if (base / "generation_config.json").is_file() else "adapter"

    def train() -> None:
        train_model(
            one_step(tmp_path, base, save=save), "label", tmp_path / "label", lambda done, _: steps.append(done)
        )

    if kind.refused:
        with pytest.raises(InputError, match=kind.refused):
            train()
        assert steps == []
        return
    train()
    assert steps == [0, 1]
    model, chat = load_model(base, tmp_path / "label")
    row = chat.encode("请介绍一座城市。")
    plain = checksum.logprobs(load_base(base, load_chat(base), "float32").eval(), row)
    assert checksum.logprobs(model, row) == checksum.logprobs(load_model(base, tmp_path / "label")[0], row) != plain
    assert re.search(kind.told or "", caplog.text)


Lora = dict[str, Any]
# A value other than the default for every setting of peft.LoraConfig; None: Kun sets it itself.
SETTINGS: dict[str, tuple[Lora, str | None]] = {
    "alora_invocation_tokens": ({"alora_invocation_tokens": [5, 6]}, "cannot be merged"),
    "alpha_pattern": ({"alpha_pattern": {"v_proj": 3}}, None),
    "arrow_config": ({"arrow_config": {"top_k": 1}}, "routes"),
    "auto_mapping": ({"auto_mapping": {"a": "b"}}, "Kun sets this itself"),
    "base_model_name_or_path": ({"base_model_name_or_path": "x"}, "Kun sets this itself"),
    "bias": ({"bias": "all"}, None),
    "corda_config": ({"corda_config": {"corda_method": "kpm"}}, "computed from data"),
    "ensure_weight_tying": ({"ensure_weight_tying": True, "modules_to_save": ["embed_tokens"]}, None),
    "eva_config": ({"eva_config": {"rho": 1.0}}, "computed from data"),
    "exclude_modules": ({"exclude_modules": ["q_proj"]}, None),
    "fan_in_fan_out": ({"fan_in_fan_out": True}, None),
    "inference_mode": ({"inference_mode": True}, "Kun sets this itself"),
    "init_lora_weights": ({"init_lora_weights": "pissa"}, None),
    "kasa_config": ({"kasa_config": {"beta": 1e-4}}, "terms of the loss"),
    "layer_replication": ({"layer_replication": [[0, 2], [0, 2]]}, "cannot be merged"),
    "layers_pattern": ({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}, None),
    "layers_to_transform": ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, None),
    "loftq_config": ({"loftq_config": {"loftq_bits": 4}}, "quantised"),
    "lora_alpha": ({"lora_alpha": 5}, None),
    "lora_bias": ({"lora_bias": True}, "cannot merge"),
    "lora_dropout": ({"lora_dropout": 0.5}, None),
    "lora_ga_config": ({"lora_ga_config": {"direction": "ArBr"}}, "computed from gradients"),
    "megatron_config": ({"megatron_config": {"a": 1}}, "Megatron"),
    "megatron_core": ({"megatron_core": "x"}, None),
    "modules_to_save": ({"modules_to_save": ["lm_head", "norm"]}, None),
    "monteclora_config": ({"monteclora_config": {"num_samples": 4}}, "terms of the loss"),
    "peft_type": ({"peft_type": "ADALORA"}, "Kun sets this itself"),
    "peft_version": ({"peft_version": "0.1"}, "Kun sets this itself"),
    "qalora_group_size": ({"qalora_group_size": 8}, None),
    "r": ({"r": 3}, None),
    "rank_pattern": ({"rank_pattern": {"q_proj": 2}}, None),
    "revision": ({"revision": "x"}, "Kun sets this itself"),
    "runtime_config": ({"runtime_config": {"ephemeral_gpu_offload": True}}, "Kun sets this itself"),
    "target_modules": ({"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, None),
    "target_parameters": ({"target_parameters": ["q_proj.weight"], "target_modules": []}, None),
    "task_type": ({"task_type": "SEQ_CLS"}, "Kun sets this itself"),
    "trainable_token_indices": ({"trainable_token_indices": {"embed_tokens": [1, 2]}}, None),
    "use_bdlora": ({"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 2}}, "matches neither A nor B"),
    "use_dora": ({"use_dora": True}, None),
    "use_qalora": ({"use_qalora": True}, "quantised"),
    "use_rslora": ({"use_rslora": True}, None),
    "velora_config": ({"velora_config": {"num_groups": 4}}, None),
}
# Where embeddings and head are one matrix.
TIED: dict[str, tuple[Lora, str | None]] = {
    "rows": ({}, None),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "one matrix .* merged is not the one that was trained"),
    "embeddings": (
        {"target_modules": ["q_proj", "embed_tokens"]},
        "one matrix .* merged is not the one that was trained",
    ),
    "head, trained whole": ({"modules_to_save": ["lm_head"]}, None),
    "embeddings, trained whole": ({"modules_to_save": ["embed_tokens"]}, None),
}


def test_every_setting_of_lora_is_tried() -> None:
    from peft import LoraConfig

    assert set(SETTINGS) == {field.name for field in dataclasses.fields(LoraConfig) if field.init}


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("untied") / "base")


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_llama(tmp_path_factory.mktemp("tied") / "base")


def loaded_is_trained_or_refused(folder: Path, base: Path, lora: Lora, refused: str | None) -> None:
    lora = {"r": 4, "target_modules": "all-linear", **lora}
    if refused is None:
        rehearsed(folder, base, lora=lora)
        return
    with pytest.raises(ConfigError, match=rf"train\.lora.*{refused}"):
        rehearsed(folder, base, lora=lora)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_of_lora(name: str, untied: Path, tmp_path: Path) -> None:
    loaded_is_trained_or_refused(tmp_path, untied, *SETTINGS[name])


@pytest.mark.parametrize("name", TIED)
def test_settings_of_lora_where_the_head_is_tied(name: str, tied: Path, tmp_path: Path) -> None:
    loaded_is_trained_or_refused(tmp_path, tied, *TIED[name])


@pytest.mark.parametrize(
    ("lora", "save", "words"),
    [
        ({"layer_replication": [[0, 2], [0, 2]]}, "adapter", "layer_replication a model that is merged is not the one"),
        ({"layer_replication": [[0, 2], [0, 2]]}, "merged", "cannot be trained or saved with layer_replication"),
        ({"lora_bias": True}, "adapter", "with lora_bias a model cannot be loaded again"),
    ],
)
def test_what_no_list_knows_is_found(
    lora: Lora, save: str, words: str, untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kun.training import options

    monkeypatch.setattr(options, "REFUSED", {})
    with pytest.raises(ConfigError, match=words):
        rehearsed(tmp_path, untied, lora={"r": 4, "target_modules": "all-linear", **lora}, save=save)


def test_an_adapter_that_is_not_saved_whole_is_found(
    untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    from kun.training import trial

    save = trial.save

    def forgetful(model: Any, config: Config, folder: Path) -> None:
        save(model, config, folder)
        tensors = load_file(folder / "adapter_model.safetensors")
        name = max(tensors)
        tensors[name] *= 1.1
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(trial, "save", forgetful)
    with pytest.raises(ConfigError, match="loaded again is not the one that was trained"):
        rehearsed(tmp_path, untied)


@pytest.mark.parametrize("max_grad_norm", [0, 1])
def test_a_training_that_is_lost_ends_at_once(untied: Path, tmp_path: Path, max_grad_norm: int) -> None:
    from safetensors.torch import load_file

    from stages.stage1_train import train_model

    sft = {"learning_rate": 1e30, "per_device_train_batch_size": 1, "save_steps": 1, "max_grad_norm": max_grad_norm}
    config = one_step(tmp_path, untied, sft=sft)
    with pytest.raises(
        InputError, match=r"the training is lost at step 2 of \d+: the gradient is not finite; .*1e\+30"
    ):
        train_model(config, "label", tmp_path / "label", lambda done, total: None)
    (checkpoint,) = (tmp_path / "label/work").glob("checkpoint-*")
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "adapter_model.safetensors").values())


def test_a_gradient_that_is_lost_before_training_is_named(untied: Path, tmp_path: Path) -> None:
    from kun.training.adapted import adapted
    from kun.training.trial import _step

    model = adapted(one_step(tmp_path, untied), load_chat(untied))
    next(model.parameters()).data[5] = float("nan")
    with pytest.raises(InputError, match="loss or gradient of a seed is not finite before any training"):
        _step(model, [4, 5, 6])
