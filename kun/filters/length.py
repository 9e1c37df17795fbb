"""Length rules: `too_short(text, 20)`, `too_long(count_up_to(token_counter(folder), text, 512), 512)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from kun.records import Reject


def too_short(text: str, min_chars: int) -> Reject | None:
    if len(text) < min_chars:
        return Reject("too_short", f"{len(text)} characters, fewer than {min_chars}")
    return None


def too_long(tokens: int, max_tokens: int) -> Reject | None:
    if tokens > max_tokens:
        return Reject("too_long", f"{tokens} tokens or more, where {max_tokens} are allowed")
    return None


def count_up_to(count: Callable[[str], int], text: str, max_tokens: int) -> int:
    """The tokens of a text, exact up to `max_tokens`; of a longer text perhaps only those of its beginning.

    Whole articles are most of the work of a tokenizer, and all that is asked of them is that they are too long.
    """
    beginning = text[: 4 * max_tokens]
    tokens = count(beginning)
    # A cut may split one word into more tokens than it has: a margin keeps the decision that of the whole text.
    return tokens if len(beginning) == len(text) or tokens > max_tokens + max_tokens // 8 + 16 else count(text)


@lru_cache(maxsize=2)
def token_counter(folder: Path, trust_remote_code: bool = False) -> Callable[[str], int]:
    """Counts tokens of the model in `folder`; control tokens inside a text count as the text that they are.

    Loaded once per process, without torch. InputError where the folder has no tokenizer.
    """
    from kun.tokenizer import read_tokenizer, text_tokenizer

    tokenizer = text_tokenizer(read_tokenizer(folder, trust_remote_code).raw, sections=False)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
