"""The data set against its card, its lineage and, where they are there, the records: `verify_final(folder, known)`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kun.dataset import lineage
from kun.dataset.card import CARD, read_card
from kun.dataset.final import row
from kun.dataset.lineage import LINEAGE
from kun.errors import InputError
from kun.pipeline.run_folder import StepManifest
from kun.records import Polished
from kun.store import digests, shards
from kun.verify.differences import differences
from kun.verify.part import Problem
from kun.verify.run import Finding
from kun.verify.steps import Key

T = TypeVar("T")
POLISH = "stage5_polish/"
MOST_LINES = 10  # that are named of a file
UNCHECKED = "not checked against the records ({}): whether outputs, source texts and measures are theirs"
NO_DIGEST = "the card has no digest of {}: not checked against it"


class _Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instruction: str
    output: str


def verify_final(folder: Path, known: Mapping[Key, Path] | None = None, current: Iterable[Key] = ()) -> Finding:
    """The files of `final/`, line by line. `known` are the folders of a run's steps, by name and fingerprint, `current`
    the steps that plain names stand for. Without `known` the data set alone was received."""
    present = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    files, problems = _read(folder, present)
    card = read_card(folder)
    problems += [Problem(CARD, card.problem)] if card.problem else []
    made_from = lineage.made_by(folder)
    subsets = [name.removeprefix(POLISH) for name in made_from if name.startswith(POLISH)]
    told = sorted({name for name, _ in card.files})
    subsets = subsets or [name.removesuffix(".jsonl") for name in told if name.endswith(".jsonl")]
    expected = [CARD, LINEAGE, *(f"{subset}.jsonl" for subset in subsets)]
    problems += [Problem(name, "is gone") for name in expected if name not in present]
    problems += [Problem(name, "is of no subset of the data set") for name in files if _stranger(name, expected)]
    if LINEAGE in files and not made_from:
        problems.append(Problem(LINEAGE, "cannot be read"))
    for name, digest in current:
        if name.startswith(POLISH) and made_from and made_from.get(name) != digest:
            problems.append(Problem(CARD, f"the data set was not made from the present {name}"))
    sources = {subset: _source(subset, made_from, known or {}) for subset in subsets}
    differing: dict[str, list[str]] = {}
    for subset, source in sources.items():
        name = f"{subset}.jsonl"
        if name in files and (source is not None or made_from):
            differing[name] = _rows(folder, subset, source)
    whole = bool(sources) and all(sources.values())
    if made_from and whole:
        due = _records(sources, partial(_lineage_row, lineage.columns(folder)))
        differing[LINEAGE] = _first(differences(lineage.read(folder), due))
    for name, digest in sorted(card.files):
        if files.get(name, digest) != digest:
            sound = whole and not differing.get(name)  # then it is the card that is wrong
            problems.append(Problem(CARD if sound else name, f"the digest of {name} is not the one in the card"))
    problems += [Problem(name, what) for name, all_of_it in differing.items() for what in all_of_it]
    unknown = f"{LINEAGE} does not tell which they are" if not made_from else "they are not all here, or not whole"
    notes = [] if whole else [UNCHECKED.format("this folder alone was read" if known is None else unknown)]
    notes += [NO_DIGEST.format(name) for name in expected if name in files and name not in (CARD, *told)]
    rows = sum(_count(folder / f"{subset}.jsonl") for subset in subsets if f"{subset}.jsonl" in files)
    discard = sorted({problem.file for problem in problems if problem.file in present})
    state = "bad" if problems else "ok"
    return Finding("final", state, folder, StepManifest(rows=rows, kept=rows), problems, notes, discard)


def is_final(folder: Path) -> bool:
    """Whether a folder is a data set that Kun made, as far as its card or its lineage can be read."""
    return folder.is_dir() and bool(read_card(folder).files or lineage.made_by(folder))


def _read(folder: Path, names: Iterable[str]) -> tuple[dict[str, str], list[Problem]]:
    """The digests of these files, and which of them cannot be read."""
    found, problems = {}, []
    for name in names:
        try:
            found[name] = digests.of_file(folder / name)
        except OSError as error:
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
    return found, problems


def _stranger(name: str, expected: list[str]) -> bool:
    return name.endswith(".jsonl") and name not in expected


def _source(subset: str, made_by: Mapping[str, str], known: Mapping[Key, Path]) -> Path | None:
    name = f"{POLISH}{subset}"
    return known.get((name, made_by.get(name, "")))


def _rows(folder: Path, subset: str, source: Path | None) -> list[str]:
    """What is wrong with the lines of one subset, by its records or else by the instructions of the lineage."""
    with (folder / f"{subset}.jsonl").open("rb") as file:
        if source is not None:
            return _first(differences(file, _records({subset: source}, lambda record, line: row(record))))
        told = ((one["instruction"], f"row {one['id']} of {LINEAGE}") for one in lineage.read(folder, subset))
        return _first(differences(map(_instruction, file), told))


def _instruction(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Pair).instruction
    except ValueError:
        return None


def _records(sources: Mapping[str, Path | None], of: Any) -> Iterator[tuple[Any, str]]:
    """`of(record, line)` of every polished record, in the order of the data set, with the record's name."""
    for folder in sources.values():
        assert folder is not None
        indexes = shards.finished(folder)
        records = chain.from_iterable(shards.read_kept(folder, index, Polished) for index in indexes)
        yield from ((of(record, line), f"record {record.id}") for line, record in enumerate(records, 1))


def _lineage_row(columns: list[str], record: Polished, line: int) -> dict[str, Any]:
    known = lineage.row(record, line)
    return {name: known.get(name) for name in columns}


def _first(found: Iterator[tuple[int, str]]) -> list[str]:
    """The first differences in words, and how many more there are."""
    try:
        said = [f"line {line} {what}" for line, what in islice(found, MOST_LINES)]
        more = sum(1 for _ in found)
    except (InputError, OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        return [f"cannot be compared ({error})"]
    return [*said, f"{more:,} more lines are wrong"] if more else said


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
