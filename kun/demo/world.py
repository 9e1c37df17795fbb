"""A small Chinese world: seeds, three corpora in their release schemas with known noise, and the gold key.

    kun demo-data --seed 7 --out data/demo          # the same as write_world(Path("data/demo"), 7)

Equal seeds give equal bytes, other seeds other names and numbers. Rows are in the order in which a reader reads them:
files by name, archive members by name, rows as written. The first occurrence of a page is prose, each later one in its
subset a "duplicate"; repeated noise keeps its kind.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun.demo.documents import headline, new_item, page
from kun.demo.genres import GENRES
from kun.demo.instructions import SPOILED_KINDS, spoiled
from kun.demo.names import NAME_CHARS, SURNAMES
from kun.demo.noise import NOISE

Row = dict[str, Any]
SUBSETS = ("wudao", "wanjuan", "skypile")
NOISE_SHARE = 0.25  # of the rows of a subset, spread evenly over the kinds
NOISE_KINDS = (*NOISE, "overlong", "duplicate")
CONTROL_SHARE = 0.04  # of the prose: pages with a chat model's control tokens in them
CLEAN_TEXTS = 6000
TAUGHT_KINDS = (*SPOILED_KINDS, "doubled", "doubled")  # a small model is slow to learn this kind
OVERLONG_CHARACTERS = 900  # well over 512 tokens, even without headers and footers


@dataclass(frozen=True)
class Page:
    """A row to write: its text, its title and its entry in the gold key."""

    text: str
    title: str
    gold: Row


def _rng(seed: int, part: str) -> random.Random:
    return random.Random(f"kun demo world {seed} {part}")


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def seed_pairs(seed: int, count: int) -> list[Row]:
    """Clean pairs, every genre equally often."""
    rng = _rng(seed, "seeds")
    items = [new_item(rng, GENRES[number % len(GENRES)]) for number in range(count)]
    rng.shuffle(items)
    return [{"instruction": item.instruction, "output": item.reply} for item in items]


def judged_instructions(seed: int, count: int, part: str, kinds: Sequence[str] = SPOILED_KINDS) -> list[Row]:
    """Rows of `instruction`, `good`, `kind`: half good, half spoiled, the `kinds` equally often, on subjects of their
    own."""
    rng = _rng(seed, part)
    rows = []
    for number in range(count):
        item = new_item(rng, GENRES[number // 2 % len(GENRES)])
        kind = "good" if number % 2 == 0 else kinds[number // 2 % len(kinds)]
        text = item.instruction if kind == "good" else spoiled(item, kind, rng)
        rows.append({"instruction": text, "good": kind == "good", "kind": kind})
    rng.shuffle(rows)
    return rows


def polish_examples(seed: int, count: int) -> list[Row]:
    """A web page, an instruction, and the clean reply with the page's own sentences.

    A quarter of the instructions ask for aspects that the page does not have: the reply keeps to the page.
    """
    rng = _rng(seed, "polish")
    items = [new_item(rng, GENRES[number % len(GENRES)]) for number in range(count)]
    rng.shuffle(items)
    rows = []
    for item in items:
        instruction = item.instruction if rng.random() < 0.75 else item.loose_instruction
        rows.append({"instruction": instruction, "text": page(item, rng, rng.random() < 0.1), "output": item.reply})
    return rows


def clean_texts(seed: int, count: int) -> list[Row]:
    """Prose of the world for a language model: half of it clean replies, half of it with a page's asides."""
    rng = _rng(seed, "clean")
    rows = []
    for number in range(count):
        item = new_item(rng)
        rows.append({"text": item.reply if number % 2 else page(item, rng)})
    return rows


def subset_pages(seed: int, subset: str, count: int) -> list[Page]:
    """The rows of one corpus, prose and noise shuffled, with their gold entries (without file and row)."""
    rng = _rng(seed, subset)
    noisy = int(count * NOISE_SHARE)
    pages: list[Page] = []
    for number in range(count - noisy):
        item = new_item(rng, GENRES[number % len(GENRES)])
        control = rng.random() < CONTROL_SHARE
        gold = {
            "kind": "prose", "genre": item.genre, "subject": item.subject, "instruction": item.instruction,
            "facts": list(item.facts), "control": control,
        }  # fmt: skip
        pages.append(Page(page(item, rng, control), headline(item, rng), gold))
    prose = [proper.text for proper in pages]
    copies = []
    for number in range(noisy):
        kind = NOISE_KINDS[number % len(NOISE_KINDS)]
        if kind == "duplicate":
            copies.append(rng.choice(pages[: len(prose)]))
            continue
        text = _overlong(rng, prose) if kind == "overlong" else NOISE[kind](rng, prose)
        gold = {"kind": kind, "genre": "", "subject": "", "instruction": "", "facts": [], "control": False}
        pages.append(Page(text, rng.choice(("", "无标题", "网页")), gold))
    pages += copies
    rng.shuffle(pages)
    return _mark_duplicates(pages)


def _overlong(rng: random.Random, prose: list[str]) -> str:
    text = ""
    while len(text) < OVERLONG_CHARACTERS:
        text += rng.choice(prose) + "\n"
    return text


def _mark_duplicates(pages: list[Page]) -> list[Page]:
    texts: set[str] = set()
    marked = []
    for proper in pages:
        again = proper.gold["kind"] == "prose" and proper.text in texts
        marked.append(Page(proper.text, proper.title, {**proper.gold, "kind": "duplicate"}) if again else proper)
        texts.add(proper.text)
    return marked


def _cut(pages: list[Page], parts: int) -> list[list[Page]]:
    size = -(-len(pages) // parts)
    return [pages[start : start + size] for start in range(0, len(pages), size)]


def _tar_gz(members: dict[str, bytes]) -> bytes:
    """An archive whose bytes depend only on its content."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def _wudao(folder: Path, pages: list[Page]) -> list[tuple[str, list[Page]]]:
    files, identity = [], 0
    for number, part in enumerate(_cut(pages, 2)):
        rows = []
        for proper in part:
            key = hashlib.md5(f"{identity} {proper.text}".encode(), usedforsecurity=False).hexdigest()
            title_key = hashlib.md5(proper.title.encode(), usedforsecurity=False).hexdigest()
            rows.append(
                {"id": identity, "uniqueKey": key, "titleUkey": title_key, "dataType": "网页", "title": proper.title,
                 "content": proper.text}
            )  # fmt: skip
            identity += 1
        file = f"part-{number:03d}.json"
        _write(folder / file, json.dumps(rows, ensure_ascii=False).encode("utf-8"))
        files.append((file, part))
    return files


def _wanjuan(folder: Path, pages: list[Page]) -> list[tuple[str, list[Page]]]:
    parts = _cut(pages, 3)
    contents = [
        _lines({"id": f"BkDemo{number}{row:06d}", "content": proper.text} for row, proper in enumerate(part))
        for number, part in enumerate(parts)
    ]
    _write(folder / "part-000.jsonl", contents[0])
    members = [f"nlp/CN/WebText-cn/part-{number:03d}.jsonl" for number in range(len(parts) - 1)]
    _write(folder / "part-001.tar.gz", _tar_gz(dict(zip(members, contents[1:], strict=True))))
    return [
        ("part-000.jsonl", parts[0]),
        *((f"part-001.tar.gz/{m}", p) for m, p in zip(members, parts[1:], strict=True)),
    ]


def _skypile(folder: Path, pages: list[Page]) -> list[tuple[str, list[Page]]]:
    files = []
    for number, part in enumerate(_cut(pages, 2)):
        file = f"2023-14_zh_head_{number:04d}.jsonl"
        _write(folder / file, _lines({"text": proper.text} for proper in part))
        files.append((file, part))
    return files


WRITERS = {"wudao": _wudao, "wanjuan": _wanjuan, "skypile": _skypile}


def write_world(out: Path, seed: int, documents: int = 240, seeds: int = 600) -> None:
    """Write the world: `documents` rows per corpus, `seeds` seed pairs, as many polished texts, and 1.5 times as many
    judged instructions."""
    _write(out / "seeds.jsonl", _lines(seed_pairs(seed, seeds)))
    judged = judged_instructions(seed, seeds * 3 // 2, "judge", TAUGHT_KINDS)
    verdicts = ({"instruction": row["instruction"], "verdict": "good" if row["good"] else "bad"} for row in judged)
    _write(out / "judge.jsonl", _lines(verdicts))
    _write(out / "polish.jsonl", _lines(polish_examples(seed, seeds)))
    _write(out / "clean.jsonl", _lines(clean_texts(seed, CLEAN_TEXTS)))
    gold: list[Row] = []
    for subset in SUBSETS:
        files = WRITERS[subset](out / "corpora" / subset, subset_pages(seed, subset, documents))
        for file, part in files:
            gold += ({"subset": subset, "file": file, "row": row, **proper.gold} for row, proper in enumerate(part))
    _write(out / "gold" / "documents.jsonl", _lines(gold))
    _write(out / "gold" / "instructions.jsonl", _lines(judged_instructions(seed, 300, "gold instructions")))
    lexicon = {"name_chars": NAME_CHARS, "surnames": SURNAMES}
    _write(out / "gold" / "lexicon.json", json.dumps(lexicon, ensure_ascii=False).encode("utf-8"))
