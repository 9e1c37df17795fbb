"""From requests to batches, which depend on their group alone: `for batch in batches(requests, numbers, ...): ...`.

A rerun of a shard forms the same batches, so that its floating point results agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kun.engines.base import Generate, Request


def problem(request: Request, window: int, vocabulary: int) -> str | None:
    """Why a request must not reach the model, or None."""
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
    """The request numbers in batches of one kind and similar lengths, of at most `budget` tokens with padding.

    Longest first, so that running out of memory shows at once; a request over the budget is a batch of its own.
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
    """The number of tokens in the common prefix of all prompts; each keeps at least one of its own."""
    first, last = min(prompts), max(prompts)  # in lexicographic order, the two that differ earliest
    most = min(map(len, prompts)) - 1
    return next((i for i, (a, b) in enumerate(zip(first[:most], last[:most], strict=False)) if a != b), most)
