"""What a model says of a few fixed tokens, kept in its folder: `write(folder, model, rows)`, `check(folder, model)`.

A base that was replaced, an adapter that is put on in another way, or a library that computes otherwise are seen in
one short forward pass, whatever the device; digests of the files would not show them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.models.folder import remedy
from kun.store import atomic

FILE = "checksum.json"
ALLOWED = 0.01  # nats per token: what devices differ by in float32; of 16 bits, see docs/measurements.md
ALLOWED_16 = 0.25
LIBRARIES = ("torch", "transformers", "peft")


class Checksum(msgspec.Struct, frozen=True):
    """The log-probability of each token of `rows` but the first, and what computed it."""

    rows: list[list[int]]
    logprobs: list[list[float]]
    dtype: str
    versions: dict[str, str]


def write(folder: Path, model: Any, rows: Sequence[Sequence[int]]) -> None:
    """Keep the checksum of a model in its folder."""
    values = [[round(value, 4) for value in logprobs(model, row)] for row in rows]
    checksum = Checksum([list(row) for row in rows], values, _dtype(model), _versions())
    atomic.write(folder / FILE, msgspec.json.format(msgspec.json.encode(checksum)) + b"\n")


def check(folder: Path, model: Any) -> None:
    """InputError where a loaded model says something else than the one that was trained into the folder.

    Folders without a checksum are not checked: models that Kun did not train.
    """
    try:
        known = msgspec.json.decode((folder / FILE).read_bytes(), type=Checksum)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise InputError(f"{folder / FILE}: cannot be read ({error}); {remedy(folder)}") from None
    allowed = ALLOWED if {known.dtype, _dtype(model)} == {"float32"} else ALLOWED_16
    pairs = [
        (then, now)
        for row, then_all in zip(known.rows, known.logprobs, strict=True)
        for then, now in zip(then_all, logprobs(model, row), strict=True)
    ]
    difference = sum(abs(then - now) for then, now in pairs) / max(len(pairs), 1)
    if difference <= allowed:
        return
    changed = [f"{name} {known.versions.get(name)} -> {now}" for name, now in _versions().items()]
    raise InputError(
        f"it is not the model that was trained: log-probabilities differ by {difference:.2f} nats per token, "
        f"{allowed} at most are of rounding; was the base model changed, or a library ({', '.join(changed)})?"
    )


def logprobs(model: Any, row: Sequence[int]) -> list[float]:
    """The log-probability of each token of a row but the first, given those before it."""
    import torch

    ids = torch.tensor([list(row)], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
        chosen = logits.float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])
    return [float(value) for value in chosen[:, 0]]


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
