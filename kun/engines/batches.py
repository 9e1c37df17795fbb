"""Requests to batches: `for batch in batches(requests, budget): ...`, a function of the group alone.

A rerun of a shard forms the same batches, so that the last bits of its floating point numbers are the same too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kun.engines.base import Generate, Request, ScoreChoices


def longest(request: Request) -> int:
    """Tokens of the prompt and the longest reply to it."""
    if isinstance(request, Generate):
        return len(request.prompt) + request.sampling.max_tokens
    return len(request.prompt) + max(map(len, request.choices))


def problem(request: Request, window: int, vocabulary: int) -> str | None:
    """Why a request must not reach the model."""
    if not request.prompt:
        return "the prompt is empty"
    if isinstance(request, ScoreChoices) and not all(request.choices):
        return "a choice is empty"
    needed = len(request.prompt) + 1 if isinstance(request, Generate) else longest(request)
    if needed > window:
        return f"prompt and reply take {needed} tokens or more, the window has {window}"
    continuations = request.choices if isinstance(request, ScoreChoices) else ()
    if max(map(max, (request.prompt, *continuations))) >= vocabulary:
        return f"a token id is outside the model's vocabulary of {vocabulary}"
    return None


def batches(requests: Sequence[Request], numbers: Sequence[int], budget: int, window: int) -> Iterator[list[int]]:
    """The request numbers in batches of one kind, similar lengths and at most `budget` tokens, padding included.

    Longest first, so that what does not fit into memory shows at once; a request over the budget goes alone.
    """

    def key(number: int) -> tuple[str, str, int, int]:
        request = requests[number]
        settings = request.sampling.model_dump_json() if isinstance(request, Generate) else ""
        return type(request).__name__, settings, -len(request.prompt), number

    batch: list[int] = []
    for number in sorted(numbers, key=key):
        length = min(longest(requests[batch[0]]), window) if batch else 0
        if batch and (key(number)[:2] != key(batch[0])[:2] or (len(batch) + 1) * length > budget):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def shared_prefix(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts open with; each keeps at least one of its own."""
    first, last = min(prompts), max(prompts)  # in the order of sequences, the two that differ first
    most = min(map(len, prompts)) - 1
    return next((i for i, (a, b) in enumerate(zip(first[:most], last[:most], strict=False)) if a != b), most)
