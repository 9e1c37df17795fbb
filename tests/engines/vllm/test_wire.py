"""Requests and answers go over the socket to vLLM as they are; none of this needs vLLM."""

from __future__ import annotations

import math

from kun.config.schema import Sampling
from kun.engines.base import Answer, ChoiceLogprobs, Failure, Generate, Generated, ScoreChoices
from kun.engines.vllm import wire


def test_requests_and_answers_arrive_as_they_were_sent() -> None:
    sampling = Sampling(max_tokens=7, temperature=0.1, top_p=0.9, repetition_penalty=1.2)
    tasks = [
        wire.Task(1, Generate([1, 2**31], sampling, seed=2**63 - 1), adapter=None),
        wire.Task(2, ScoreChoices([5], ((1,), (2, 3))), adapter="/runs/x/label"),
    ]
    answers: list[Answer] = [Generated([1], True), ChoiceLogprobs((-0.1, -math.inf)), Failure("坏")]
    results = [wire.Result(number, answer) for number, answer in enumerate(answers)]
    assert wire.decode_tasks(body(wire.frame(tasks))) == tasks
    assert wire.decode_results(body(wire.frame(results))) == results


def body(frame: bytes) -> bytes:
    data = frame[wire.HEADER.size :]
    assert wire.HEADER.unpack_from(frame) == (len(data),)
    return data
