"""From mappings of the configuration to the libraries' own objects: `sft_config(config, "label", work)`.

Keys and values are checked against the type hints of LoraConfig and SFTConfig, so that a typo is a ConfigError that
names `train.sft.<key>`, not a crash an hour later.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.errors import ConfigError
from kun.models.loading import choose_device

# What Kun sets itself: where files go, that token ids are used unchanged, that a resumed run gives the same result, and
# that nothing is sent anywhere.
OWN = {
    "bf16", "completion_only_loss", "data_seed", "dataset_kwargs", "disable_tqdm", "eval_packing", "eval_steps",
    "eval_strategy", "fp16", "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy",
    "logging_nan_inf_filter", "logging_strategy", "max_length", "output_dir", "packing", "padding_free",
    "prediction_loss_only", "push_to_hub", "remove_unused_columns", "report_to", "save_strategy", "save_total_limit",
    "seed", "train_sampling_strategy", "use_cpu",
}  # fmt: skip

# What the libraries accept, and fail on later if not positive (max_steps: -1 means none).
POSITIVE = {
    "gradient_accumulation_steps", "logging_steps", "max_steps", "num_train_epochs", "per_device_eval_batch_size",
    "per_device_train_batch_size", "save_steps",
}  # fmt: skip


# What PEFT keeps itself in an adapter's folder.
OWN_LORA = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision",
    "runtime_config", "task_type",
}  # fmt: skip

# What would give another model than the one asked for, and why; what shows with one base only is found by a trial.
REFUSED = {
    "alora_invocation_tokens": "such an adapter cannot be merged, which the engines do",
    "arrow_config": "it routes between adapters that are trained already",
    "corda_config": "its start is computed from data, which Kun does not do",
    "eva_config": "its start is computed from data, which Kun does not do",
    "kasa_config": "it needs terms of the loss that Kun does not add",
    "layer_replication": "layers with common weights cannot be merged, and vLLM has no such layers",
    "lora_bias": "PEFT cannot merge it into layers without a bias",
    "lora_ga_config": "its start is computed from gradients, which Kun does not do",
    "loftq_config": "it is for quantised bases, which Kun does not train",
    "megatron_config": "it is for models of Megatron",
    "monteclora_config": "it needs terms of the loss that Kun does not add",
    "use_qalora": "it is for quantised bases, which Kun does not train",
}
COMPUTED_STARTS = {"corda", "eva", "loftq", "lora_ga"}


def lora_config(config: Config, token_names: list[str], new_ids: tuple[int, ...]) -> Any:
    """peft.LoraConfig of `train.lora`, which also trains rows `new_ids` of the embeddings `token_names`."""
    from peft import LoraConfig

    mappings = {"train.lora": config.train.lora}
    values = _checked(LoraConfig, mappings, own=OWN_LORA)
    for key, why in REFUSED.items():
        if values.get(key):
            raise ConfigError(f"train.lora.{key}: {why}; remove it")
    if (start := values.get("init_lora_weights")) in COMPUTED_STARTS:
        raise ConfigError(f"train.lora.init_lora_weights: {start} starts from data, which Kun does not do; remove it")
    if new_ids and not set(values.get("modules_to_save") or ()) & {name.split(".")[-1] for name in token_names}:
        values.setdefault("trainable_token_indices", {name: list(new_ids) for name in token_names})
    return _build(LoraConfig, mappings, task_type="CAUSAL_LM", **values)


def sft_config(config: Config, job: str, work: Path) -> Any:
    """trl.SFTConfig of `train.sft` and `train.<job>`, for examples in token ids.

    Every step is logged; `logging_steps` only smooths the curve. `save_steps` counts optimiser steps.
    """
    from trl import SFTConfig

    mappings: dict[str, Any] = {"train.sft": config.train.sft, f"train.{job}": getattr(config.train, job)}
    values = _checked(SFTConfig, mappings, own=OWN)
    on_cpu = choose_device() == "cpu"
    fixed = {
        "output_dir": str(work),
        "max_length": None,
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would put 0.0 in place of a loss that is not a number
        "save_strategy": "steps",
        "save_total_limit": None,
        "eval_strategy": "no",
        "prediction_loss_only": True,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "seed": config.seed,
        "train_sampling_strategy": "sequential",  # the order of `sft.batched_by_length`
    }
    defaults = {"dataloader_pin_memory": not on_cpu, "gradient_checkpointing": False}
    for section, mapping in reversed(mappings.items()):  # the settings of a job take precedence
        for key in sorted(POSITIVE & mapping.keys()):
            if values[key] is not None and values[key] <= 0 and (key, values[key]) != ("max_steps", -1):
                raise ConfigError(f"{section}.{key}: {values[key]}: must be above 0")
    arguments = _build(SFTConfig, mappings, **{**defaults, **values, **fixed})
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process, one GPU: TRL refuses DataParallel
    return arguments


def _checked(kind: type, mappings: Mapping[str, Mapping[str, Any]], own: set[str]) -> dict[str, Any]:
    """The merged mappings, with values converted to the types of the fields. ConfigError names section and key."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

    known = {field.name for field in dataclasses.fields(kind) if field.init} - own
    hints = typing.get_type_hints(kind)
    merged: dict[str, Any] = {}
    for section, mapping in mappings.items():
        for key, value in mapping.items():
            if key in own:
                raise ConfigError(f"{section}.{key}: Kun sets this itself; remove it")
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigError(f"{section}.{key}: not a setting of {kind.__name__}{hint}")
            try:
                adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
                merged[key] = adapter.validate_python(value)
            except ValidationError as error:
                raise ConfigError(f"{section}.{key}: {value!r}: {error.errors()[0]['msg']}") from None
            except PydanticSchemaGenerationError:  # a hint that cannot be checked
                merged[key] = value
    return merged


def _build(kind: type, mappings: Mapping[str, Mapping[str, Any]], **values: Any) -> Any:
    """Construct the object. Its errors become ConfigErrors that name the setting, where it can be found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return kind(**values)
        except (TypeError, ValueError, ImportError) as error:
            settings = [
                (f"{section}.{key}", key, value)
                for section, mapping in mappings.items()
                for key, value in mapping.items()
            ]
            named = [name for name, key, value in settings if key in str(error) or f" {value} " in f" {error} "]
            raise ConfigError(f"{(named or list(mappings))[0]}: {error}") from None
