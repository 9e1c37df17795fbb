"""Bodies of requests to an OpenAI-compatible server, and its answers, in token ids: `generation(request, ...)`.

Prompts go to /v1/completions as token ids, and replies come back as token ids (`return_token_ids`, in vLLM since
0.10.2). The server would tokenise text itself, and take `<|im_end|>` in a document for the end of the turn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from kun.engines.base import Generate, Generated, until_end

LOWEST = -9999.0  # what vLLM returns for minus infinity

# A server would take omitted settings from the model's generation_config.json, so set them all.
NEUTRAL = {"top_k": 0, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "ignore_eos": True, "n": 1}


class NoAnswerError(Exception):
    """Worth retrying. `busy`: the server asks to wait; `after`: seconds to wait."""

    def __init__(self, message: str, busy: bool = False, after: float | None = None) -> None:
        super().__init__(message)
        self.busy, self.after = busy, after


class RefusedError(Exception):
    """The server's message about a request that it will never answer."""


class Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float]]


class Completion(msgspec.Struct):
    """One of the `choices` of a response. Token ids are missing if the server does not support `return_token_ids`."""

    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: Logprobs | None = None


class Response(msgspec.Struct):
    choices: list[Completion]


def generation(request: Generate, window: int, end_ids: Sequence[int], pad_id: int) -> dict[str, Any]:
    """The body of a request for a reply, without the model's name."""
    sampling = request.sampling
    body = NEUTRAL | {
        "prompt": request.prompt,
        "max_tokens": min(sampling.max_tokens, window - len(request.prompt)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": request.seed,
        "stop_token_ids": list(end_ids),
        "return_token_ids": True,
    }
    # Suppress padding, unless it is also an end token (pad = EOS).
    return body if pad_id in end_ids else body | {"logit_bias": {str(pad_id): -100.0}}


def next_token(prompt: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
    """The body of a request for the log-probabilities of `tokens` right after `prompt`."""
    return NEUTRAL | {
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "logprobs": 1,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
        "return_token_ids": True,
    }


def parse_completion(data: bytes, prompt: Sequence[int]) -> Completion:
    """The completion in a response to `prompt`. NoAnswerError for anything else."""
    try:
        response = msgspec.json.decode(data, type=Response)
    except msgspec.DecodeError as error:
        raise NoAnswerError(f"what came back is not a completion: {error}") from None
    if len(response.choices) != 1 or response.choices[0].token_ids is None:
        raise NoAnswerError("the completion came back without token ids")
    completion = response.choices[0]
    if completion.prompt_token_ids != list(prompt):
        raise NoAnswerError("the prompt did not arrive as the token ids that were sent")
    return completion


def generated(completion: Completion, end_ids: Collection[int]) -> Generated:
    """The reply up to its end token. NoAnswerError where neither that nor the length ended it."""
    reply = until_end(completion.token_ids or [], end_ids)
    if not reply.finished and completion.finish_reason != "length":
        raise NoAnswerError(f"the reply broke off without an end token ({completion.finish_reason})")
    return reply


def logprobs(completion: Completion, tokens: Sequence[int]) -> dict[int, float]:
    """Log-probability of each of `tokens`. NoAnswerError where one is missing or cannot be a log-probability."""
    steps = completion.logprobs.top_logprobs if completion.logprobs else []
    step = steps[0] if steps else {}
    values = {token: step.get(f"token_id:{token}", math.nan) for token in tokens}
    if any(math.isnan(value) for value in values.values()):
        raise NoAnswerError("log-probabilities of the tokens that were asked for are missing")
    if max(step.values()) > 1e-3:
        raise NoAnswerError("log-probabilities above 0 came back (the server runs with another --logprobs-mode)")
    return {token: -math.inf if value <= LOWEST else value for token, value in values.items()}
