"""Trained rows of an embedding at the price of rows: `only_rows(model)` after `get_peft_model`.

For `trainable_token_indices` PEFT copies the whole matrix at each forward, and computes the gradient of all of it: with
262,144 tokens gigabytes, for the two rows that learn. Here the other rows are looked up, or multiplied, as they are.
The same values; and the bias of a head counts, which PEFT leaves out.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import nn
from torch.nn import functional


class TrainedRows(TrainableTokensLayer):  # type: ignore[misc]
    """PEFT's layer, of which only the computation differs."""

    def forward_adapters(self, x: torch.Tensor, active_adapters: list[str], *args: Any, **kwargs: Any) -> torch.Tensor:
        base = self.base_layer
        result: torch.Tensor
        if self.disable_adapters or self.merged or not isinstance(base, nn.Embedding | nn.Linear):
            result = super().forward_adapters(x, active_adapters, *args, **kwargs)
            return result
        result = base(x, *args, **kwargs)
        for name in active_adapters:
            ids = torch.tensor(self.token_indices[name], device=x.device)
            rows = self.trainable_tokens_delta[name].to(base.weight)
            if isinstance(base, nn.Linear):
                bias = None if base.bias is None else base.bias[ids]
                result = result.index_copy(-1, ids, functional.linear(x, rows, bias).to(result.dtype))
                continue
            same = x[..., None] == ids
            scale = self._get_embed_scale()
            rows = rows if scale is None else rows * scale.to(rows.dtype)
            result = torch.where(same.any(-1, keepdim=True), functional.embedding(same.int().argmax(-1), rows), result)
        return result


def only_rows(model: Any) -> None:
    """Let the trained rows of this PEFT model be computed so."""
    for module in model.modules():
        if type(module) is TrainableTokensLayer:
            module.__class__ = TrainedRows
