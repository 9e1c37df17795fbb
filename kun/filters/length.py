"""The lengths of texts in tokens: `count_up_to(batch_counter(folder), texts, 512)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

_BATCH = 32  # texts tokenised together: more are not faster, and take memory


def count_up_to(count: Callable[[Sequence[str]], list[int]], texts: Sequence[str], max_tokens: int) -> list[int]:
    """The number of tokens of each text, exact up to `max_tokens`; for a longer text perhaps that of its beginning.

    Long articles would be most of the work, and it is enough to know that they are too long.
    """
    beginnings = [text[: 4 * max_tokens] for text in texts]
    counts = count(beginnings)
    # A cut may split a word into more tokens than it has: the margin keeps the decision as for the whole text.
    sure = max_tokens + max_tokens // 8 + 16
    again = [n for n, text in enumerate(texts) if len(text) > 4 * max_tokens and counts[n] <= sure]
    for n, tokens in zip(again, count([texts[n] for n in again]), strict=True):
        counts[n] = tokens
    return counts


def token_counter(folder: Path, trust_remote_code: bool = False) -> Callable[[str], int]:
    """A function that counts the tokens of one text; see `batch_counter`."""
    count = batch_counter(folder, trust_remote_code)
    return lambda text: count([text])[0]


@lru_cache(maxsize=2)
def batch_counter(folder: Path, trust_remote_code: bool = False) -> Callable[[Sequence[str]], list[int]]:
    """A function that counts the tokens of texts by the tokenizer in `folder`; control tokens in a text count as text.

    Many texts at once take half the time. Loaded once per process, without torch. InputError where the folder has no
    tokenizer.
    """
    from kun.models.tokenizer import read_tokenizer, text_tokenizer

    encode = text_tokenizer(read_tokenizer(folder, trust_remote_code).raw, sections=False).encode_batch_fast

    def count(texts: Sequence[str]) -> list[int]:
        starts = range(0, len(texts), _BATCH)
        return [
            len(encoding)
            for start in starts
            for encoding in encode(texts[start : start + _BATCH], add_special_tokens=False)
        ]

    return count
