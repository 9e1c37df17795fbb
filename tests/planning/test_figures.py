"""The arithmetic of `kun plan`, and how it is shown, without a corpus or a model."""

from __future__ import annotations

import random

import msgspec
import pytest

from kun.planning.figures import (
    Figure,
    Plan,
    Rates,
    Space,
    StageLoad,
    Subset,
    Training,
    flow,
    gpu_hours,
    mean,
    rows_of,
    share_of,
)
from kun.planning.table import WIDTH, as_json, count, render, size

RATES = Rates(1000.0, 100.0, "given", "--prefill-rate, --decode-rate")


def figure(value, basis="assumed"):
    return Figure(value, basis, "--kept changes it")


def asked(stage="stage3_label", *, prompt=100.0, repeated=40.0, reply=10.0, kept=0.5, cached=False):
    tokens = {"prompt": figure(prompt, "sample"), "repeated": repeated, "reply": figure(reply, "seeds")}
    return StageLoad(stage=stage, **tokens, kept=figure(kept), cached=cached, bytes=(300.0, 200.0))


def subset(*stages, rows=1000.0, filtered=0.6):
    counted = Figure(rows, "sample", "500 rows", low=rows * 0.9, high=rows * 1.1)
    return Subset("web", counted, figure(filtered, "sample"), figure(0.0002, "sample"), 1000.0, 400.0, stages)


def plan(**changes):
    one = subset(asked(), asked("stage4_score", reply=0, cached=True), asked("stage5_polish"))
    fields = {
        "run": "runs/web",
        "sample": 500,
        "filter_stage": "stage2_filter",
        "subsets": (one,),
        "training": (Training("stage1_train/label", "stage1", 900, 6, 2_000_000),),
        "work": tuple(flow(one)),
        "disk": (Space("stage2 documents", 1e6, "measured"), Space("final", 2e6, "measured")),
        "free": 10**9,
        "held": 0,
        "cores": 4,
        "gpus": 2,
        "rates": RATES,
        "price": 2.0,
        "notes": ("near-duplicates are not seen",),
    }
    return Plan(**fields | changes)


def test_each_stage_gets_the_rows_that_the_one_before_keeps():
    label, polish = flow(subset(asked(), asked("stage5_polish", kept=0.9)))
    assert (label.rows, label.kept, label.prefill, label.repeated, label.decode) == (600, 300, 60_000, 24_000, 6_000)
    assert (polish.rows, polish.kept) == (300, 270)
    assert label.bytes == 300 * 300 + 300 * (200 + 100)  # kept records; rejected ones with their reasons


def test_hours_are_those_of_prefill_and_decode_and_what_is_remembered_costs_nothing():
    (work,) = flow(subset(asked()))
    assert gpu_hours(work, RATES) == pytest.approx((60_000 / 1000 + 6_000 / 100) / 3600)
    assert gpu_hours(msgspec.structs.replace(work, cached=True), RATES) == pytest.approx((36 + 60) / 3600)


def test_more_gpus_take_less_time_and_the_same_money_and_training_takes_one():
    two, four = plan(), plan(gpus=4)
    assert two.cost == four.cost == pytest.approx(two.gpu_hours * 2.0)
    training = 2_000_000 * 3 / 1000 / 3600
    assert two.wall_hours == pytest.approx(training + (two.gpu_hours - training) / 2)
    assert plan(rates=None).gpu_hours is None and plan(rates=None).cost is None and plan(price=None).cost is None


def test_an_interval_of_rows_holds_the_truth_about_as_often_as_it_says():
    rng, inside, rounds = random.Random(0), 0, 300
    lengths = [rng.lognormvariate(5, 0.8) for _ in range(20_000)]
    whole = sum(lengths)
    for _ in range(rounds):
        drawn = rng.choices(lengths, lengths, k=300)  # as bytes draw them
        found = rows_of([whole / 300 / length for length in drawn], counted=False, everywhere=True, how="")
        inside += found.low <= len(lengths) <= found.high
    assert inside / rounds > 0.9


def test_rows_that_are_counted_or_from_beginnings_have_no_interval():
    assert rows_of([2.0] * 50, counted=True, everywhere=True, how="") == Figure(100.0, "counted", "")
    assert rows_of([2.0] * 50, counted=False, everywhere=False, how="") == Figure(100.0, "sample", "")
    assert rows_of([], counted=False, everywhere=True, how="").value == 0


def test_a_share_is_weighted_and_its_interval_closes_as_the_sample_becomes_the_whole():
    assert share_of([3.0, 1.0], [True, False], "").value == 0.75
    wide, narrow = (share_of([weight] * 100, [True] * 60 + [False] * 40, "") for weight in (100.0, 1.1))
    assert wide.low < 0.51 and wide.high > 0.69 and narrow.high - narrow.low < (wide.high - wide.low) / 2
    assert share_of([1.0] * 100, [True] * 60 + [False] * 40, "") == Figure(0.6, "counted", "")
    none = share_of([100.0] * 50, [False] * 50, "")
    assert none.value == 0 == none.low and 0.03 < none.high < 0.12  # nothing of 50: a few in a hundred at most
    assert share_of([], [], "").value == 0 == mean([], [])


def test_the_table_is_narrow_and_says_what_each_figure_rests_on():
    text = render(plan(), "my.yaml")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "web, rows 1,000, 95 % between 900 and 1,100: measured on the sample (500 rows)" in text
    assert "stage3 label, share kept: 50.0%: ASSUMED (--kept changes it)" in text
    assert "stage3 label, tokens of a reply: 10: measured on the seeds" in text
    assert "which the engine computes once in stage4" in text
    assert text.endswith("next: kun run all --config my.yaml")


def test_without_rates_it_shows_how_to_get_hours():
    text = render(plan(rates=None), "my own.yaml", ["--score.threshold", "0.7"])
    assert "GPU hours = (prefill tokens / prefill rate + decode tokens / decode rate) / 3600" in text
    assert "next: kun plan --config 'my own.yaml' --score.threshold 0.7 --probe" in text
    assert "cost" not in text.lower().split("what this rests on")[0]


def test_a_disk_that_is_too_small_is_said_before_all_else():
    small = plan(free=1_000_000)
    assert not small.fits and "WARNING: it does not fit" in render(small, "my.yaml")
    assert "next: free some space" in render(small, "my.yaml")
    assert plan(free=1_000_000, held=2_000_000).fits  # what the run has written already is not needed again


def test_json_has_every_figure_and_the_sums():
    found = msgspec.json.decode(msgspec.json.encode(as_json(plan())))
    assert found["subsets"][0]["asked"][0]["kept"] == {
        "value": 0.5, "basis": "assumed", "how": "--kept changes it", "low": None, "high": None,
    }  # fmt: skip
    assert found["total"]["cost"] == pytest.approx(plan().cost) and found["total"]["fits"] is True


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999_999, "999,999"), (2.5e6, "2.5 M"), (3.14159e12, "3.14 T")])
def test_counts_for_people(number, text):
    assert count(number) == text


def test_sizes_for_people():
    assert [size(number) for number in (0, 1234, 5.6e9, 7.89e14)] == ["0.0 kB", "1.2 kB", "5.6 GB", "789 TB"]
