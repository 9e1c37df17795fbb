"""A seed pair, and why a row gives none: `SeedPair(instruction="...", output="...").request`."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

Reason = Literal[
    "not_json",
    "not_csv",
    "not_utf8",
    "too_big",
    "missing_field",
    "wrong_type",
    "empty_field",
    "preference",
    "tools",
    "not_text",
    "speakers",
    "not_taught",
    "duplicate",
    "over_long",
    "follow_up",
    "own_system",
]


class SeedPair(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reply, and all that it replies to. `history`: the exchanges before, each a request and its reply."""

    instruction: str
    output: str
    input: str = ""
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()

    @property
    def request(self) -> str:
        """What the user says: the instruction and, below it, what it is about."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


class Fault(NamedTuple):
    """Why a row, or a turn of it, is not used: `reason` is counted, `detail` is about this row."""

    reason: Reason
    detail: str
