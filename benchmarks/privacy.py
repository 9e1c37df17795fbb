"""Personal data on labelled samples and on real text; phonenumbers, the other way to find phone numbers, on the same.

    python benchmarks/privacy.py --data ../shared/data --hits 100        (pip install phonenumbers, for its column)

A sample counts as found where the very span and kind are; an ordinary one as a false positive where anything is found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kun.filters.privacy.rules import KINDS, find
from kun.text.normal import preview
from tests.filters.privacy.samples import ORDINARY, PERSONAL

Finder = Callable[[str], list[tuple[str, str]]]


def own(text: str) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text)]


def by_phonenumbers(text: str) -> list[tuple[str, str]]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    matcher = PhoneNumberMatcher(text, "CN", leniency=Leniency.VALID, max_tries=sys.maxsize)
    return [("phone", match.raw_string) for match in matcher]


def samples(name: str, finder: Finder, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        wanted = found = right = 0
        for marked in PERSONAL[kind]:
            spans = Counter((kind, one) for one in re.findall("«(.*?)»", marked))
            got = Counter(finder(re.sub("[«»]", "", marked)))
            wanted, found, right = wanted + spans.total(), found + got.total(), right + (spans & got).total()
        print(f"{name}: {kind}: {right} of {wanted}, {found - right} others")
    wrong = [text for text in ORDINARY if finder(text)]
    print(f"{name}: {len(wrong)} of {len(ORDINARY)} ordinary ones taken: {'; '.join(wrong[:20])}")


def real(data: Path) -> Iterator[tuple[str, str]]:
    for path in sorted([*(data / "corpora").glob("*/*"), *(data / "gold").glob("*"), *(data / "text").glob("*")]):
        lines = path.read_text(encoding="utf-8", errors="replace")
        rows = json.loads(lines) if path.suffix == ".json" else map(json.loads, filter(str.strip, lines.split("\n")))
        name = path.parent.name if path.parent.parent.name == "corpora" else path.stem
        yield from ((name, text) for row in rows if (text := row.get("content") or row.get("text")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder shared/data")
    parser.add_argument("--hits", type=int, default=0, help="how many hits to print, drawn by chance")
    arguments = parser.parse_args()
    samples("kun", own, KINDS)
    finders: list[tuple[str, Finder]] = [("kun", own)]
    try:
        samples("phonenumbers", by_phonenumbers, ("phone",))
        finders.append(("phonenumbers", by_phonenumbers))
    except ImportError:
        print("phonenumbers: not installed")
    texts = [*real(arguments.data)]
    for name, finder in finders:
        start, hits = time.process_time(), []
        for subset, text in texts:
            hits += [(subset, kind, part, text) for kind, part in finder(text)]
        seconds = time.process_time() - start
        print(f"{name}: {len(texts)} texts, {1e6 * seconds / len(texts):.1f} us each")
        for (subset, kind), count in sorted(Counter(hit[:2] for hit in hits).items()):
            print(f"  {subset}: {kind} {count}")
        for subset, kind, part, text in random.Random(0).sample(hits, min(arguments.hits, len(hits))):
            at = text.index(part)
            around = f"{text[max(at - 25, 0) : at]}«{part}»{text[at + len(part) : at + len(part) + 15]}"
            print(f"  {subset} {kind}: {preview(around)}".replace("\n", "⏎"))


if __name__ == "__main__":
    main()
