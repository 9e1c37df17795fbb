"""The records that flow through a run; each stage extends the last: `extend(doc, Filtered, ppl=91.2, tokens=80)`."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a text was read: file (relative to its corpus), row in it (from 0), piece of a row that was split."""

    file: str
    row: int
    piece: int = 0


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a corpus that gave no document; `text` is what could be read of it."""

    id: str
    subset: str
    text: str
    origin: Origin


class Document(Raw, frozen=True, kw_only=True):
    """A text of a corpus. `id` hashes subset, normalised text and occurrence number: stable under re-sharding."""


class Filtered(Document, frozen=True, kw_only=True, omit_defaults=True):
    """A document worth a model's time. `ppl` is None where no language model was configured; `cleaned` names what
    cleaning changed in the text (settings of `filter.clean`) and what was masked (kinds of `filter.privacy`): the text
    before is that of the document with this id."""

    ppl: float | None
    tokens: int
    cleaned: tuple[str, ...] = ()


class Labelled(Filtered, frozen=True, kw_only=True):
    instruction: str


class Scored(Labelled, frozen=True, kw_only=True):
    """`score` in [0, 1]: the share of the good verdict."""

    score: float


class Polished(Scored, frozen=True, kw_only=True):
    output: str
    faithfulness: float


class Reject(msgspec.Struct, frozen=True):
    """Why a record ends here: `reason` is a short snake_case name, counted; `detail` says it for this record."""

    reason: str
    detail: str = ""


R = TypeVar("R", bound=Raw)


def extend(record: Raw, to: type[R], **fields: Any) -> R:
    """The record as type `to`, with the fields that `to` adds."""
    return to(**msgspec.structs.asdict(record), **fields)
