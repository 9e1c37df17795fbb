"""Drawing of tokens inside `model.generate`: each row by its own seed, independent of the rest of the batch.

Exact inverse transform sampling: one uniform number per row and step, drawn beforehand on the CPU from the request's
seed, so that a reply depends neither on the batch nor on the device's random generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, StoppingCriteria

from kun.engines.base import Generate


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token per row: the likeliest at temperature 0, else one of the `top_p` nucleus.

    The requests share their sampling settings. `broken`: per row, whether the model returned NaN.
    """

    def __init__(self, requests: Sequence[Generate], prompt_length: int, device: torch.device) -> None:
        self.sampling = requests[0].sampling
        self.prompt_length = prompt_length
        self.broken = torch.zeros(len(requests), dtype=torch.bool, device=device)
        self.uniform = torch.empty(0)
        if self.sampling.temperature > 0:
            self.uniform = torch.stack([uniform(request) for request in requests]).to(device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.broken |= scores.isnan().any(dim=-1)
        if self.sampling.temperature == 0:
            return scores
        step = input_ids.shape[1] - self.prompt_length
        chosen = draw(scores, self.uniform[:, step], self.sampling.temperature, self.sampling.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class Limits(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at its own limit of new tokens."""

    def __init__(self, limits: Sequence[int], prompt_length: int, device: torch.device) -> None:
        self.lengths = torch.tensor(limits, device=device) + prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return self.lengths <= input_ids.shape[1]


def uniform(request: Generate) -> torch.Tensor:
    """A number in [0, 1), fp32, for every token that the request may draw, from its seed alone."""
    return torch.rand(request.sampling.max_tokens, generator=torch.Generator().manual_seed(request.seed))


def draw(scores: torch.Tensor, uniform: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """(rows, vocabulary) logits and (rows,) uniform numbers to (rows,) token ids."""
    probabilities, tokens = (scores.float() / temperature).softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    inside = before < top_p  # the smallest set of likeliest tokens that reaches top_p
    mass = (probabilities * inside).sum(dim=-1)
    place = ((before <= (uniform * mass)[:, None]) & inside).sum(dim=-1) - 1
    return tokens.gather(1, place.clamp(min=0)[:, None])[:, 0]
