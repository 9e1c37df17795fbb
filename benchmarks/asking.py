"""How well stage 3 tells an instruction that asks nothing: `python benchmarks/asking.py ../shared/data`

False positives: instructions that people wrote, each with its output, or with the passage that it asks about. Caught:
what a label model without skill writes, drawn from real texts by domain: a sentence, the first and last clause of one
(as in "罗保铭，天津人。"), a heading (its longest clause up to 20 characters). Shares have 95 % Wilson intervals.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kun.checks.answers import copied
from kun.checks.asking import asks_nothing, named_twice
from kun.text.normal import split_sentences

PER_DOMAIN = 150
CLAUSE = re.compile(r"[，,；;：:]\s*")


def human(data: Path) -> Iterator[tuple[str, str, str]]:
    """(where from, instruction, output or passage)."""
    for path in sorted((data / "seeds").glob("*.jsonl")):
        for row in _lines(path):
            yield "seeds", row["instruction"], row["output"]
    for name in ("cmrc2018_trial", "drcd_dev_traditional"):
        for row in _lines(data / "gold" / f"{name}.jsonl"):
            yield from ((name, question, row["text"]) for question in row["questions"])
    folder = data / "seeds_as_people_have_them"
    for row in json.loads((folder / "01_alpaca_array_en.json").read_text()):
        yield "en", f"{row['instruction']}\n{row['input']}".strip(), row["output"]
    for row in json.loads((folder / "02_alpaca_array_zh_bilingual_keys.json").read_text()):
        yield "en", f"{row['en_instruction']}\n{row['en_input']}".strip(), row["en_output"]
    for row in _lines(folder / "06_seed_tasks_instances.jsonl"):
        yield "en", f"{row['instruction']}\n{row['instances'][0]['input']}".strip(), row["instances"][0]["output"]
    for row in _lines(folder / "08_messages_role_content.jsonl"):
        turns = [turn["content"] for turn in row["messages"] if turn["role"] in ("user", "assistant")]
        yield "en", turns[0], turns[1]
    for line in (folder / "12_cot_no_header.tsv").read_text().splitlines():
        question, _, explanation = line.split("\t")[:3]
        yield "en", question, explanation


def drawn(text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind, statement): one of each kind that the text has."""
    sentences = [sentence.strip() for sentence in split_sentences(text)]
    whole = [one for one in sentences if 8 <= len(one) <= 120 and one[-1] in "。." and not re.search("[?？]", text)]
    if not whole:
        return
    sentence = rng.choice(whole)
    yield "sentence", sentence
    clauses = CLAUSE.split(sentence)
    if len(clauses) > 2 and len(clauses[0]) + len(clauses[-1]) >= 8:
        yield "first and last clause", f"{clauses[0]}，{clauses[-1]}"
    if headings := [clause.rstrip("。.") for clause in clauses if 5 <= len(clause) <= (60 if clause.isascii() else 20)]:
        yield "heading", max(headings, key=len)


def main() -> None:
    data, rng = Path(sys.argv[1]), random.Random(7)
    asked: Counter[str] = Counter()
    nothing: Counter[str] = Counter()
    twice: Counter[str] = Counter()
    for where, instruction, text in human(data):
        asked[where] += 1
        nothing[where] += asks_nothing(instruction, text)
        twice[where] += named_twice(instruction) is not None
    print("instructions of people\ttaken for asking nothing\tfor naming an item twice")
    for where, count in asked.items():
        print(f"{where} {count:,}\t{_share(nothing[where], count)}\t{_share(twice[where], count)}")
    found: Counter[tuple[str, str]] = Counter()
    caught: Counter[tuple[str, str]] = Counter()
    for path in sorted((data / "domains").glob("*.jsonl")):
        language = "en" if path.name.startswith("en_") else "zh-hant" if path.name.startswith("trad_") else "zh-hans"
        for row in list(_lines(path))[:PER_DOMAIN]:
            for kind, statement in drawn(row["text"], rng):
                found[language, kind] += 1
                hit = asks_nothing(statement, row["text"]) or copied(statement, row["text"]) is not None
                caught[language, kind] += hit
                if "-v" in sys.argv and not hit:
                    print(f"missed\t{language}\t{kind}\t{statement}")
    print("drawn from texts\tcaught, with copies_text")
    for place, count in found.items():
        print(f"{', '.join(place)} {count:,}\t{_share(caught[place], count)}")


def _share(part: int, whole: int, z: float = 1.96) -> str:
    share = part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return f"{share:.2%} ({max(middle - half, 0):.2%} to {middle + half:.2%})"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_bytes().splitlines())


if __name__ == "__main__":
    main()
