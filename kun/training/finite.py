"""Ends a training whose numbers are lost: `Finite()` as a callback of the trainer.

The gradient is looked at before the weights move, so that no checkpoint has values that are not finite.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

from transformers import TrainerCallback

from kun.errors import InputError


class Finite(TrainerCallback):  # type: ignore[misc]
    """InputError at the step whose loss or gradient is not finite; the last checkpoint is sound."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        import torch

        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not torch.stack([gradient.sum(dtype=torch.float32) for gradient in gradients]).isfinite().all():
            _end("the gradient is not finite", state.global_step + 1, args, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        for name in ("loss", "eval_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                _end(f"{name} is {value}", state.global_step, args, state)


def _end(what: str, step: int, args: Any, state: Any) -> NoReturn:
    raise InputError(
        f"the training is lost at step {step} of {state.max_steps}: {what}; most often train.sft.learning_rate "
        f"({args.learning_rate:g}) is too high: set a tenth of it, and train.sft.warmup_steps; checkpoints are sound"
    )
