"""The engine of transformers, in this process: `TransformersEngine(model, end_ids, pad_id, window,
batch_tokens).run(groups)`.

Replies come from `model.generate` in batches of similar length; verdicts from one forward pass over what follows the
shared prefix of a group's prompts. docs/measurements.md has measurements on two cores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from kun.engines.base import Answer, ChoiceLogprobs, Failure, Generate, Request, ScoreChoices, until_end
from kun.engines.batches import batches, shared_prefix
from kun.engines.in_flight import Group
from kun.engines.transformers.sampling import Draw, Limits

LEAST_SHARED = 16  # tokens; a shorter prefix is not worth a pass of its own


class TransformersEngine:
    """Answers requests with a causal language model on one device. See `kun.engines.base.Engine`."""

    def __init__(self, model: Any, end_ids: Sequence[int], pad_id: int, window: int, batch_tokens: int) -> None:
        self.model = model.eval()
        self.model.generation_config = GenerationConfig()  # the model's defaults would mix with the request's settings
        self.end_ids = tuple(end_ids)
        self.pad_id = pad_id
        self.window = window
        self.batch_tokens = batch_tokens
        settings = model.config.get_text_config()
        self._vocabulary = int(model.get_input_embeddings().weight.shape[0])
        kinds = getattr(settings, "layer_types", None) or ["full_attention"]
        full = set(kinds) == {"full_attention"} and not getattr(settings, "sliding_window", None)
        self._shares_prefix = full  # a sliding window would count the padding behind a shared prefix

    def run(
        self, groups: Iterable[Sequence[Request]], on_answer: Callable[[int], None] = lambda count: None
    ) -> Iterator[list[Answer]]:
        """The answers of each group, in the order of its requests; `on_answer(n)` after n more of them."""
        for group in groups:
            yield self._group(group, on_answer)

    def close(self) -> None:
        """Free the model's memory."""
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _group(self, group: Sequence[Request], on_answer: Callable[[int], None]) -> list[Answer]:
        state = Group.of(group, self.window, self._vocabulary, on_answer)
        fit = [number for number, _ in state.asked]
        prefix = Prefix([request.prompt for number in fit if isinstance(request := group[number], ScoreChoices)])
        for batch in batches(group, fit, self.batch_tokens, self.window):
            requests = [group[number] for number in batch]
            for number, answer in zip(batch, self._halving(requests, prefix), strict=True):
                state.settle(number, answer)
        return state.answers

    def _halving(self, requests: list[Any], prefix: Prefix) -> list[Answer]:
        """The answers of a batch; if it fails (out of memory), those of its halves, down to the failing request."""
        try:
            with torch.inference_mode():
                return self._answers(requests, prefix)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(requests) == 1:
            return [Failure(text)]
        half = len(requests) // 2
        return self._halving(requests[:half], prefix) + self._halving(requests[half:], prefix)

    def _answers(self, requests: list[Any], prefix: Prefix) -> list[Answer]:
        """The answers of a batch of requests of one kind."""
        first: Request = requests[0]
        match first:
            case Generate():
                return self._generate(requests)
            case ScoreChoices():
                return self._choose(requests, prefix)

    def _generate(self, requests: list[Generate]) -> list[Answer]:
        sampling, device = requests[0].sampling, self.model.device
        length = max(len(request.prompt) for request in requests)
        limits = [min(sampling.max_tokens, self.window - len(request.prompt)) for request in requests]
        draw = Draw(requests, length, device)
        ids, mask = self._padded([request.prompt for request in requests], length)
        # Suppress padding, unless it is also an end token (pad = EOS).
        suppressed = None if self.pad_id in self.end_ids else [self.pad_id]
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=max(limits),
                do_sample=False,
                repetition_penalty=sampling.repetition_penalty,
                suppress_tokens=suppressed,
                eos_token_id=list(self.end_ids),
                pad_token_id=self.pad_id,
            ),
            logits_processor=LogitsProcessorList([draw]),
            stopping_criteria=StoppingCriteriaList([Limits(limits, length, device)]),
        )
        replies, broken = output[:, length:].tolist(), draw.broken.tolist()
        return [
            Failure("the model returned NaN") if bad else until_end(reply[:limit], self.end_ids)
            for reply, limit, bad in zip(replies, limits, broken, strict=True)
        ]

    def _choose(self, requests: list[ScoreChoices], prefix: Prefix) -> list[Answer]:
        """Teacher forcing: one row per request and distinct beginning of its choices; one-token choices share a row."""
        shared = prefix.length if self._shares_prefix else 0
        rows: dict[tuple[int, tuple[int, ...]], int] = {}
        for number, request in enumerate(requests):
            for choice in request.choices:
                rows.setdefault((number, choice[:-1]), len(rows))
        sequences = [[*requests[number].prompt[shared:], *start] for number, start in rows]
        ids, mask = self._padded(sequences, max(map(len, sequences)))
        keep = 1 + max(len(start) for _, start in rows)
        mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:],
            past_key_values=prefix.cache(self.model, len(rows)) if shared else None,
            use_cache=shared > 0,
            logits_to_keep=keep,
        ).logits
        logprobs = logits.float().log_softmax(dim=-1)
        answers: list[Answer] = []
        for number, request in enumerate(requests):
            sums = []
            for choice in request.choices:
                row = logprobs[rows[number, choice[:-1]], keep - len(choice) :]
                sums.append(float(row.gather(1, torch.tensor(choice, device=row.device)[:, None]).sum()))
            answers.append(
                Failure("the model returned NaN") if any(x != x for x in sums) else ChoiceLogprobs(tuple(sums))
            )
        return answers

    def _padded(self, sequences: Sequence[Sequence[int]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, (rows, length), padded on the left."""
        ids = torch.tensor([[self.pad_id] * (length - len(row)) + list(row) for row in sequences])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in sequences])
        return ids.to(self.model.device), mask.to(self.model.device)


class Prefix:
    """The shared prefix of a group's prompts, run through the model once, when first needed."""

    def __init__(self, prompts: list[list[int]]) -> None:
        length = shared_prefix(prompts) if len(prompts) > 1 else 0
        self.length = length if length >= LEAST_SHARED else 0
        self.tokens = prompts[0][: self.length] if prompts else []
        self._cache: Any = None

    def cache(self, model: Any, rows: int) -> Any:
        """A key-value cache of the prefix for a batch of `rows`."""
        if self._cache is None:
            cache = DynamicCache(config=model.config)
            ids = torch.tensor([self.tokens], device=model.device)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._cache = cache
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache
