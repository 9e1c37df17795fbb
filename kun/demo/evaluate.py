"""Measures of a demo run, from the gold key of its world and the rows that the run kept.

    evaluate_filter(gold_documents, kept={("wudao", "part-000.json", 0), ...})["noise_recall"]

Pure functions of plain rows. A gold row is a line of gold/documents.jsonl; a row of a run has `subset`, `file`, `row`
and the fields that the stage wrote. `kun demo-eval RUN --json` loads both and prints the result.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from kun.checks.discrimination import auc
from kun.demo.names import NAME_CHARS

Key = tuple[str, str, int]
Gold = Sequence[Mapping[str, Any]]

NAME_RUN = re.compile(f"[{NAME_CHARS}]{{2,}}")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Characters:
    """A tokenizer for rouge-score that splits into characters; the default one drops Chinese ones."""

    def tokenize(self, text: str) -> list[str]:
        return [character for character in text if not character.isspace()]


def key_of(row: Mapping[str, Any]) -> Key:
    """The place of a row in its corpus: (subset, file, row)."""
    return row["subset"], row["file"], row["row"]


def _share(part: float, whole: float) -> float:
    """part / whole; NaN where there is nothing to measure."""
    return part / whole if whole else float("nan")


def evaluate_filter(gold: Gold, kept: Collection[Key]) -> dict[str, Any]:
    """Shares in 0..1: noise dropped, prose lost, and for each kind the number of rows and the share dropped."""
    total: dict[str, int] = defaultdict(int)
    dropped: dict[str, int] = defaultdict(int)
    for row in gold:
        total[row["kind"]] += 1
        dropped[row["kind"]] += key_of(row) not in kept
    noise = [kind for kind in total if kind != "prose"]
    return {
        "noise_recall": _share(sum(dropped[kind] for kind in noise), sum(total[kind] for kind in noise)),
        "prose_loss": _share(dropped["prose"], total["prose"]),
        "kinds": {kind: {"rows": total[kind], "dropped": dropped[kind] / total[kind]} for kind in sorted(total)},
    }


def evaluate_label(gold: Gold, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Over the rows with a subject (prose, kept copies): subject named, ROUGE-L of characters to gold, 0..1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=Characters())
    by_key = {key_of(row): row for row in gold}
    named, rouge, counted = 0, 0.0, 0
    for row in rows:
        expected = by_key[key_of(row)]
        if not expected["subject"]:
            continue
        counted += 1
        named += expected["subject"] in row["instruction"]
        rouge += scorer.score(expected["instruction"], row["instruction"])["rougeL"].fmeasure
    return {"subject_named": _share(named, counted), "rouge_l": _share(rouge, counted), "rows": counted}


def evaluate_score(gold_instructions: Gold, scores: Sequence[float]) -> dict[str, Any]:
    """AUC of good against all spoiled instructions, and against each kind; `scores` in the order of the gold rows."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for row, score in zip(gold_instructions, scores, strict=True):
        by_kind["good" if row["good"] else row["kind"]].append(score)
    good = by_kind.pop("good", [])
    bad = [score for scores_of_kind in by_kind.values() for score in scores_of_kind]
    return {"auc": auc(good, bad), "kinds": {kind: auc(good, by_kind[kind]) for kind in sorted(by_kind)}}


def mentions(text: str) -> list[str]:
    """The numbers and the names (runs of name characters) in a text, in order, repeats included."""
    return NUMBER.findall(text) + NAME_RUN.findall(text)


def unsupported(output: str, source: str) -> list[str]:
    """Mentions of the output that the source does not have: numbers as whole numbers, names as substrings."""
    numbers = set(NUMBER.findall(source))
    return [m for m in mentions(output) if (m not in numbers if m[0].isdigit() else m not in source)]


def keeps(output: str, fact: str) -> bool:
    """Whether the output has the fact; a number must not be part of a longer one."""
    if NUMBER.fullmatch(fact):
        return fact in NUMBER.findall(output)
    return fact in output


def evaluate_polish(gold: Gold, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Rows with `text`, `instruction`, `output`: share of facts kept, share of mentions unsupported.

    Facts are counted over prose rows, mentions over all rows: inventions about an advert count too.
    """
    by_key = {key_of(row): row for row in gold}
    facts = kept = mentioned = invented = spotless = counted = 0
    for row in rows:
        source = f"{row['text']}\n{row['instruction']}"
        wanted = by_key[key_of(row)]["facts"]
        facts += len(wanted)
        kept += sum(keeps(row["output"], fact) for fact in wanted)
        mentioned += len(mentions(row["output"]))
        wrong = len(unsupported(row["output"], source))
        invented += wrong
        counted += 1
        spotless += wrong == 0
    return {
        "facts_kept": _share(kept, facts),
        "unsupported": invented / mentioned if mentioned else 0.0,
        "rows_unsupported": _share(counted - spotless, counted),
        "rows": counted,
    }
