"""What a base model needs, measured on seed pairs before training: `needs_of("models/gemma", pairs).chat`.

Read from the base itself: whether a text must begin with BOS; which way of writing turns it finds likeliest, where its
tokenizer leaves a choice; whether it has ever seen the end token of its template. What is found goes into the chat that
is saved with the trained models, so that training, all engines and servers use the same token ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kun.models.chat import Chat, Message, chats_of
from kun.models.folder import local_folder
from kun.models.tokenizer import TokenizerFiles, read_tokenizer

SEEDS = 8
LONGEST = 160  # characters that are read of an instruction or an output
UNSEEN = 1.2  # an end token whose loss is higher than by chance, so many times, was never trained
CLEAR = 0.05  # a loss that is lower by this share decides; else the tokenizer does, and the first way of writing turns

Pair = tuple[str, str]  # instruction, output


@dataclass(frozen=True)
class Needs:
    """The chat to train with, what was measured (nats per token), and in words what a user is to know of it."""

    chat: Chat
    measured: dict[str, Any]
    told: tuple[str, ...]


def needs_of(base: str | Path, pairs: Sequence[Pair], trust_remote_code: bool = False) -> Needs:
    """Measure the base on some of the pairs. InputError where it cannot be loaded."""
    from kun.models.loading import choose_device, choose_dtype, load_weights

    folder = local_folder(base)
    files = read_tokenizer(folder, trust_remote_code)
    model = load_weights(folder, choose_dtype(), trust_remote_code).to(choose_device()).eval()
    sample, told = _sample(pairs), list[str]()
    chats, bos = _with_bos_or_without(files, model, [output for _, output in sample], told)
    chat, turns = _likeliest(chats, model, sample, told)
    chat, end = _with_a_known_end(chat, files, model, sample, told)
    if chat.prompt([Message("system", "a"), Message("user", "b")]) == chat.prompt([Message("user", "a\n\nb")]):
        told.append("its template takes no system turn: the text of one opens the user's turn")
    return Needs(chat, {"bos": bos, "turns": turns, "end": end, "told": told}, tuple(told))


def _with_bos_or_without(
    files: TokenizerFiles, model: Any, texts: Sequence[str], told: list[str]
) -> tuple[list[tuple[str, Chat]], dict[str, Any] | None]:
    """The chats that begin as the base wants it, and its losses. None where it has no BOS, or one that is more."""
    chats, token = chats_of(files), files.special("bos_token")
    first = chats[0][1]
    prompt = first.prompt([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
    if token is None or files.id(token) in prompt[1:]:  # BOS also begins a turn: it is part of the template
        return chats, None
    bos, ids = files.id(token), [first.encode(text) for text in texts]
    with_it = _mean([loss for text in ids for loss in _nats(model, [bos, *text], 2)])
    without = _mean([loss for text in ids for loss in _nats(model, text, 1)])
    had = prompt[0] == bos
    used = had if max(with_it, without) * (1 - CLEAR) <= min(with_it, without) else with_it < without
    losses = f"a loss of {with_it:.2f} on seed outputs after {token}, of {without:.2f} without"
    if used != had:
        chats = chats_of(files, used)
        if (chats[0][1].prompt([Message("user", "a")])[0] == bos) != used:
            used = had
            told.append(f"{losses}, but its template begins with it: prompts keep it")
        else:
            told.append(f"{losses}: prompts begin with{'' if used else 'out'} it, unlike those of its tokenizer")
    return chats, {"token": token, "with": with_it, "without": without, "used": used}


def _likeliest(
    chats: Sequence[tuple[str, Chat]], model: Any, sample: Sequence[Pair], told: list[str]
) -> tuple[Chat, dict[str, Any] | None]:
    """The chat under which the base finds the outputs likeliest as replies, and the losses under each."""
    name, chat = chats[0]
    if not name:  # the base has a template
        return chat, None
    if chat.new_rows:
        told.append(f"it has neither a chat template nor an EOS: turns are written with {name}, whose rows are trained")
        return chat, {"used": name}
    losses = {name: _mean([loss for pair in sample for loss in _reply(model, chat, pair)]) for name, chat in chats}
    best = min(losses, key=lambda one: losses[one] * (1 if one == name else 1 / (1 - CLEAR)))
    chat = dict(chats)[best]
    end = chat.files.raw.id_to_token(chat.end_id)
    told.append(f"it has no chat template: turns are written with {best}, and a reply ends in {end}, its own")
    return chat, {**losses, "used": best}


def _with_a_known_end(
    chat: Chat, files: TokenizerFiles, model: Any, sample: Sequence[Pair], told: list[str]
) -> tuple[Chat, dict[str, Any] | None]:
    """The chat, whose end token is trained like a new one if the base has never seen it: if after replies it finds it
    clearly less likely than a random token, and its EOS more likely. And these losses."""
    eos = files.special("eos_token")
    if chat.end_id in chat.new_rows or eos is None or (other := files.id(eos)) == chat.end_id:
        return chat, None
    chance = math.log(model.get_input_embeddings().weight.shape[0])
    own = _mean([_reply(model, chat, pair)[-1] for pair in sample])
    stop = _mean([_reply(model, replace(chat, end_id=other), pair)[-1] for pair in sample])
    end, known = chat.files.raw.id_to_token(chat.end_id), own <= UNSEEN * chance or own <= stop
    if not known:
        chat = replace(chat, new_rows={**chat.new_rows, chat.end_id: other})
        told.append(
            f"the end token of its template, {end}, was never trained (a loss of {own:.1f} after replies, {chance:.1f} "
            f"by chance): its row starts as a copy of that of {eos}, and is trained"
        )
    return chat, {"token": end, "loss": own, "by chance": chance, eos: stop, "known": known}


def _sample(pairs: Sequence[Pair]) -> list[Pair]:
    """The first pairs of medium length, or else the beginnings of the first ones."""
    medium = [pair for pair in pairs if 20 <= len(pair[1]) <= LONGEST >= len(pair[0])]
    return [(one[:LONGEST], two[:LONGEST]) for one, two in [*medium, *pairs][:SEEDS]]


def _reply(model: Any, chat: Chat, pair: Pair) -> list[float]:
    """The loss of each token of the output as the reply to its instruction; that of the end token is last."""
    prompt = chat.prompt([Message("user", pair[0])])
    return _nats(model, [*prompt, *chat.completion(pair[1])], len(prompt))


def _nats(model: Any, ids: list[int], start: int) -> list[float]:
    """The loss of each token from place `start` on, given those before it."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    ids = [token for token in ids if token < rows]  # a token without a row is new to the base, and gets one later
    if len(ids) <= start:
        return []
    tokens = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=len(ids) - start + 1).logits[0, :-1]
        return list(torch.nn.functional.cross_entropy(logits.float(), tokens[0, start:], reduction="none").tolist())


def _mean(losses: Sequence[float]) -> float:
    return round(sum(losses) / max(len(losses), 1), 4)
