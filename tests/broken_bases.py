"""Base models with the faults that people meet: `for name, kind in KINDS.items(): kind.make(folder)`.

Each is made from a sound tiny one. `refused` is what the error says; where it is None the base is sound, or can be used
as it is, and what is loaded must be what was trained. `told` is part of a warning.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.runs import REPOSITORY
from tests.tiny_models import base_llama, gemma, llama, qwen, yi

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Kind:
    """`change` is done to the folder of a sound base."""

    sound: Callable[[Path], Path]
    change: Callable[[Path], None]
    refused: str | None = None
    told: str | None = None

    def make(self, folder: Path) -> Path:
        self.change(self.sound(folder))
        return folder


def weights(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A change of the weights by name."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / WEIGHTS)
        edited = edit(tensors)
        save_file(tensors if edited is None else edited, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def without(*parts: str) -> Callable[[Path], None]:
    return weights(lambda all: {name: one for name, one in all.items() if not any(part in name for part in parts)})


def renamed(before: str, after: str) -> Callable[[Path], None]:
    return weights(lambda all: {name.replace(before, after, 1): one for name, one in all.items()})


def spoiled(part: str, value: float, everything: bool = False) -> Callable[[Path], None]:
    """One value of the weights whose name has `part`, or all of them, replaced."""

    def edit(tensors: dict[str, Any]) -> None:
        for name, tensor in tensors.items():
            if part in name:
                tensor.view(-1)[slice(None) if everything else 3] = value

    return weights(edit)


def with_weights(**more: tuple[int, ...]) -> Callable[[Path], None]:
    """Weights that the architecture has no use for; a name has __ for its dots."""
    import torch

    return weights(lambda all: all | {name.replace("__", "."): torch.ones(shape) for name, shape in more.items()})


def settings(file: str, **values: Any) -> Callable[[Path], None]:
    """A change of a JSON file; None takes a key out."""

    def change(folder: Path) -> None:
        known = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
        merged = {key: value for key, value in {**known, **values}.items() if value is not None}
        (folder / file).write_text(json.dumps(merged))

    return change


def generation(**values: Any) -> Callable[[Path], None]:
    return settings("generation_config.json", **values)


def more_tokens(*contents: str, special: bool = True) -> Callable[[Path], None]:
    """Tokens that the tokenizer has and the embeddings have not."""

    def change(folder: Path) -> None:
        from tokenizers import AddedToken, Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False) for content in contents])
        tokenizer.save(str(folder / "tokenizer.json"))

    return change


def more_vocabulary(count: int) -> Callable[[Path], None]:
    """A tokenizer whose model has more pieces than the embeddings have rows."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        spec = json.loads(path.read_text(encoding="utf-8"))
        first = 1 + max({*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])})
        spec["model"]["vocab"] |= {f"piece{number}": first + number for number in range(count)}
        path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")

    return change


def fewer_rows(count: int) -> Callable[[Path], None]:
    """Embeddings that were not made larger when control tokens were put into the tokenizer."""

    def change(folder: Path) -> None:
        def edit(tensors: dict[str, Any]) -> None:
            for name in ("model.embed_tokens.weight", "lm_head.weight"):
                if name in tensors:
                    tensors[name] = tensors[name][:-count].clone()

        weights(edit)(folder)
        known = json.loads((folder / "config.json").read_text())["vocab_size"]
        settings("config.json", vocab_size=known - count)(folder)

    return change


def demo(folder: Path) -> Path:
    """The demo's base: the one here that has learned something."""
    return Path(shutil.copytree(REPOSITORY / "kun/demo/base", folder))


def other_tokenizer(folder: Path) -> None:
    """The same pieces in another order, as of a model that was trained apart."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    special = {token["content"] for token in spec["added_tokens"]}
    pieces = [piece for piece in spec["model"]["vocab"] if piece not in special]
    numbers = [spec["model"]["vocab"][piece] for piece in pieces]
    random.Random(3).shuffle(numbers)
    spec["model"]["vocab"] |= dict(zip(pieces, numbers, strict=True))
    path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")


def tied(folder: Path) -> Path:
    return qwen(folder, tied=True)


def nothing(folder: Path) -> None:
    pass


LAYER = "model.layers.1.self_attn.q_proj.weight"
LACKS = r"lacks 1 of the \d+ weights of .*random ones would take their place"
KINDS: dict[str, Kind] = {
    "a layer's weight is missing": Kind(llama, without(LAYER), rf"{LACKS}"),
    "a norm is missing": Kind(llama, without("model.norm"), LACKS),
    "the embeddings are missing": Kind(llama, without("embed_tokens"), LACKS),
    "the head is missing": Kind(llama, without("lm_head"), r"\(lm_head.weight\).*tie_word_embeddings: true"),
    "a layer is missing": Kind(gemma, without("layers.1."), r"lacks 11 of the \d+"),
    "all is missing": Kind(llama, without("model.", "lm_head"), r"lacks (\d+) of the \1 weights"),
    "other layers than config.json": Kind(llama, settings("config.json", num_hidden_layers=3), r"lacks 9 of the"),
    "all names under a prefix": Kind(llama, renamed("", "module."), r"and has module\.lm_head\.weight, .* instead"),
    "all names in another scheme": Kind(yi, renamed("model.layers", "transformer.h"), r"instead"),
    "one name misspelt": Kind(llama, renamed("q_proj", "query_proj"), r"has .*query_proj\.weight.* instead"),
    "other shapes than config.json": Kind(
        llama, settings("config.json", intermediate_size=40), r"is 32 x 48, not 32 x 40"
    ),
    "not a number in one place": Kind(llama, spoiled(LAYER, float("nan")), r"1 of the 2048 values of .*q_proj.*finite"),
    "infinity in one place": Kind(
        qwen, spoiled("embed_tokens", float("inf")), r"1 of the \d+ values of .*embed_tokens"
    ),
    "nothing but not-a-numbers": Kind(llama, spoiled("", float("nan"), True), r"are not finite"),
    "numbers that overflow": Kind(
        llama, spoiled("mlp.up_proj", 3e38, True), r"loss or gradient of a seed is not finite"
    ),
    "another model's tokenizer": Kind(demo, other_tokenizer, r"the seeds is 1\d\.\d\d nats"),
    "another model's larger tokenizer": Kind(llama, more_vocabulary(60), r"has 54 tokens beyond the \d+ rows"),
    "a head of its own, tied by config.json": Kind(llama, settings("config.json", tie_word_embeddings=True), r"ties"),
    "weights cut short": Kind(llama, lambda folder: os.truncate(folder / WEIGHTS, 9000), r"cannot be loaded"),
    "no weights": Kind(llama, lambda folder: (folder / WEIGHTS).unlink(), r"cannot be loaded"),
    "no config.json": Kind(llama, lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "sound, the head tied": Kind(tied, nothing),
    "sound, without the body's prefix": Kind(tied, renamed("model.", "")),
    "heads for several tokens at once": Kind(
        llama, with_weights(mtp__layers__0__weight=(4, 4)), None, "1 weights are of no use .* mtp.layers.0.weight"
    ),
    "eyes": Kind(tied, with_weights(visual__patch__weight=(4, 4)), None, "visual.patch.weight"),
    "sound, and untrained": Kind(yi, nothing, None, "the model is untrained, or does not know the language"),
    "rows lacking for the template's tokens": Kind(base_llama, fewer_rows(2)),
    "rows lacking for tokens of the text": Kind(llama, more_vocabulary(3)),
    "a token for images without a row": Kind(gemma, more_tokens("<image_soft_token>")),
    "temperature without sampling": Kind(llama, generation(do_sample=False, temperature=0.9, top_p=0.6)),
    "an early stop of one beam": Kind(llama, generation(early_stopping=True, num_beams=1, length_penalty=2.0)),
    "several replies without sampling": Kind(llama, generation(num_return_sequences=4)),
    "a pad token below zero": Kind(llama, generation(pad_token_id=-1)),
}
