"""A rehearsal of training and saving before hours of it: `rehearse(config, chat, examples, work)`.

The base gets its adapter, one short example goes through it forwards and backwards, the adapter is changed as a
training would, saved, and loaded again. What is loaded must be what was saved, on the adapter and merged: many
settings of LoRA train something that is not saved, or is put on in another way. Nothing that is drawn here reaches the
training.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.errors import ConfigError, InputError
from kun.models.chat import Chat
from kun.models.checksum import logprobs
from kun.training.adapted import adapted, save
from kun.training.seeds import Example

TEXTS = 4  # whose loss under the base is measured
SHORTEST, LONGEST = 16, 96  # tokens of the examples that are tried
CHANGE = 0.02  # of each trained value, at least; or a tenth of their size
ALLOWED = {"float32": (1e-3, 1e-2), "bfloat16": (0.05, 0.3)}  # of the change: on the adapter, and merged
PLAIN = {"r", "lora_alpha", "lora_dropout", "target_modules"}


def rehearse(config: Config, chat: Chat, examples: Sequence[Example], work: Path) -> None:
    """ConfigError or InputError where the base, or the settings of LoRA on it, would not give the model that was
    trained."""
    from kun.models.loading import choose_device

    device, folder = choose_device(), work / "trial"
    row = tried_row(examples)
    model = adapted(config, chat, list(map(_text, examples[:TEXTS]))).to(device)
    named = _named(config)
    try:
        _step(model, row)
        before = logprobs(model.eval(), row)
        _change(model)
        trained, dtype = logprobs(model, row), str(model.dtype).removeprefix("torch.")
        shutil.rmtree(folder, ignore_errors=True)
        save(model, config, folder)
        chat.save(folder)
    except (InputError, ConfigError):
        raise
    except Exception as error:  # what PEFT or torch raise for settings that do not go together
        raise ConfigError(f"train.lora: cannot be trained or saved with {named}: {error}") from None
    del model
    moved = _distance(before, trained)
    limits = zip(("loaded again", "merged"), ALLOWED.get(dtype, ALLOWED["bfloat16"]), strict=True)
    for (how, allowed), loaded in zip(limits, _loaded(config, folder, row, named), strict=False):
        away = _distance(loaded, trained)
        if not away <= allowed * moved:
            raise ConfigError(
                f"train.lora: with {named} a model that is {how} is not the one that was trained (tried on "
                f"the untrained model: {away:.3g} nats per token away, of {moved:.3g} that the adapter makes); "
                "leave that out"
            )
    shutil.rmtree(folder)


def tried_row(examples: Sequence[Example]) -> list[int]:
    """The tokens of a short example, prompt and completion, cut in the prompt where it is long."""
    rows = [example.prompt[-LONGEST:] + example.completion[:LONGEST] for example in examples]
    return min(rows, key=lambda row: (len(row) < SHORTEST, len(row)))


def _text(example: Example) -> str:
    """The longest text of an example: the seed's output, in training of either model."""
    return max((example.task.reply, *(message.content for message in example.task.messages)), key=len)


def _step(model: Any, row: Sequence[int]) -> None:
    """One pass forwards and backwards. InputError where loss or gradient is not finite."""
    import torch

    ids = torch.tensor([list(row)], device=model.device)
    logits = model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:])
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not (math.isfinite(loss.item()) and all(torch.isfinite(gradient).all() for gradient in gradients)):
        raise InputError(
            f"base_model: {model.name_or_path}: loss or gradient of a seed is not finite before any training (the "
            f"loss is {loss.item()}): the weights are damaged, or overflow in {model.dtype}; try another base"
        )
    model.zero_grad(set_to_none=True)


def _change(model: Any) -> None:
    """Change all that would be trained, at random: an untrained adapter does nothing."""
    import torch

    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                size = max(CHANGE, 0.1 * float(weight.float().pow(2).mean().sqrt()))
                weight.add_((size * torch.randn(weight.shape, generator=source)).to(weight.device, weight.dtype))


def _loaded(config: Config, folder: Path, row: Sequence[int], named: str) -> Iterator[list[float]]:
    """What is said by the saved model, and by the same with its adapter merged in."""
    from transformers import set_seed

    from kun.models.loading import load_model

    set_seed(config.seed + 1)  # what is drawn at random while loading must show
    base = str(config.base_model)
    try:
        model, _ = load_model(base, folder, merge=False, trust_remote_code=config.trust_remote_code)
        yield logprobs(model, row)
        if config.train.save == "adapter":
            yield logprobs(model.merge_and_unload(), row)
    except Exception as error:  # InputError of load_model; PEFT refuses some merges with errors of many kinds
        raise ConfigError(f"train.lora: with {named} a model cannot be loaded again: {error}") from None


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def _named(config: Config) -> str:
    """The settings of LoRA that are out of the ordinary."""
    lora = config.train.lora
    named = ", ".join(sorted(set(lora) - PLAIN)) or "target_modules"
    parts = f"{lora.get('target_modules')} {lora.get('modules_to_save')}"
    tied = re.search("head|embed|wte", parts)
    return f"{named} (embeddings and output head are one matrix where a base ties them)" if tied else named
