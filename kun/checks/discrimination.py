"""Whether scores tell good from bad: `auc(good, bad)`, `spread(scores)`, and the warnings where they do not."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import isnan
from statistics import median

CHANCE, CLEAR = 0.7, 0.9  # AUC: below the one a judge is near chance (0.5), from the other on it discriminates
NARROW = 0.1  # nine of ten scores within so little: no cut divides them
REMEDY = (
    "set seeds.judge to auto, or to a file of judged instructions (with more of them, if it is one), and train again; "
    "or take another base"
)


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """The probability that a random good score exceeds a random bad one; ties count half. NaN where one is empty."""
    ordered = sorted(bad)
    wins = sum(bisect_left(ordered, score) + bisect_right(ordered, score) for score in good) / 2
    return wins / (len(good) * len(bad)) if good and bad else float("nan")


def on_copies(scores: Mapping[str, Sequence[float]]) -> dict[str, object]:
    """What is told of the scores of a trial, by kind of spoiling; those of the instructions themselves are `good`."""
    good = scores.get("good", ())
    spoiled = {kind: auc(good, some) for kind, some in scores.items() if kind != "good" and some}
    if not good or not spoiled:
        return {
            "instructions": len(good),
            "warning": "no spoiled copies: nothing is known of the judge; give more seeds",
        }
    bad = [score for kind in spoiled for score in scores[kind]]
    area, worst = auc(good, bad), min(spoiled, key=lambda kind: spoiled[kind])
    report: dict[str, object] = {"instructions": len(good), "spoiled copies": len(bad), "AUC": round(area, 3)}
    report |= {"weakest": f"{worst} {spoiled[worst]:.3f}"}
    report |= {"median score": f"{median(good):.3f}, of spoiled ones {median(bad):.3f}"}
    if area < CHANCE:
        report["warning"] = (
            f"the judge does not tell instructions from spoiled copies of them: AUC {area:.2f}, chance is 0.50; the "
            f"scores of stage 4 say little; {REMEDY}"
        )
    return report


def spread(scores: Sequence[float], area: float | None) -> dict[str, object]:
    """The percentiles of the scores of a subset. `area`: the AUC of the judge on spoiled copies, if it is known."""
    if not scores:
        return {"scores": 0}
    ordered = sorted(scores)
    low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95))
    report: dict[str, object] = {"scores": len(scores), "5 %": round(low, 4), "median": round(middle, 4)}
    report |= {"95 %": round(high, 4), "lowest": round(ordered[0], 4), "highest": round(ordered[-1], 4)}
    if high - low < NARROW and (area is None or area < CLEAR):
        known = "is not known" if area is None else f"is {area:.2f}"
        report["warning"] = (
            f"the scores hardly differ, nine of ten lie between {low:.2f} and {high:.2f}, and the judge's AUC on "
            f"spoiled copies {known}: a cut divides by chance; {REMEDY}"
        )
    return report


def agreement(scores: Sequence[tuple[float, bool]], lowest: float) -> dict[str, object]:
    """How the scores agree with the verdicts of people, at a cut."""
    if not scores:
        return {}
    agreed = sum((score >= lowest) == is_good for score, is_good in scores) / len(scores)
    report: dict[str, object] = {"agreement": round(agreed, 3)}
    area = auc([score for score, good in scores if good], [score for score, good in scores if not good])
    if isnan(area):
        return report
    report["AUC"] = round(area, 3)
    if area < CHANCE:
        report["warning"] = (
            f"the judge does not agree with the calibration file: AUC {area:.2f}, chance is 0.50; {REMEDY}"
        )
    return report
