"""Decontamination on real text: `python benchmarks/decontaminate.py --data ../shared/data`.

How many documents have a stretch of an evaluation at each length of n-gram (the corpora and the evaluations are of
other sources, so that every hit is one by chance), with the longest of them; how much of the text that is planted is
found, as it is and in other spellings; and what a document costs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kun.config.schema import Corpus, Decontaminate
from kun.corpora import read_corpus
from kun.filters.decontamination.ngrams import Index, Overlap, build, open_index
from kun.text.normal import normalise

EVALUATIONS = (
    "gold/cmrc2018_trial.jsonl",
    "gold/drcd_dev_traditional.jsonl",
    "gold/csl_title_dev.jsonl",
    "seeds/dev.jsonl",
    "seeds/heldin.jsonl",
)
SHARD = 1000
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    corpora = {name: documents(data, name) for name in ("wudao", "wanjuan", "skypile")}
    corpora["prose"] = [normalise(json.loads(line)["text"]) for line in (data / "text/prose_zh.jsonl").open("rb")]
    print("documents:", {name: len(texts) for name, texts in corpora.items()})
    for ngram in (10, 13, 16, 18, 20, 25):
        with tempfile.TemporaryDirectory() as folder:
            index = index_of(data, Path(folder), ngram)
            hits = {name: [o for o in find(index, texts) if o] for name, texts in corpora.items()}
            longest = max((o.text for found in hits.values() for o in found), key=len, default="none")
            print(f"ngram {ngram}:", {name: len(found) for name, found in hits.items()}, "the longest:", longest)
            if ngram == Decontaminate().ngram:
                size = sum(path.stat().st_size for path in Path(folder).iterdir())
                print(f"{index.info}: {size / 1e6:.1f} MB, {size / index.info.ngrams:.1f} bytes per n-gram")
                planted(data, index, corpora["prose"][:5000])
                cost(index, corpora)


def documents(data: Path, name: str) -> list[str]:
    corpus = Corpus.model_validate({"paths": [str(data / "corpora" / name)], "format": name})
    return [normalise(row.text) for row in read_corpus(name, corpus) if row.reject is None]


def index_of(data: Path, folder: Path, ngram: int) -> Index:
    start = time.perf_counter()
    build(Decontaminate(files=tuple(str(data / name) for name in EVALUATIONS), ngram=ngram), folder)
    print(f"index in {time.perf_counter() - start:.1f} s")
    open_index.cache_clear()
    return open_index(folder)


def find(index: Index, texts: list[str]) -> list[Overlap | None]:
    return [hit for start in range(0, len(texts), SHARD) for hit in index.find(texts[start : start + SHARD])]


def planted(data: Path, index: Index, hosts: list[str]) -> None:
    """Whole texts of the evaluations and parts of 60 characters, put into clean documents at random places."""
    import opencc

    draw = random.Random(7)
    to_traditional, to_simplified = opencc.OpenCC("s2t").convert, opencc.OpenCC("t2s").convert
    spellings: dict[str, Callable[[str], str]] = {
        "as it is": str,
        "traditional": to_traditional,
        "simplified": to_simplified,
        "full width": lambda text: text.translate(FULL_WIDTH),
        "lines of 17 characters": lambda text: "\n".join(text[i : i + 17] for i in range(0, len(text), 17)),
        "one character in 15 changed": lambda text: "".join("某" if i % 15 == 7 else c for i, c in enumerate(text)),
    }
    texts = [json.loads(line)["text"] for name in EVALUATIONS[:3] for line in (data / name).open("rb")]
    for spelling, spell in spellings.items():
        shares = []
        for size in (60, 100_000):
            made = []
            for text in texts:
                start, host = draw.randint(0, max(len(text) - size, 0)), draw.choice(hosts)
                at = draw.randint(0, len(host))
                made.append(f"{host[:at]}\n{spell(text[start : start + size])}\n{host[at:]}")
            shares.append(sum(hit is not None for hit in find(index, made)) / len(made))
        print(f"planted, {spelling}: {shares[0]:.2%} of parts, {shares[1]:.2%} of whole texts found, of {len(texts)}")


def cost(index: Index, corpora: dict[str, list[str]]) -> None:
    for name, texts in corpora.items():
        size = sum(map(len, texts)) / len(texts)
        for shard in (1, SHARD):
            times = []
            for _ in range(3):
                start = time.perf_counter()
                for first in range(0, len(texts), shard):
                    index.find(texts[first : first + shard])
                times.append((time.perf_counter() - start) / len(texts) * 1e6)
            print(f"{name} ({size:.0f} characters), {shard} at a time: {statistics.median(times):.1f} us per document")


if __name__ == "__main__":
    main()
