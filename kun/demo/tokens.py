"""The tokenizer of the tiny base model: a token per common character and per pair of digits, bytes for the rest.

tokenizer = build_tokenizer()          # a transformers tokenizer with the ChatML template
tokenizer.save_pretrained("kun/demo/base")
"""

from __future__ import annotations

import string
from typing import Any

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")


def gb2312_rows(first: int, last: int) -> list[str]:
    """The characters of the GB2312 rows first..last (1-based, inclusive), in the order of the standard."""
    characters = []
    for row in range(first, last + 1):
        for cell in range(1, 95):
            try:
                characters.append(bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312"))
            except UnicodeDecodeError:
                continue  # an unassigned cell
    return characters


def common_han() -> list[str]:
    """The 3,755 common characters (level 1 of GB2312)."""
    return gb2312_rows(16, 55)


def number_tokens() -> list[str]:
    """The pairs of digits: a tiny model copies one or two tokens far sooner than four digits."""
    return [f"{number:02d}" for number in range(100)]


def vocabulary() -> dict[str, int]:
    """Token -> id: specials, the 256 bytes, ASCII, Chinese punctuation and symbols, common characters, numbers."""
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    ascii_tokens = [c for c in string.printable if c not in "\r\x0b\x0c"]
    symbols = [*gb2312_rows(1, 1), *gb2312_rows(3, 3)]
    tokens = [*SPECIALS, *byte_tokens, *ascii_tokens, *symbols, *common_han(), *number_tokens()]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast`: exact round trip of any text, pad != eos, eos closes a ChatML turn."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from kun.models.turns import CHATML

    merges = [(number[:-1], number[-1]) for number in number_tokens()]
    backend = Tokenizer(models.BPE(vocab=vocabulary(), merges=merges, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[0-9]{1,2}"), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="left",
        chat_template=CHATML,
    )
