"""What is told of a judge's scores."""

from __future__ import annotations

import math

import pytest

from kun.checks.discrimination import agreement, auc, on_copies, spread


def test_auc_counts_ties_as_halves() -> None:
    assert auc([0.9, 0.4], [0.4, 0.1]) == (1 + 1 + 0.5 + 1) / 4
    assert math.isnan(auc([], [0.4]))


def test_a_judge_near_chance_is_told_with_a_remedy() -> None:
    told = on_copies({"good": [0.97, 0.95, 0.99], "cut": [0.96, 0.98, 0.94], "vague": [0.97, 0.95, 0.99]})
    assert told["AUC"] == 0.583
    assert told["weakest"] == "vague 0.500"
    assert "AUC 0.58, chance is 0.50" in str(told["warning"])
    assert "set seeds.judge to auto" in str(told["warning"])
    good = on_copies({"good": [0.9, 0.8], "cut": [0.1], "vague": [0.2]})
    assert (good["AUC"], good["spoiled copies"], "warning" in good) == (1.0, 2, False)
    assert "no spoiled copies" in str(on_copies({"good": [0.5]})["warning"])


def test_scores_that_hardly_differ_are_told_unless_the_judge_is_known_to_discriminate() -> None:
    narrow = [0.93 + number * 0.0007 for number in range(100)]
    assert "between 0.93 and 1.00" in str(spread(narrow, 0.55)["warning"])
    assert "AUC on spoiled copies is not known" in str(spread(narrow, None)["warning"])
    assert "warning" not in spread(narrow, 0.97)  # so good are all of them
    wide = spread([0.1, 0.5, 0.9], 0.55)
    assert (wide["lowest"], wide["median"], wide["highest"], "warning" in wide) == (0.1, 0.5, 0.9, False)
    assert spread([], None) == {"scores": 0}


def test_agreement_with_people_at_the_cut() -> None:
    told = agreement([(0.9, True), (0.8, False), (0.3, False), (0.2, True)], 0.5)
    assert told["agreement"] == 0.5
    assert told["AUC"] == pytest.approx(0.5)
    assert "does not agree" in str(told["warning"])
    assert agreement([(0.9, True)], 0.5) == {"agreement": 1.0}
