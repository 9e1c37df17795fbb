"""Near-duplicates, measured: found and false pairs, documents per second, memory.

    python benchmarks/near_duplicates.py found                      # pairs of a known Jaccard similarity
    python benchmarks/near_duplicates.py cost --documents 200000    # time, memory, disk; --method datasketch to compare

Texts are those of --texts (JSON lines with `text`), or pages of the demo world. Pairs are planted: spans of a text are
replaced by spans of another one until the n-grams that both have are the wanted share, counted exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kun.demo.documents import new_item, page
from kun.filters.duplicates import near_duplicates, signatures
from kun.filters.duplicates.near_duplicates import Indexed
from kun.records import Filtered, Origin
from kun.store import shards

SHARD = 1000
LEVELS = [round(0.5 + 0.05 * step, 2) for step in range(10)]
NOT_WORD = re.compile(r"[\W_]+")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("found", "cost"))
    parser.add_argument("--texts", type=Path, default=Path("../shared/data/text/prose_zh.jsonl"))
    parser.add_argument("--limit", type=float, default=0.7, help="filter.near_duplicates (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=300, help="found: pairs of each similarity")
    parser.add_argument("--documents", type=int, default=20_000, help="cost: documents")
    parser.add_argument("--method", choices=("kun", "datasketch"), default="kun")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    {"found": found, "cost": cost}[arguments.what](arguments)


def texts_of(path: Path) -> list[str]:
    """Texts of 100 characters and more."""
    if path.exists():
        texts = [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    else:
        print(f"{path} is not here: pages of the demo world", file=sys.stderr)
        rng = random.Random(7)
        texts = [page(new_item(rng), rng) for _ in range(10_000)]
    return [text for text in texts if len(text) >= 100]


def grams(text: str) -> set[str]:
    """The n-grams of a text, by other means than those of kun.filters.duplicates.signatures."""
    plain = NOT_WORD.sub("", unicodedata.normalize("NFKC", text).lower())
    return {plain[start : start + signatures.GRAM] for start in range(len(plain) - signatures.GRAM + 1)}


def jaccard(one: str, other: str) -> float:
    a, b = grams(one), grams(other)
    return len(a & b) / max(len(a | b), 1)


def altered(text: str, other: str, level: float, rng: random.Random) -> str:
    """The text with spans of another one in it, so many that the similarity is `level` or a little more."""
    while True:
        size, new = rng.randint(3, 12), text
        while jaccard(text, new) >= level:
            last = new
            place, source = rng.randrange(len(new)), rng.randrange(max(len(other) - size, 1))
            new = new[:place] + other[source : source + size] + new[place + size :]
        if level <= jaccard(text, last) < level + 0.02:
            return last


def write(folder: Path, subset: str, texts: Iterator[str] | list[str]) -> dict[str, str]:
    """A subset as stage 2 leaves it; the texts by id."""
    by_id: dict[str, str] = {}
    records: list[Filtered] = []

    def publish() -> None:
        keys = [*shards.order(folder), f"{len(shards.order(folder)):05d}"]
        shards.publish(folder, keys[-1], [(record, record) for record in records], rows=len(records), source={})
        (folder / "done.json").write_bytes(msgspec.json.encode({"shards": keys}))
        records.clear()

    for row, text in enumerate(texts):
        name = f"{subset}{row:019x}"
        by_id[name] = text
        origin = Origin("texts.jsonl", row)
        records.append(Filtered(id=name, subset=subset, text=text, origin=origin, ppl=None, tokens=len(text)))
        if len(records) == SHARD:
            publish()
    if records:
        publish()
    return by_id


def found(arguments: argparse.Namespace) -> None:
    """Originals in subset a; copies in subset b, half of them twice, and half of the originals there as well."""
    rng = random.Random(11)
    texts = texts_of(arguments.texts)
    rng.shuffle(texts)
    planted = [(level, texts.pop(), texts.pop()) for level in LEVELS for _ in range(arguments.pairs)]
    pairs = [(level, text, altered(text, other, level, rng)) for level, text, other in planted]
    within = [pair for number, pair in enumerate(pairs) if number % 2]
    across = [pair for number, pair in enumerate(pairs) if not number % 2]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        by_id = write(folder / "a", "a", [*texts, *(text for _, text, _ in across)])
        by_id |= write(folder / "b", "b", [side for _, *both in within for side in both] + [new for *_, new in across])
        matches: dict[str, str] = {}
        subsets: list[Indexed] = []
        for subset in ("a", "b"):
            index = folder / f"index-{subset}"
            index.mkdir()
            subsets.append(Indexed(subset, folder / subset, index))
            print(subset, near_duplicates.build(subsets, arguments.limit, arguments.workers))
            dropped, kept = np.load(index / "dropped.npy"), np.load(index / "matches.npy")
            for name, match in zip(dropped.tolist(), kept.tolist(), strict=True):
                matches[name.decode()] = match[1].decode()
    dropped_texts = {by_id[name] for name in matches}
    bands = signatures.bands(arguments.limit)
    print(f"limit {arguments.limit}, {bands.count} bands of {bands.rows}")
    print("| true similarity | pairs | found |\n|---|---|---|")
    for low in LEVELS:
        exact = [(jaccard(text, new), new) for level, text, new in pairs if level == low]
        hits = sum(new in dropped_texts for _, new in exact)
        high = max(similarity for similarity, _ in exact)
        print(f"| {low:.2f} to {high:.2f} | {len(exact)} | {hits / len(exact):.1%} |")
    near = [new for level, _, new in pairs if level >= 0.8]
    print(f"found of {len(near)} pairs at 0.8 and more: {sum(new in dropped_texts for new in near) / len(near):.2%}")
    true = [jaccard(by_id[name], by_id[kept]) for name, kept in matches.items()]
    print(
        f"reported pairs: {len(true)}, below 0.5: {sum(j < 0.5 for j in true) / len(true):.2%}, lowest {min(true):.3f}"
    )
    slots = signatures.sign([text for _, *both in pairs for text in both])
    errors = (slots[::2] == slots[1::2]).mean(axis=1) - [jaccard(text, new) for _, text, new in pairs]
    print(f"estimates of {signatures.SLOTS} slots: error {errors.mean():+.4f}, standard deviation {errors.std():.4f}")


def synthetic(count: int, sentences: list[str], rng: random.Random) -> Iterator[str]:
    """Pages of eight sentences of real text in random order; every twentieth is an earlier one with a word changed."""
    recent: list[str] = []
    for number in range(count):
        if number % 20 == 19:
            text = rng.choice(recent)
            place = rng.randrange(len(text))
            yield text[:place] + "改了" + text[place + 2 :]
        else:
            text = "".join(rng.sample(sentences, 8))
            recent.append(text)
            del recent[:-5000]
            yield text


def cost(arguments: argparse.Namespace) -> None:
    """Each measurement in a process of its own; the second of Kun finds all signed, and is the search alone."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chars = alone(prepare, arguments.texts, folder, arguments.documents)
        (folder / "index").mkdir()
        method = {"kun": of_kun, "datasketch": of_datasketch}[arguments.method]
        for name in ("signing and search", "search") if arguments.method == "kun" else ("all",):
            seconds, before, after, report = alone(method, folder, arguments.limit, arguments.workers)
            print(
                f"{arguments.method}, {name}: {arguments.documents} documents of {chars:.0f} characters, {report}: "
                f"{seconds:.1f} s of processor time, {arguments.documents / seconds:.0f} documents a second, "
                f"peak {after:.0f} MB, {before:.0f} of them before the first document"
            )
        disk = sum(path.stat().st_size for path in folder.glob("index/*"))
        print(f"disk: {disk / arguments.documents:.0f} bytes a document")


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def prepare(texts: Path, folder: Path, count: int) -> float:
    """Write the documents; their mean length in characters."""
    sentences = [part for text in texts_of(texts) for part in re.findall("[^。！？]+[。！？]", text) if len(part) > 20]
    by_id = write(folder / "source", "a", synthetic(count, list(dict.fromkeys(sentences)), random.Random(5)))
    return sum(map(len, by_id.values())) / len(by_id)


def of_kun(folder: Path, limit: float, workers: int) -> tuple[float, float, float, dict[str, int]]:
    signatures.sign(["预热"])
    start, before = cpu(), peak()
    report = near_duplicates.build([Indexed("a", folder / "source", folder / "index")], limit, workers)
    return cpu() - start, before, peak(), report


def of_datasketch(folder: Path, limit: float, workers: int) -> tuple[float, float, float, dict[str, int]]:
    """The usual way: an index in memory, each text looked up and put in."""
    import datasketch

    start, before = cpu(), peak()
    lsh = datasketch.MinHashLSH(threshold=limit, num_perm=signatures.SLOTS)
    found = 0
    for document in shards.read_all(folder / "source", Filtered):
        signature = datasketch.MinHash(signatures.SLOTS)
        signature.update_batch([gram.encode() for gram in grams(document.text)])
        if lsh.query(signature):
            found += 1
        else:
            lsh.insert(document.id, signature)
    return cpu() - start, before, peak(), {"near_duplicates": found}


def cpu() -> float:
    """Seconds of processor time, of this process and of its children; on shared cores a clock says little."""
    return sum(os.times()[:4])


def peak() -> float:
    """The most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
