"""The data set against its card, its lineage and, where they are there, the records: `verify_final(folder, known)`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec

from kun.dataset import lineage
from kun.dataset.card import CARD, Card, read_card
from kun.dataset.final import row
from kun.dataset.lineage import LINEAGE
from kun.errors import InputError
from kun.pipeline.run_folder import StepManifest, read_fingerprint
from kun.records import Raw, record_type
from kun.store import digests, shards
from kun.verify.differences import differences
from kun.verify.part import Problem
from kun.verify.run import Finding
from kun.verify.steps import Key

MOST_LINES = 10  # that are named of a file
UNCHECKED = "not checked against the records ({}): whether outputs, source texts and measures are theirs"
NO_DIGEST = "the card has no digest of {}: not checked against it"


@dataclass(frozen=True)
class DataSet:
    """What there is of a data set: the digests of its files, its card, what its lineage says of it, and the folder of
    the records of each subset, None where that is not here."""

    folder: Path
    files: Mapping[str, str]
    present: Sequence[str]
    card: Card
    contents: lineage.Contents
    made_by: Mapping[str, str]
    sources: Mapping[str, Path | None]

    @property
    def expected(self) -> list[str]:
        return [CARD, LINEAGE, *(f"{subset}.jsonl" for subset in self.sources)]

    @property
    def has_records(self) -> bool:
        """Whether all rows can be compared with the records that they come from."""
        return bool(self.sources) and all(self.sources.values())


def verify_final(folder: Path, known: Mapping[Key, Path] | None = None, current: Iterable[Key] = ()) -> Finding:
    """The files of a data set, line by line. `known` are the folders of a run's steps, by name and fingerprint,
    `current` those of its rows that plain names stand for. Without `known` the data set alone was received."""
    data, unreadable = _open(folder, known or {})
    differing = _differing(data)
    problems = [
        *unreadable,
        *_files(data),
        *_outdated(data, current),
        *_digests(data, differing),
        *(Problem(name, what) for name, lines in differing.items() for what in lines),
    ]
    rows = sum(_count(folder / f"{subset}.jsonl") for subset in data.sources if f"{subset}.jsonl" in data.files)
    discard = sorted({problem.file for problem in problems if problem.file in data.present})
    counts = StepManifest(rows=rows, kept=rows)
    notes = _notes(data, alone=known is None)
    return Finding(folder.name, "bad" if problems else "ok", folder, counts, problems, notes, discard)


def _open(folder: Path, known: Mapping[Key, Path]) -> tuple[DataSet, list[Problem]]:
    present = [path.name for path in sorted(folder.iterdir()) if path.is_file()]
    files, problems = _read(folder, present)
    card, contents, made_by = read_card(folder), lineage.read_contents(folder), lineage.made_by(folder)
    steps = contents.steps or {
        name.removesuffix(".jsonl"): "" for name in sorted({name for name, _ in card.files}) if name.endswith(".jsonl")
    }
    sources = {subset: known.get((step, made_by.get(step, ""))) for subset, step in steps.items()}
    sources = {subset: source if source and _kind(source) else None for subset, source in sources.items()}
    return DataSet(folder, files, present, card, contents, made_by, sources), problems


def _kind(folder: Path) -> type[Raw] | None:
    """The type of the records in a step's folder, where it is known."""
    fingerprint = read_fingerprint(folder)
    return record_type(fingerprint.step.writes) if fingerprint else None


def _files(data: DataSet) -> Iterator[Problem]:
    """Files that are gone, strange, or cannot be understood."""
    if data.card.problem:
        yield Problem(CARD, data.card.problem)
    yield from (Problem(name, "is gone") for name in data.expected if name not in data.present)
    for name in data.files:
        if name.endswith(".jsonl") and name not in data.expected:
            yield Problem(name, "is of no subset of the data set")
    if LINEAGE in data.files and not data.made_by:
        yield Problem(LINEAGE, "cannot be read")


def _outdated(data: DataSet, current: Iterable[Key]) -> Iterator[Problem]:
    """Steps that the data set was not made from as they are now."""
    for step, digest in current if data.made_by else ():
        if data.made_by.get(step) != digest:
            yield Problem(CARD, f"the data set was not made from the present {step}")


def _differing(data: DataSet) -> dict[str, list[str]]:
    """By file, what is wrong with its lines, and with the rows of the lineage."""
    found: dict[str, list[str]] = {}
    for subset, source in data.sources.items():
        if f"{subset}.jsonl" in data.files and (source is not None or data.made_by):
            found[f"{subset}.jsonl"] = _rows(data, subset, source)
    if data.made_by and data.has_records:
        columns = lineage.columns(data.folder)
        due = _records(data.sources, lambda record, line: _lineage_row(columns, record, line))
        found[LINEAGE] = _first(differences(lineage.read(data.folder), due))
    return found


def _digests(data: DataSet, differing: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Files that are not as the card says; where their lines are right, it is the card that is wrong."""
    for name, digest in sorted(data.card.files):
        if data.files.get(name, digest) != digest:
            sound = data.has_records and not differing.get(name)
            yield Problem(CARD if sound else name, f"the digest of {name} is not the one in the card")


def _notes(data: DataSet, alone: bool) -> list[str]:
    """What could not be checked, and why."""
    notes = []
    if not data.has_records:
        why = "they are not all here, or not whole" if data.made_by else f"{LINEAGE} does not tell which they are"
        notes.append(UNCHECKED.format("this folder alone was read" if alone else why))
    named = {name for name, _ in data.card.files}
    return notes + [
        NO_DIGEST.format(name) for name in data.expected if name in data.files and name not in (CARD, *named)
    ]


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


def _rows(data: DataSet, subset: str, source: Path | None) -> list[str]:
    """What is wrong with the lines of one subset, by its records or else by the instructions of the lineage."""
    with (data.folder / f"{subset}.jsonl").open("rb") as file:
        if source is not None:
            due = _records({subset: source}, lambda record, line: row(record, data.contents.fields))
            return _first(differences(file, due))
        told = ((one["instruction"], f"row {one['id']} of {LINEAGE}") for one in lineage.read(data.folder, subset))
        return _first(differences((_instruction(line, data.contents.fields) for line in file), told))


def _instruction(line: bytes, fields: Collection[str]) -> str | None:
    """The instruction of a row; None where it is no object of these fields, which are texts."""
    try:
        found = msgspec.json.decode(line, type=dict[str, str])
    except ValueError:
        return None
    return found.get("instruction") if set(found) == set(fields) else None


def _records(sources: Mapping[str, Path | None], of: Any) -> Iterator[tuple[Any, str]]:
    """`of(record, line)` of every record, in the order of the data set, with the record's name."""
    for folder in sources.values():
        assert folder is not None
        kind = _kind(folder) or Raw
        records = chain.from_iterable(shards.read_kept(folder, index, kind) for index in shards.order(folder))
        yield from ((of(record, line), f"record {record.id}") for line, record in enumerate(records, 1))


def _lineage_row(columns: list[str], record: Raw, line: int) -> dict[str, Any]:
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
