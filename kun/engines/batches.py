"""Requests to batches: `for batch in batches(requests, budget): ...`, a function of the group alone.

A rerun of a shard forms the same batches, so that the last bits of its floating point numbers are the same too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kun.engines.base import Generate, Request


def problem(request: Request, window: int, vocabulary: int) -> str | None:
    """Why a request must not reach the model."""
    if not request.prompt:
        return "the prompt is empty"
    if not all(request.forced):
        return "a choice is empty"
    if request.least > window:
        return f"prompt and reply take {request.least} tokens or more, the window has {window}"
    if max(map(max, (request.prompt, *request.forced))) >= vocabulary:
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
        length = min(requests[batch[0]].longest, window) if batch else 0
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
