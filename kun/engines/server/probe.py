"""Checks at the start that a server can do what Kun needs: `check_model(server, ...)`, `await check_replies(server,
...)`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kun.config.schema import Sampling
from kun.engines.base import Generate
from kun.engines.server.completions import NoAnswerError, RefusedError, generated, generation, logprobs, next_token
from kun.engines.server.servers import Server
from kun.errors import ConfigError
from kun.models.chat import Chat

T = TypeVar("T")
FINGERPRINTED = re.compile(r"-[0-9a-f]{16}$")  # the name of a folder made by a step of a run
TRIES = 3  # few, so that a missing server shows at once
NEEDED = "Kun needs /v1/completions with token ids in and out, as `vllm serve` has it (docs/engines.md)"


class Card(msgspec.Struct):
    """A model in /v1/models. `root`: the folder it was loaded from; `parent`: the base of an adapter."""

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class Cards(msgspec.Struct):
    data: list[Card]


async def models(server: Server) -> dict[str, Card]:
    """The models that a server has, by name."""
    try:
        cards = msgspec.json.decode(await _asked(lambda: server.get("models"), server), type=Cards).data
    except msgspec.DecodeError as error:
        raise _wrong(server, f"its list of models cannot be read ({error}); {NEEDED}") from None
    return {card.id: card for card in cards}


def check_model(server: Server, by_name: dict[str, Card], model: str, window: int, folder: str) -> None:
    """ConfigError where the server has the model from another folder of a run's store than `folder`, or a smaller
    window. What it does not report is not checked."""
    card = by_name[model]
    root = Path(card.root or "").name
    if FINGERPRINTED.search(root) and root != folder:
        raise _wrong(server, f"serves {root} as {model}, the run now has {folder}; serve that one")
    length = card.max_model_len or (by_name[card.parent].max_model_len if card.parent in by_name else None)
    if length is not None and length < window:
        raise _wrong(
            server,
            f"takes {length} tokens, Kun's window has {window}; give --max-model-len {window} to `vllm serve`, or set "
            f"engine.window to {length}",
        )


async def check_replies(server: Server, model: str, chat: Chat) -> dict[str, Any]:
    """The body of a small request that the server has answered. ConfigError where it does not support token ids in and
    out, stop_token_ids, or logit_bias."""
    request = Generate(_probe(chat), Sampling(max_tokens=2, temperature=0), seed=0)
    end = chat.end_ids[0]
    body = generation(request, len(request.prompt) + 2, chat.end_ids, chat.pad_id)
    body |= {"model": model, "logit_bias": {str(end): 100.0}}
    reply = await _asked(lambda: server.complete(body, lambda completion: generated(completion, chat.end_ids)), server)
    if reply.tokens or not reply.finished:
        raise _wrong(server, f"does not heed logit_bias and stop_token_ids; {NEEDED}")
    return body


async def check_verdicts(server: Server, model: str, chat: Chat) -> None:
    """ConfigError where the server cannot return log-probabilities of chosen tokens."""
    tokens = sorted({*_probe(chat), *chat.encode("好")})
    body = next_token(_probe(chat), tokens) | {"model": model}
    try:
        await _asked(lambda: server.complete(body, lambda completion: logprobs(completion, tokens)), server)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. The probabilities of verdicts take a vLLM server with logprob_token_ids (0.32 has it); "
            "score.method: sampled does without"
        ) from None


def _probe(chat: Chat) -> list[int]:
    """A prompt of control tokens: a server with only the base model lacks those that Kun added."""
    return sorted({*chat.end_ids, chat.pad_id, *chat.new_ids})


async def _asked(ask: Callable[[], Awaitable[T]], server: Server) -> T:
    for attempt in range(1, TRIES + 1):
        try:
            return await ask()
        except NoAnswerError as error:
            if attempt == TRIES:
                why = _bare(server, error)
                raise _wrong(server, f"{why}; is it up, or to be taken out of the list? {NEEDED}") from None
            await asyncio.sleep(min(error.after or 1.0, 10.0))
        except RefusedError as error:
            raise _wrong(server, f"{_bare(server, error)}; {NEEDED}") from None
    raise AssertionError


def _bare(server: Server, error: Exception) -> str:
    return str(error).removeprefix(server.url).lstrip(": ")


def _wrong(server: Server, what: str) -> ConfigError:
    return ConfigError(f"engine.server.urls: {server.url}: {what}")
