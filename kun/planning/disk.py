"""Bytes on the disk, for `kun plan`: `models(config)`, `language_models(config, made)`, `shards(subsets, work)`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from kun.config.schema import Config
from kun.engines.vllm.start import is_cpu_build
from kun.errors import ConfigError, InputError
from kun.models.folder import local_folder
from kun.planning.figures import Space, Subset, Work
from stages.stage1_train import TRAIN
from stages.stage2_filter import FILTER, LM

ADAPTER = 0.15  # of the base's bytes, its checkpoints with it: LoRA of rank 64 on all layers of Yi-6B, and Adam's state
ESTIMATED = {"trie": 2.5, "probing": 15.0}  # bytes of a model for each of its text: 5-grams of 3 MB of Chinese prose


def size(path: Path) -> int:
    """Bytes of a file; 0 of what is none, or is gone by now, since the run may be under way."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def models(config: Config) -> Iterator[Space]:
    """The two models of stage 1, and what the engine may make of them."""
    weights = list(local_folder(config.base_model or "").glob("*.safetensors"))
    base = sum(path.stat().st_size for path in weights)
    if not base:
        yield Space("models", 0, f"not counted: {config.base_model} has no weights yet")
        return
    if config.train.save == "merged":
        yield Space(f"{TRAIN.command} models", 2 * base, "set (train.save: merged: two copies of the base)")
        return
    yield Space(
        f"{TRAIN.command} models",
        2 * ADAPTER * base,
        f"ASSUMED ({ADAPTER:.0%} of the base for each adapter with checkpoints)",
    )
    if config.engine.kind == "vllm" and config.engine.adapters != "live":
        dtype = config.engine.dtype
        if dtype == "auto":
            dtype = "float32" if _on_cpu() else "bfloat16"
        copy = sum(map(_numbers, weights)) * (4 if dtype == "float32" else 2)
        how = f"ASSUMED (the base in {dtype} for each, where vLLM merges: engine.adapters)"
        yield Space("merged models", 2 * copy, how)


def _on_cpu() -> bool:
    """Whether vLLM would run on the CPU here; not where it is not installed: then the run is for another machine."""
    try:
        return is_cpu_build()
    except ConfigError:
        return False


def _numbers(weights: Path) -> int:
    """How many numbers a file of safetensors holds, by its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"base_model: {weights} cannot be read: {error}; copy the model again") from None


def language_models(config: Config, made: Path | None) -> Iterator[Space]:
    """The model of perplexity in the run: a given one is only named there, unless it is an ARPA file."""
    if made is not None:
        yield Space(LM.name.replace("_", " "), sum(map(size, made.rglob("*"))), "counted (as it is made)")
    elif config.filter.lm.estimate_from is not None:
        times = ESTIMATED[config.filter.lm.structure]
        how = f"ASSUMED ({times:g} times the clean text, as of Chinese prose: filter.lm.structure, prune)"
        yield Space(LM.name.replace("_", " "), times * size(Path(config.filter.lm.estimate_from)), how)


def shards(subsets: Sequence[Subset], work: Sequence[Work]) -> Iterator[Space]:
    read = sum(subset.rows.value * subset.filter_bytes for subset in subsets)
    yield Space(f"{FILTER.command} documents", read, "measured on the sample (records as stage 2 writes them)")
    for stage in dict.fromkeys(one.stage for one in work):
        yield Space(
            stage.replace("_", " "),
            sum(one.bytes for one in work if one.stage == stage),
            "measured on the sample (records, by the shares kept)",
        )
    ends = {one.subset: one.kept for one in work}
    final = sum(ends[subset.name] * subset.final_bytes for subset in subsets)
    yield Space("final", final, "measured on the sample (rows, lineage.parquet compressed)")
