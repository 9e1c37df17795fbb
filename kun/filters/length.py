"""Length: tokens of many texts, `count_up_to(batch_counter(folder), texts, 512)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

_BATCH = 32  # texts that are tokenised together: more are not faster, and their encodings take memory


def count_up_to(count: Callable[[Sequence[str]], list[int]], texts: Sequence[str], max_tokens: int) -> list[int]:
    """The tokens of each text, exact up to `max_tokens`; of a longer text perhaps only those of its beginning.

    Whole articles are most of the work of a tokenizer, and all that is asked of them is that they are too long.
    """
    beginnings = [text[: 4 * max_tokens] for text in texts]
    counts = count(beginnings)
    # A cut may split one word into more tokens than it has: a margin keeps the decision that of the whole text.
    sure = max_tokens + max_tokens // 8 + 16
    again = [n for n, text in enumerate(texts) if len(text) > 4 * max_tokens and counts[n] <= sure]
    for n, tokens in zip(again, count([texts[n] for n in again]), strict=True):
        counts[n] = tokens
    return counts


def token_counter(folder: Path, trust_remote_code: bool = False) -> Callable[[str], int]:
    """Counts the tokens of one text, as `batch_counter` does those of many."""
    count = batch_counter(folder, trust_remote_code)
    return lambda text: count([text])[0]


@lru_cache(maxsize=2)
def batch_counter(folder: Path, trust_remote_code: bool = False) -> Callable[[Sequence[str]], list[int]]:
    """Counts tokens of the model in `folder`; control tokens inside a text count as the text that they are.

    Many texts at once take half the time. Loaded once per process, without torch. InputError where the folder
    has no tokenizer.
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
