"""The cut-off for the scores of a subset: `cut(scores, config.score, calibration)`.

It depends on the scores alone, so another selection needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kun.config.schema import Score
from kun.corpora.files import numbered_lines
from kun.errors import InputError
from kun.text.normal import preview


class CalibrationRow(msgspec.Struct, frozen=True):
    """A line of the calibration file."""

    instruction: str
    verdict: str


def cut(scores: Sequence[float], settings: Score, calibration: Sequence[tuple[float, bool]] = ()) -> float:
    """The lowest score that is kept. best_f1 needs `calibration` (score, is good), top_share the subset's `scores`."""
    match settings.select:
        case "threshold":
            return settings.threshold
        case "top_share":
            return top_share(scores, settings.top_share)
        case "best_f1":
            return best_f1(calibration)


def top_share(scores: Sequence[float], share: float) -> float:
    """The lowest score within the best share (rounded up); records with an equal score are all kept."""
    if not scores:
        return 0.0
    return sorted(scores, reverse=True)[math.ceil(share * len(scores) - 1e-9) - 1]


def best_f1(calibration: Sequence[tuple[float, bool]]) -> float:
    """The cut with the best F1 for the good verdict, halfway to the next lower score; of equal ones, the strictest."""
    goods = sum(is_good for _, is_good in calibration)
    if not 0 < goods < len(calibration):
        raise InputError("score.calibration: needs both good and bad instructions that got a score")
    ranked = sorted(calibration, reverse=True)
    best, limit, correct = -1.0, 0.0, 0
    for place, (score, is_good) in enumerate(ranked, start=1):
        correct += is_good
        below = ranked[place][0] if place < len(ranked) else 0.0
        f1 = 2 * correct / (place + goods)
        if (below < score or place == len(ranked)) and f1 > best:
            best, limit = f1, (score + below) / 2
    return limit


def read_calibration(path: Path) -> list[tuple[str, bool]]:
    """The judged instructions of a JSON lines file: (instruction, is good). InputError names the bad line."""
    judged = []
    for number, line in numbered_lines(path, "score.calibration"):
        try:
            row = msgspec.json.decode(line, type=CalibrationRow)
        except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
            raise InputError(f"score.calibration: {path}:{number}: {error}") from None
        if row.verdict not in ("good", "bad"):
            raise InputError(
                f"score.calibration: {path}:{number}: verdict must be good or bad, not {preview(row.verdict)!r}"
            )
        judged.append((row.instruction, row.verdict == "good"))
    return judged
