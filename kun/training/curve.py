"""The loss curve of a training run, as data and as a picture: `write_curve(folder, "label", history, smooth=10)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kun.pages.plots import new_axes, png
from kun.store import atomic

FIELDS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "mean_token_accuracy")


def write_curve(folder: Path, job: str, history: Sequence[dict[str, Any]], smooth: int = 1) -> None:
    """Write `loss.jsonl` (a line per step and per evaluation) and `loss.png` (means over `smooth` steps)."""
    lines = [{name: entry[name] for name in FIELDS if name in entry} for entry in history]
    lines = [line for line in lines if "loss" in line or "eval_loss" in line]
    atomic.write(folder / "loss.jsonl", b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    atomic.write(folder / "loss.png", _picture(job, lines, smooth))


def _picture(job: str, lines: Sequence[dict[str, Any]], smooth: int) -> bytes:
    axes = new_axes(xlabel="step", ylabel="loss (nats per token)", title=f"{job} model")
    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    groups = [steps[start : start + smooth] for start in range(0, len(steps), smooth)]
    means = [sum(loss for _, loss in group) / len(group) for group in groups]
    axes.plot([group[-1][0] for group in groups], means, label=f"training, mean of {smooth} steps")
    evaluations = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    if evaluations:
        axes.plot(*zip(*evaluations, strict=True), "o-", label="held-out seeds")
    axes.legend()
    return png(axes)
