"""The records that flow through a run; each stage adds fields: `extend(document, Filtered, ppl=91.2, tokens=80)`."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a text came from: file (relative to its corpus), row in it (from 0), piece of the row if it was split."""

    file: str
    row: int
    piece: int = 0


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a corpus, as far as it could be read; also one that yields no document."""

    id: str
    subset: str
    text: str
    origin: Origin


class Document(Raw, frozen=True, kw_only=True):
    """A text of a corpus. `id` hashes subset, normalised text and occurrence number: stable under re-sharding."""


class Filtered(Document, frozen=True, kw_only=True, omit_defaults=True):
    """A document worth a model's time. `ppl` is None where no language model was configured; `cleaned` names the
    changes to the text (settings of `filter.clean`) and what was masked (kinds of `filter.privacy`). The original text
    is that of the document with this id."""

    ppl: float | None
    tokens: int
    cleaned: tuple[str, ...] = ()


class Labelled(Filtered, frozen=True, kw_only=True):
    instruction: str


class Scored(Labelled, frozen=True, kw_only=True):
    """`score` in [0, 1]: the probability of the good verdict."""

    score: float


class Polished(Scored, frozen=True, kw_only=True):
    output: str
    faithfulness: float


class Reject(msgspec.Struct, frozen=True):
    """Why a record ends here: `reason` is a short snake_case name, which is counted; `detail` explains this case."""

    reason: str
    detail: str = ""


R = TypeVar("R", bound=Raw)


def extend(record: Raw, to: type[R], **fields: Any) -> R:
    """The record as type `to`, which adds `fields`."""
    return to(**msgspec.structs.asdict(record), **fields)


def record_type(name: str) -> type[Raw] | None:
    """The record type with this name; None if no imported module defines it."""
    known: list[type[Raw]] = [Raw]
    for kind in known:
        if kind.__name__ == name:
            return kind
        known += kind.__subclasses__()
    return None
