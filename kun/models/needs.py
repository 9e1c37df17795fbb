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
from kun.models.checksum import logprobs
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
    from kun.models.loading import choose_device, choose_dtype, load_base

    folder = local_folder(base)
    files = read_tokenizer(folder, trust_remote_code)
    model = load_base(folder, chats_of(files)[0][1], choose_dtype(), trust_remote_code).to(choose_device()).eval()
    sample, told = _sample(pairs), list[str]()
    chats, bos = _with_bos_or_without(files, model, sample, told)
    chat, turns = _likeliest(chats, model, sample, told)
    chat, end = _with_a_known_end(chat, files, model, sample, told)
    if chat.prompt([Message("system", "a"), Message("user", "b")]) == chat.prompt([Message("user", "a\n\nb")]):
        told.append("its template takes no system turn: the text of one opens the user's turn")
    return Needs(chat, {"bos": bos, "turns": turns, "end": end, "told": told}, tuple(told))


def _with_bos_or_without(
    files: TokenizerFiles, model: Any, sample: Sequence[Pair], told: list[str]
) -> tuple[list[tuple[str, Chat]], dict[str, Any] | None]:
    """The chats that begin as the base wants it, and its losses. None where there is no choice: no BOS, or a template
    that needs it."""
    chats, token = chats_of(files), files.special("bos_token")
    kinds = {used: chats_of(files, used) for used in (True, False)}
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    if token is None or (bos := files.id(token)) in kinds[False][0][1].prompt(turns):
        return chats, None
    # In the very prompts of training: a bare text also gains from any other token that begins something.
    losses = {used: _mean_of_replies(model, kind[0][1], sample) for used, kind in kinds.items()}
    had = chats[0][1].prompt(turns)[0] == bos
    used = losses[True] < losses[False]
    if losses[used] > losses[not used] * (1 - CLEAR):
        used = had
    if used != had:
        told.append(
            f"seed outputs have a loss of {losses[True]:.2f} where {token} comes first, of {losses[False]:.2f} where "
            f"it does not: prompts begin with{'' if used else 'out'} it, unlike those of its tokenizer"
        )
    return kinds[used] if used != had else chats, {
        "token": token,
        "with": losses[True],
        "without": losses[False],
        "used": used,
    }


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
    losses = {name: _mean_of_replies(model, chat, sample) for name, chat in chats}
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


def _mean_of_replies(model: Any, chat: Chat, sample: Sequence[Pair]) -> float:
    return _mean([loss for pair in sample for loss in _reply(model, chat, pair)])


def _reply(model: Any, chat: Chat, pair: Pair) -> list[float]:
    """The loss of each token of the output as the reply to its instruction; that of the end token is last."""
    prompt = chat.prompt([Message("user", pair[0])])
    return _nats(model, [*prompt, *chat.completion(pair[1])], len(prompt))


def _nats(model: Any, ids: list[int], start: int) -> list[float]:
    """The loss of each token from place `start` on, given those before it."""
    rows = model.get_input_embeddings().weight.shape[0]
    ids = [token for token in ids if token < rows]  # a token without a row is new to the base, and gets one later
    return [-value for value in logprobs(model, ids)[start - 1 :]] if len(ids) > start else []


def _mean(losses: Sequence[float]) -> float:
    return round(sum(losses) / max(len(losses), 1), 4)
