"""The model that is trained, from base to folder: `adapted(config, chat)`, `save(model, config, folder)`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.errors import ConfigError
from kun.models.chat import Chat
from kun.models.folder import local_folder
from kun.store import atomic


def adapted(config: Config, chat: Chat, texts: Sequence[str] = ()) -> Any:
    """The base with a new adapter, on the CPU; the base is checked by `texts` first, if there are any."""
    from peft import get_peft_model
    from transformers import set_seed

    from kun.models.loading import choose_dtype, embedding_names, load_weights, prepare_base
    from kun.models.soundness import check_base
    from kun.training.options import lora_config
    from kun.training.rows import only_rows

    folder = local_folder(str(config.base_model))
    set_seed(config.seed)
    model = load_weights(folder, choose_dtype(), config.trust_remote_code)
    if texts:
        check_base(folder, chat, model, texts)
    new = prepare_base(model, chat)
    lora = lora_config(config, embedding_names(model), new)
    set_seed(config.seed)  # adapters start alike, whatever was drawn for the base
    try:
        model = get_peft_model(model, lora)
    except (ValueError, TypeError, NotImplementedError, ImportError, KeyError, AttributeError) as error:
        raise ConfigError(f"train.lora: {error}") from None  # e.g. modules that this model lacks
    only_rows(model)
    return model


def save(model: Any, config: Config, folder: Path) -> Any:
    """Write the adapter, or with `train.save: merged` the whole model, and return what was written."""
    if config.train.save == "merged":
        model = model.merge_and_unload()
        model.save_pretrained(folder)
        return model
    model.peft_config["default"].base_model_name_or_path = config.base_model
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    # PEFT writes sets in arbitrary order.
    stable = {key: sorted(value) if _is_names(value) else value for key, value in written.items()}
    atomic.write(path, json.dumps(stable, ensure_ascii=False, indent=2, default=str).encode() + b"\n")
    return model


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
