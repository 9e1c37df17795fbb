"""The limit of a rule: `Bound("too_short", "at_least", 20, "characters").broken_by(7)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from kun.records import Reject

if TYPE_CHECKING:
    from kun.text.characters import Array

Side = Literal["at_least", "at_most"]


class Bound(NamedTuple):
    """An active rule: the `reason` of its rejects, and what its value means. A value equal to the limit passes."""

    reason: str
    side: Side
    limit: float
    meaning: str = ""

    def broken_by(self, value: float) -> bool:
        return value < self.limit if self.side == "at_least" else value > self.limit

    def reject(self, value: float) -> Reject:
        than = "less" if self.side == "at_least" else "more"
        return Reject(self.reason, f"{self.meaning}: {value:.5g}, {than} than {self.limit:.5g}")

    def broken(self, values: Array) -> list[int]:
        """The positions of the values beyond the limit."""
        beyond = values < self.limit if self.side == "at_least" else values > self.limit
        return [int(position) for position in beyond.nonzero()[0]]
