"""Bodies of requests, and what is read from responses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kun.config.schema import Sampling
from kun.engines.base import Generate, Generated
from kun.engines.server.completions import (
    Completion,
    Logprobs,
    NoAnswerError,
    generated,
    generation,
    logprobs,
    parse_completion,
)


def test_padding_that_is_an_end_token_stays_possible() -> None:
    request = Generate([1, 2], Sampling(), seed=3)
    assert "logit_bias" not in generation(request, 100, end_ids=(5, 7), pad_id=7)
    assert generation(request, 100, end_ids=(5,), pad_id=7)["logit_bias"] == {"7": -100.0}


@pytest.mark.parametrize(
    ("tokens", "reason", "expected"),
    [
        ([10, 11, 5], "stop", Generated([10, 11], True)),
        ([5], "stop", Generated([], True)),
        ([10, 11], "length", Generated([10, 11], False)),
        ([10, 5], "length", Generated([10], True)),  # the end token is the last that there was room for
        ([10, 5, 12], "stop", Generated([10], True)),
    ],
)
def test_a_reply_ends_before_its_end_token(tokens: list[int], reason: str, expected: Generated) -> None:
    assert generated(Completion(reason, tokens), end_ids=(5, 6)) == expected


@pytest.mark.parametrize("reason", ["stop", "abort", "error", "content_filter", None])
def test_a_reply_that_something_else_ended_is_none(reason: str | None) -> None:
    with pytest.raises(NoAnswerError, match=r"broke off without an end token"):
        generated(Completion(reason, [10, 11]), end_ids=(5, 6))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "without token ids"),
        ([{"text": "x"}], "without token ids"),
        ([{"token_ids": [1], "prompt_token_ids": [2]}, {"token_ids": [1]}], "without token ids"),
        ([{"token_ids": [1], "prompt_token_ids": [9, 2]}], "did not arrive as the token ids"),
        ([{"token_ids": [1]}], "did not arrive as the token ids"),
        ([{"token_ids": "1"}], "not a completion"),
        (None, "not a completion"),
    ],
)
def test_a_response_that_is_none(choices: Any, message: str) -> None:
    with pytest.raises(NoAnswerError, match=message):
        parse_completion(json.dumps({"choices": choices}).encode(), prompt=[2])


def given(**values: float) -> Completion:
    return Completion("length", [7], [1], Logprobs([{f"token_id:{name[1:]}": value for name, value in values.items()}]))


def test_the_lowest_log_probability_is_minus_infinity() -> None:
    assert logprobs(given(t7=-0.1, t8=-9999.0), [7, 8]) == {7: -0.1, 8: -math.inf}


def test_what_cannot_be_log_probabilities_is_no_answer() -> None:
    with pytest.raises(NoAnswerError, match="are missing"):
        logprobs(given(t7=-0.1), [7, 8])
    with pytest.raises(NoAnswerError, match="are missing"):
        logprobs(Completion("length", [7]), [7])
    with pytest.raises(NoAnswerError, match="logprobs-mode"):  # logits: the likeliest is far above 0
        logprobs(given(t7=12.5, t8=-3.0), [8])
