"""The measures of the demo, on cases small enough to check by hand."""

from __future__ import annotations

import math

import pytest

from kun.demo.evaluate import evaluate_filter, evaluate_label, evaluate_polish, evaluate_score


def gold(row: int, kind: str = "prose", **more: object) -> dict:
    return {
        "subset": "wudao",
        "file": "a.json",
        "row": row,
        "kind": kind,
        "subject": "",
        "instruction": "",
        "facts": [],
        **more,
    }


def test_filter_counts_noise_dropped_and_prose_lost() -> None:
    rows = [gold(0), gold(1), gold(2, "advert"), gold(3, "advert"), gold(4, "garbled"), gold(5, "duplicate")]
    measured = evaluate_filter(rows, {("wudao", "a.json", 0), ("wudao", "a.json", 2)})
    assert measured["noise_recall"] == 0.75
    assert measured["prose_loss"] == 0.5
    assert measured["kinds"]["advert"] == {"rows": 2, "dropped": 0.5}
    assert math.isnan(evaluate_filter([gold(0)], set())["noise_recall"])


def test_label_wants_the_subject_and_compares_characters() -> None:
    rows = [
        gold(0, subject="澜琳茶", instruction="介绍澜琳茶"),
        gold(1, subject="湖", instruction="一二三四"),
        gold(2, "advert"),
    ]
    answers = [
        {"subset": "wudao", "file": "a.json", "row": 0, "instruction": "介绍澜琳茶"},
        {"subset": "wudao", "file": "a.json", "row": 1, "instruction": "一二五六"},
        {"subset": "wudao", "file": "a.json", "row": 2, "instruction": "买吧"},
    ]
    assert evaluate_label(rows, answers) == {"subject_named": 0.5, "rouge_l": pytest.approx(0.75), "rows": 2}


def test_score_is_the_auc_with_ties_as_halves() -> None:
    rows = [{"good": True, "kind": "good"}] * 2 + [{"good": False, "kind": "cut"}, {"good": False, "kind": "vague"}]
    measured = evaluate_score(rows, [0.9, 0.5, 0.5, 0.7])
    assert measured["auc"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert measured["kinds"] == {"cut": 0.75, "vague": 0.5}
    with pytest.raises(ValueError):
        evaluate_score(rows, [0.9])


def polish(output: str, facts: list[str], text: str = "澜琳牌台灯售价328元，1987年由沈蒋设计。") -> dict[str, float]:
    row = {
        "subset": "wudao",
        "file": "a.json",
        "row": 0,
        "text": text,
        "instruction": "介绍澜琳牌台灯",
        "output": output,
    }
    return evaluate_polish([gold(0, facts=facts)], [row])


def test_polish_counts_facts_kept() -> None:
    assert polish("澜琳牌台灯售价328元。", ["澜琳", "328", "1987", "沈蒋"])["facts_kept"] == 0.5
    assert polish("3281元", ["328"])["facts_kept"] == 0.0


def test_polish_finds_invented_numbers_and_names() -> None:
    measured = polish("澜琳牌台灯售价329元，由沈鹤设计。", [])
    assert measured["unsupported"] == pytest.approx(2 / 3)  # 329 and 沈鹤, not 澜琳
    assert measured["rows_unsupported"] == 1.0
    assert polish("澜琳牌台灯售价328元。", [])["unsupported"] == 0.0
    assert polish("售价28元。", [])["unsupported"] == 1.0
    assert polish("没有数字。", [])["unsupported"] == 0.0
