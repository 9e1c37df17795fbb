"""Cuts of scores."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kun.checks.selection import best_f1, cut, read_calibration, top_share
from kun.config.schema import Score
from kun.errors import InputError


def test_top_share_rounds_up_and_keeps_ties_whatever_the_order() -> None:
    scores = [0.9, 0.8, 0.8, 0.8, 0.1, 0.0]
    assert top_share(scores, 0.5) == 0.8
    assert top_share(scores, 1.0) == 0.0
    assert top_share(scores, 0.01) == 0.9
    assert top_share([], 0.5) == 0.0
    assert top_share([0.1 * n for n in range(10)], 0.3) == pytest.approx(0.7)  # 0.3 * 10 is a little over 3
    random.Random(0).shuffle(scores)
    assert top_share(scores, 0.5) == 0.8


def f1(calibration: list[tuple[float, bool]], lowest: float) -> float:
    kept = [good for score, good in calibration if score >= lowest]
    return 2 * sum(kept) / (len(kept) + sum(good for _, good in calibration))


def test_best_f1_is_no_worse_than_any_other_cut() -> None:
    draw = random.Random(3)
    for _ in range(50):
        calibration = [(round(draw.random(), 1), draw.random() < 0.4) for _ in range(30)]
        if not 0 < sum(good for _, good in calibration) < 30:
            continue
        found = best_f1(calibration)
        assert f1(calibration, found) == max(f1(calibration, step / 100) for step in range(101))


def test_best_f1_cuts_halfway() -> None:
    assert best_f1([(0.9, True), (0.8, True), (0.2, False)]) == pytest.approx(0.5)
    with pytest.raises(InputError, match="both good and bad"):
        best_f1([(0.9, True)])
    with pytest.raises(InputError, match="both good and bad"):
        best_f1([])


def test_the_setting_decides() -> None:
    assert cut([0.1], Score(threshold=0.7)) == 0.7
    assert cut([0.1, 0.6], Score(select="top_share", top_share=0.5)) == 0.6
    judged = [(0.9, True), (0.1, False)]
    assert cut([], Score(select="best_f1", calibration="x"), judged) == pytest.approx(0.5)


def test_the_calibration_file_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    path.write_text('{"instruction": "甲\u2028", "verdict": "good"}\n\n{"instruction": "乙", "verdict": "bad"}\n')
    assert read_calibration(path) == [("甲\u2028", True), ("乙", False)]
    path.write_text('{"instruction": "甲", "verdict": "good"}\n{"instruction": "乙", "verdict": "差"}\n')
    with pytest.raises(InputError, match=r"judged.jsonl:2: verdict must be good or bad"):
        read_calibration(path)
    path.write_text("{\n")
    with pytest.raises(InputError, match=r"judged.jsonl:1"):
        read_calibration(path)
    with pytest.raises(InputError, match="No such file"):
        read_calibration(tmp_path / "none")


def test_hostile_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "a", "verdict": "good"}\n' + b'{"a":' * 100_000)
    with pytest.raises(InputError, match=r"judged\.jsonl:2"):
        read_calibration(path)
    path.write_text('{"instruction": "a", "verdict": "' + "x" * 10**6 + '"}')
    with pytest.raises(InputError, match=r"judged\.jsonl:1") as caught:
        read_calibration(path)
    assert len(str(caught.value)) < 1000
