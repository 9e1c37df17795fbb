"""Models and their adapters, from local folders: `model, chat = load_model(base, "runs/x/stage1_train/label", ...)`."""

from __future__ import annotations

import contextlib
import ctypes
import json
from pathlib import Path
from typing import Any

from kun.errors import ConfigError, InputError
from kun.models import checksum
from kun.models.chat import Chat, load_chat
from kun.models.folder import local_folder, remedy, warn_of_code
from kun.models.soundness import check_report, sound_generation

ADAPTER = "adapter_model.safetensors"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def load_model(
    base_folder: str | Path,
    model_folder: str | Path | None = None,
    dtype: str = "auto",
    device: str = "auto",
    merge: bool = True,
    trust_remote_code: bool = False,
) -> tuple[Any, Chat]:
    """A model ready for inference, and its chat.

    `model_folder` holds a trained model: an adapter (merged into the base unless `merge` is False) or a merged model.
    None: the base itself. `dtype` and `device` as in kun.config.schema.EngineConfig. InputError names `base_model`
    where that folder holds no model, or `model_folder` where its files are damaged.
    """
    place, kind = choose_device(device), choose_dtype(dtype, device)
    adapter = model_folder is not None and not (Path(model_folder) / "config.json").is_file()
    if model_folder is None or adapter:
        chat = load_chat(base_folder, trust_remote_code)
        model = load_base(base_folder, chat, kind, trust_remote_code)
    if model_folder is not None:
        try:
            chat = load_chat(model_folder, trust_remote_code)
            if adapter:
                from peft import PeftModel

                if not (Path(model_folder) / ADAPTER).is_file():  # PEFT would load adapter_model.bin, a pickle
                    raise InputError(f"it has no {ADAPTER}")
                model = PeftModel.from_pretrained(model, str(model_folder), local_files_only=True)
                model = model.merge_and_unload() if merge else model
            else:
                model = load_base(model_folder, chat, kind, trust_remote_code)
            checksum.check(Path(model_folder), model.to(place).eval())
        except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError
            why = str(error).removeprefix("base_model: ").split("\n")[0]
            raise InputError(
                f"{model_folder}: this model cannot be loaded ({why}); {remedy(Path(model_folder))}"
            ) from None
    return model.to(place).eval(), chat


def load_base(base: str | Path, chat: Chat, dtype: Any, trust_remote_code: bool = False) -> Any:
    """The base model on the CPU, with embedding rows for all tokens of the chat."""
    model = load_weights(local_folder(base), dtype, trust_remote_code)
    prepare_base(model, chat)
    return model


def load_weights(folder: Path, dtype: Any, trust_remote_code: bool = False) -> Any:
    """The unchanged model in a folder, on the CPU; only from safetensors and local files."""
    if not (folder / "config.json").is_file():
        raise InputError(f"base_model: {folder} is not a model folder: it has no config.json")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if trust_remote_code:
        warn_of_code(folder)
    logging.disable_progress_bar()
    keep_freed_memory()
    defaults = folder / "generation_config.json"
    try:
        given = json.loads(defaults.read_bytes()) if defaults.is_file() else None
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
            generation_config=None if given is None else sound_generation(folder, given),
        )
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError
        raise InputError(f"base_model: the model in {folder} cannot be loaded: {error}") from None
    check_report(folder, model, report)
    if given is None and model.can_generate():  # from config.json
        model.generation_config = sound_generation(folder, model.generation_config.to_dict())
    return model


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it at once, which maps and zeroes every tensor anew.

    Saves about a fifth of training a small model on a CPU (docs/measurements.md). Without glibc it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the maximum of glibc
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def prepare_base(model: Any, chat: Chat) -> tuple[int, ...]:
    """Add embedding rows for tokens that the model does not know, which are returned, and set its end and padding
    tokens.

    New rows start as copies of the rows of tokens that mean the same, or else as the mean of all, deterministically. A
    model that knows all tokens keeps its weights.
    """
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    unknown = chat.unknown(rows)
    if unknown and unknown[-1] >= rows:
        model.resize_token_embeddings(unknown[-1] + 1, mean_resizing=False)
    if unknown:
        new = torch.tensor(unknown)
        head = model.get_output_embeddings()
        weights = {
            id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), head) if layer is not None
        }
        with torch.no_grad():
            for weight in weights.values():
                known = torch.ones(weight.shape[0], dtype=torch.bool)
                known[new] = False
                known[rows:] = False
                weight[~known] = weight[known].float().mean(dim=0).to(weight.dtype)
                for row, alike in chat.new_rows.items():
                    if alike is not None and known[alike]:
                        weight[row] = weight[alike]
    model.generation_config.eos_token_id = list(chat.end_ids)
    model.generation_config.pad_token_id = chat.pad_id
    model.config.pad_token_id = chat.pad_id
    return unknown


def embedding_names(model: Any) -> list[str]:
    """The names of the input embeddings and of the output head, if it is not tied to them."""
    names = {id(module): name for name, module in model.named_modules()}
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is inputs.weight
    return [names[id(inputs)]] if tied else [names[id(inputs)], names[id(head)]]


def choose_device(device: str = "auto") -> str:
    """`auto`: a GPU if there is one. ConfigError for a device that torch cannot use here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError
        why = str(error).split("\n")[0]
        raise ConfigError(f"engine.device: {device} cannot be used here ({why}); auto takes what there is") from None
    return device


def choose_dtype(dtype: str = "auto", device: str = "auto") -> Any:
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    import torch

    if dtype == "auto":
        dtype = "float32" if choose_device(device) == "cpu" else "bfloat16"
    return getattr(torch, dtype)
