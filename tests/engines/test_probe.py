"""The probe on engines whose speed is known; with the real one in tests/planning/test_plan.py."""

import time

import pytest

from kun.engines.base import Failure, Generated
from kun.engines.probe import REPLY, probe
from kun.errors import InputError


class Clockwork:
    """Takes `read` seconds for each token of a prompt and `write` for each of a reply, and writes to the limit."""

    window = 1000

    def __init__(self, read, write):
        self.read, self.write, self.asked = read, write, []

    def run(self, groups, on_answer=lambda count: None):
        for group in groups:
            self.asked += group
            written = [one.sampling.max_tokens for one in group]
            time.sleep(sum(len(one.prompt) for one in group) * self.read + sum(written) * self.write)
            yield [Generated([1] * length, finished=False) for length in written]

    def close(self):
        pass


class Broken(Clockwork):
    def run(self, groups, on_answer=lambda count: None):
        for group in groups:
            yield [Failure("out of memory")] * len(group)


PROMPTS = [list(range(200)) for _ in range(64)]


def test_both_rates_are_found_and_the_time_is_kept():
    engine = Clockwork(read=2e-5, write=2e-4)  # 50,000 and 5,000 tokens a second
    start = time.monotonic()
    prefill, decode = probe(engine, PROMPTS, 0, 1.0)
    assert time.monotonic() - start < 3
    assert prefill.rate == pytest.approx(50_000, rel=0.3)
    assert decode.rate == pytest.approx(5_000, rel=0.3)
    assert decode.requests > 1 and all(one.sampling.max_tokens in (1, REPLY) for one in engine.asked)


def test_what_the_engine_remembers_is_not_counted_as_read():
    prefill, _ = probe(Clockwork(1e-6, 1e-6), PROMPTS, 150, 0.2)
    assert prefill.tokens == prefill.requests * 50


def test_one_prompt_is_enough_and_none_is_an_error():
    assert probe(Clockwork(1e-5, 1e-5), [[5, 6]], 0, 0.1)[1].requests == 1
    with pytest.raises(InputError, match="--sample"):
        probe(Clockwork(1e-5, 1e-5), [], 0, 0.1)


def test_an_engine_that_fails_ends_it_with_the_reason():
    with pytest.raises(InputError, match="out of memory"):
        probe(Broken(0, 0), PROMPTS, 0, 0.1)
