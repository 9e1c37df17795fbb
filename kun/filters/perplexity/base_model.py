"""Perplexity under a base model itself: `open_base(folder, config.engine)(texts)`. Imports torch when called.

For small corpora: it shows how well the model to be trained knows a text already, at hundreds of times the cost of
KenLM or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kun.config.schema import EngineConfig
from kun.errors import InputError
from kun.models.folder import text_settings
from kun.models.tokenizer import read_tokenizer, text_tokenizer

LONGEST = 2048  # tokens of a text that count; long articles would cost as much as everything else
LOGITS = 2**27  # values per batch, 0.5 GB in float32; a large vocabulary means fewer tokens per batch


def is_base(folder: Path) -> bool:
    """Whether a folder holds a model of transformers."""
    return (folder / "config.json").is_file()


def open_base(
    folder: Path, engine: EngineConfig, trust_remote_code: bool = False
) -> Callable[[Sequence[str]], list[float]]:
    """A function from texts to perplexities: e to the mean negative log-likelihood of their tokens, after BOS (or EOS
    without one).

    Control tokens inside a text count as text. Loaded once per process. InputError where the folder holds no model.
    """
    return _loaded(folder, engine.dtype, engine.device, engine.batch_tokens, trust_remote_code)


@lru_cache(maxsize=1)
def _loaded(
    folder: Path, dtype: str, device: str, batch_tokens: int, trust_remote_code: bool
) -> Callable[[Sequence[str]], list[float]]:
    import torch

    from kun.models.loading import choose_device, choose_dtype, load_weights

    files = read_tokenizer(folder, trust_remote_code)
    role = next((role for role in ("bos_token", "eos_token") if files.special(role)), None)
    if role is None:
        raise InputError(
            f"base_model: the tokenizer in {folder} has neither BOS nor EOS, after which a text begins; "
            "name its eos_token in tokenizer_config.json"
        )
    begin = files.id(files.special(role) or "")
    tokenizer = text_tokenizer(files.raw, sections=True)
    model = load_weights(folder, choose_dtype(dtype, device), trust_remote_code)
    model = model.to(choose_device(device)).eval()
    window, vocabulary = _window(folder), model.get_output_embeddings().weight.shape[0]
    budget = max(min(batch_tokens, LOGITS // vocabulary), 1)

    def perplexities(texts: Sequence[str]) -> list[float]:
        encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [[begin, *encoding.ids][:window] for encoding in encoded]
        ppls = [float(vocabulary)] * len(rows)  # an empty text has that of a random guess
        for batch in _batches(rows, budget):
            for number, loss in zip(batch, _losses(model, [rows[number] for number in batch]), strict=True):
                if math.isnan(loss):
                    raise ValueError("the base model returned NaN")
                ppls[number] = math.exp(min(loss, 700.0))
        return ppls

    def _losses(model: Any, rows: list[list[int]]) -> list[float]:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [begin] * (longest - len(row)) for row in rows], device=model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none")
            return [float(x) for x in (losses * mask[:, 1:]).sum(dim=1) / mask[:, 1:].sum(dim=1)]

    return perplexities


def _batches(rows: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Batches of row numbers, longest rows first, of at most `budget` tokens with padding; rows of one token are left
    out."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number)):
        if len(rows[number]) < 2:
            break
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _window(folder: Path) -> int:
    own = text_settings(folder).get("max_position_embeddings")
    return min(own, LONGEST) if isinstance(own, int) else LONGEST
