"""The loss of SFT at its price: `LabelledTrainer(model=..., args=..., ...)` is TRL's SFTTrainer with a cheaper loss.

TRL's fused head scores the labelled positions only where Triton runs. On a CPU it scores every position of a batch,
and a second time for the gradient; in the label model, whose prompts are long and replies short, that is most of the
training (docs/measurements.md). Here the head runs on labelled positions only, once, some of them at a time.

Nothing is assumed about the head: what the model makes of a hidden state (a bias, a scale, a soft cap, trained rows) is
its own forward's doing, which is run on one token with other hidden states put before its head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from trl import SFTTrainer

LOGITS_AT_ONCE = 2**25  # 128 MB in float32, three times in all: what bounds the memory of a large vocabulary


class LabelledTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer; on a CPU, the plain loss is that of the labelled positions, with the same value and gradients."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        plain = self.args.loss_type == "nll" and not self.label_smoother and not self.aux_loss_enabled
        alone = self.accelerator.device.type == "cpu" and self.accelerator.num_processes == 1
        if return_outputs or not (plain and alone):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        labelled = labels != -100
        hidden = hidden_states(model, {key: value for key, value in inputs.items() if key != "labels"})
        total, right = summed_loss(model, hidden[:, :-1][labelled], labels[labelled])
        count = int(labelled.sum())
        accuracy = self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"]
        accuracy.append(right / max(count, 1))
        return total / max(int(count if num_items_in_batch is None else num_items_in_batch), 1)


def hidden_states(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """What reaches the model's head, whose work is left out."""
    seen: list[torch.Tensor] = []

    def take(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden[:, :0]

    with _before_head(model, take):
        model(**inputs, use_cache=False)
    return seen[0]


def logits_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What the model makes of hidden states (rows): its forward on one token, with these before its head."""
    token = torch.zeros((1, 1), dtype=torch.long, device=hidden.device)
    with _before_head(model, lambda _: hidden[None]), torch.random.fork_rng(devices=[]):
        logits: torch.Tensor = model(input_ids=token, use_cache=False).logits[0]
    return logits


def summed_loss(model: Any, hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The summed negative log-likelihood of the labels of hidden states, and how many labels are the likeliest token.

    The gradients are computed at once, for some rows at a time, so that no more logits exist together.
    """
    head = model.get_output_embeddings()
    inputs = [hidden, *(parameter for parameter in head.parameters() if parameter.requires_grad)]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    gradients = [torch.zeros_like(tensor) for tensor in inputs] if learns else []
    total, right = torch.zeros((), device=hidden.device), 0
    rows = max(LOGITS_AT_ONCE // model.config.get_text_config().vocab_size, 1)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        some = hidden.detach()[part].requires_grad_(learns)
        with torch.set_grad_enabled(learns):
            logits = logits_of(model, some).float()
            loss = functional.cross_entropy(logits, labels[part], reduction="sum")
        total += loss.detach()
        right += int((logits.detach().argmax(dim=-1) == labels[part]).sum())
        if learns:
            of_hidden, *of_head = torch.autograd.grad(loss, [some, *inputs[1:]])
            gradients[0][part] = of_hidden
            for sum_, gradient in zip(gradients[1:], of_head, strict=True):
                sum_ += gradient
    return (_Known.apply(total, gradients, *inputs) if learns else total), right  # type: ignore[no-untyped-call]


class _Known(torch.autograd.Function):
    """A value whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, gradients: list[torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, *(gradient * upstream[0] for gradient in ctx.gradients)


@contextmanager
def _before_head(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (change(given[0]),))
    try:
        yield
    finally:
        hook.remove()
