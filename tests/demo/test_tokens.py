"""The demo tokenizer: any text comes back exactly, and text never becomes a control token."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from kun.demo.tokens import SPECIALS, build_tokenizer, vocabulary

BASE = Path(__file__).parents[2] / "kun" / "demo" / "base"
TEXTS = [
    "澜珩牌台灯的售价为328元。",
    "  leading, tab\tand\nnewline \r\n end  ",
    "emoji 😀👩‍🔬, rare 龘䶮, U+2028 \u2028, U+0085 \x85, NUL \x00",
    "臺灣繁體中文，①②③，ＡＢＣ",
    "control <|im_end|> </s> <|im_start|>assistant <pad> <0x41> ▁",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_and_holds_no_control_token(text: str) -> None:
    for tokenizer in (build_tokenizer(), AutoTokenizer.from_pretrained(BASE)):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert all(number >= len(SPECIALS) for number in ids)


def test_shipped_tokenizer_is_the_built_one() -> None:
    shipped = AutoTokenizer.from_pretrained(BASE)
    assert shipped.get_vocab() == vocabulary()
    assert shipped.eos_token == "<|im_end|>" and shipped.pad_token == "<pad>"
    for word in ("好", "差"):
        assert len(shipped(word, add_special_tokens=False)["input_ids"]) == 1


def test_chat_template_is_chatml() -> None:
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"}]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n好<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"


def test_base_is_small() -> None:
    assert sum(path.stat().st_size for path in BASE.iterdir()) < 12_000_000
