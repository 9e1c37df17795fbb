"""Stage 2 on the real text of ../shared/data: noise caught, prose lost, documents per second.

    python benchmarks/filter_real_text.py --data ../shared/data

The language model is estimated from text/prose_zh.jsonl. What is counted, per subset, against corpora/noise_key.jsonl:
rows that are dropped for their length (reason too_short or too_long) are left out of both shares; `noise caught` is the
share of rows of kind noise that are rejected for any other reason; `prose lost` is the share of all other rows
(special_tokens among them, rows of kind duplicate and rows rejected as exact duplicates left out) that are rejected. A
second table says of each rule how many rows it is against, and how many it alone drops. With --cost the cost of each
part of the filter is measured on one core, against bare `kenlm.Model.score` on prepared text.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as `kun` does: one core

sys.path.insert(0, str(Path(__file__).parents[1]))

from kun.config.schema import Config
from kun.corpora import read_corpus
from kun.corpora.ingest import counted, documents, items
from kun.filters import length, quality
from kun.filters.clean import clean
from kun.filters.perplexity import lm
from kun.filters.perplexity.lmplz import make
from kun.filters.perplexity.text import kun_characters
from kun.filters.rules import measure, open_filter
from kun.records import Document, Filtered, Origin, Raw, Reject
from kun.text.characters import Characters, count

LENGTH = ("too_short", "too_long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--base", help="model folder whose tokenizer counts; default: that of the demo's base model")
    parser.add_argument("--lm", type=Path, help="artefact to use, or to make where there is none")
    parser.add_argument("--ppl-min", default=Config().filter.ppl_min)
    parser.add_argument("--ppl-max", default=Config().filter.ppl_max)
    parser.add_argument("--cost", action="store_true", help="measure the cost of each part of the filter as well")
    parser.add_argument("--max-tokens", type=int, default=Config().filter.max_tokens)
    parser.add_argument("--show", type=int, default=0, help="so many wrong decisions of each kind are printed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = arguments.base or demo_tokenizer(Path(scratch) / "base")
        config = configuration(arguments, base)
        model = arguments.lm or Path(scratch) / "lm"
        if not (model / "lm.json").is_file():
            start = time.perf_counter()
            make(config.filter.lm, model)
            print(f"language model: {time.perf_counter() - start:.0f} s, {size(model) / 1e6:.0f} MB", file=sys.stderr)
        print("| subset | rows | noise caught | prose lost | special tokens kept | duplicates found | by length |"
              " limits | documents/s |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|")
        rules = [report(subset, config, model, arguments) for subset in config.corpora]
        print(table(rules, [*config.corpora]))
        if arguments.cost:
            for subset in config.corpora:
                print(cost(subset, config, model))


def configuration(arguments: argparse.Namespace, base: str) -> Config:
    corpora = arguments.data / "corpora"
    if not corpora.is_dir():
        sys.exit(f"no folder {corpora}")
    return Config.model_validate(
        {
            "base_model": base,
            "corpora": {n: {"paths": [str(corpora / n)], "format": n} for n in ("wudao", "wanjuan", "skypile")},
            "filter": {
                "lm": {"estimate_from": str(arguments.data / "text/prose_zh.jsonl")},
                "ppl_min": limit(arguments.ppl_min),
                "ppl_max": limit(arguments.ppl_max),
                "max_tokens": arguments.max_tokens,
            },
        }
    )


def limit(value: str | float | None) -> str | float | None:
    return None if value in (None, "none") else value if str(value)[0] in "px" else float(value)


def demo_tokenizer(folder: Path) -> str:
    from kun.demo.tokens import build_tokenizer

    build_tokenizer().save_pretrained(folder)
    return str(folder)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


Against = Counter[tuple[str, str, str]]  # reason, kind, "any" or "alone"


def report(subset: str, config: Config, model: Path, arguments: argparse.Namespace) -> Against:
    kinds = kinds_of(subset, config, arguments.data / "corpora" / "noise_key.jsonl")
    rows = ingested(subset, config)
    read_in = [outcome for _, outcome in rows if isinstance(outcome, Document)]
    limits, _ = measure(config, read_in, model)
    judge = open_filter(config, model, limits)
    start = time.perf_counter()
    judged = [outcome for part in parts(read_in) for outcome in judge(part)]
    seconds = time.perf_counter() - start
    verdicts = dict(zip([document.id for document in read_in], judged, strict=True))

    counts: Counter[tuple[str, str]] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    texts = {document.id: document.text for document in read_in}
    twins = Counter(outcome.detail for _, outcome in rows if isinstance(outcome, Reject))
    for raw, outcome in rows:
        kind = kinds.get(raw.origin, "prose")
        final = verdicts.get(raw.id, outcome)
        reason = "kept" if isinstance(final, Filtered) else final.reason if isinstance(final, Reject) else "?"
        found = reason == "duplicate" or twins[raw.id] > 0 or reason in LENGTH
        counts[kind, ("found" if found else "missed") if kind == "duplicate" else reason] += 1
        wrong = (kind == "noise") == (reason == "kept") and kind != "duplicate"
        if wrong and reason not in (*LENGTH, "duplicate") and shown[kind, reason] < arguments.show:
            shown[kind, reason] += 1
            print(f"    {kind} {reason} {texts.get(raw.id, raw.text)[:100]!r}", file=sys.stderr)
    print(row(subset, counts, len(rows), limits, len(read_in) / seconds))
    print(subset, dict(sorted(counts.items())), file=sys.stderr)
    against: Against = Counter()
    for document in read_in:
        reasons, kind = judge.broken(document), "noise" if kinds.get(document.origin) == "noise" else "prose"
        against.update((reason, kind, "any") for reason in reasons)
        against.update((reason, kind, "alone") for reason in reasons if len(reasons) == 1)
    return against


def ingested(subset: str, config: Config) -> list[tuple[Raw, Document | Reject]]:
    texts = list(items(read_corpus(subset, config.corpora[subset])))
    return list(documents(subset, texts, counted(texts)))


def parts(whole: list[Any]) -> Iterator[list[Any]]:
    """Shards of the usual size."""
    yield from (whole[start : start + 1000] for start in range(0, len(whole), 1000))


def table(rules: list[Against], subsets: list[str]) -> str:
    """Rows that a rule is against, and in brackets those that it alone drops: noise, prose."""
    head = " | ".join(f"{subset}: noise | prose" for subset in subsets)
    lines = [f"\n| rule | {head} |", "|---" * (1 + 2 * len(subsets)) + "|"]
    for reason in dict.fromkeys(reason for against in rules for reason, _, _ in sorted(against)):
        cells = [
            f"{against[reason, kind, 'any']} ({against[reason, kind, 'alone']})"
            for against in rules
            for kind in ("noise", "prose")
        ]
        lines.append(f"| `{reason}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cost(subset: str, config: Config, model: Path) -> str:
    """Microseconds of processor time per document, best of ten rounds, of rows that no rule of length drops."""
    documents_in = [d for _, d in ingested(subset, config) if isinstance(d, Document)]
    chosen = [d for d in documents_in if config.filter.min_chars <= len(d.text) <= config.filter.max_tokens][:3000]
    texts = [document.text for document in chosen]
    rules = open_filter(config, model)
    lines = [kun_characters(text) for text in texts]
    score = lm.load(model / lm.read_info(model).model.path).score
    longest = config.filter.max_tokens
    counter = length.batch_counter(rules.tokenizer)
    counted = [count(texts[n : n + 96]) for n in range(0, len(texts), 96)]
    work: dict[str, Callable[[], object]] = {
        "cleaning": lambda: [clean(text, config.filter.clean) for text in texts],
        "counting characters": lambda: [count(texts[n : n + 96]) for n in range(0, len(texts), 96)],
        **{rule.reason: partial(each, rule.measure, counted) for rule in quality.RULES},
        "all rules of quality": lambda: [quality.measure(part) for part in parts(texts)],
        "counting tokens": lambda: [length.count_up_to(counter, part, longest) for part in parts(texts)],
        "characters for the model": lambda: [kun_characters(text) for text in texts],
        "bare score": lambda: [score(line) for line in lines],
        "the whole filter": lambda: [rules(part) for part in parts(chosen)],
    }
    rounds = [{name: timed(task) for name, task in work.items()} for _ in range(10)]
    best = {name: min(times[name] for times in rounds) / len(texts) * 1e6 for name in work}
    rows = "\n".join(f"| {name} | {micros:.1f} |" for name, micros in best.items())
    ratio = best["bare score"] / best["the whole filter"]
    average = sum(map(len, texts)) / len(texts)
    return f"\n{subset}, {average:.0f} characters, ratio {ratio:.2f}\n| part | us per document |\n|---|---|\n{rows}"


def each(measure: Callable[[Characters], object], counted: list[Characters]) -> list[object]:
    return [measure(part) for part in counted]


def timed(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def kinds_of(subset: str, config: Config, key: Path) -> dict[Origin, str]:
    """Kind of a row by its origin; the key numbers rows over the files of a subset."""
    rows = [row.origin for row in read_corpus(subset, config.corpora[subset])]
    lines = [json.loads(line) for line in key.read_bytes().splitlines()]
    return {rows[line["row"]]: line["kind"] for line in lines if line["subset"] == subset}


def row(subset: str, counts: Counter[tuple[str, str]], rows: int, limits: tuple[float | None, ...], rate: float) -> str:
    def total(kinds: tuple[str, ...], without: tuple[str, ...]) -> int:
        return sum(n for (kind, reason), n in counts.items() if kind in kinds and reason not in without)

    def share(kinds: tuple[str, ...], without: tuple[str, ...]) -> str:
        of = total(kinds, without)
        return f"{total(kinds, (*without, 'kept')) / max(of, 1):.1%} of {of}"

    prose, special = ("prose", "special_tokens"), counts["special_tokens", "kept"]
    twins = f"{counts['duplicate', 'found']} of {total(('duplicate',), ())}"
    length = sum(n for (_, reason), n in counts.items() if reason in LENGTH) / rows
    numbers = " to ".join("none" if number is None else f"{number:.1f}" for number in limits)
    kept = f"{special} of {total(('special_tokens',), LENGTH)}"
    noise = share(("noise",), LENGTH)
    lost = share(prose, (*LENGTH, "duplicate"))
    return f"| {subset} | {rows} | {noise} | {lost} | {kept} | {twins} | {length:.1%} | {numbers} | {rate:.0f} |"


if __name__ == "__main__":
    main()
