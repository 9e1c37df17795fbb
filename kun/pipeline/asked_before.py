"""What a model's step knows of records already: `AskedBefore(folder, Labelled, current, pending, models)`.

A record with the same id and the same digest, which the same models were asked about, keeps its outcome: that of the
earlier version of its shard, or of any shard that is not current any more, which it may have moved from. Before a shard
is made anew, what it knows of records that left it is set aside, until `kun clean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kun.records import Raw
from kun.store import shards
from kun.store.shards import DamagedError, Outcome


@dataclass(frozen=True)
class Pending:
    """A shard that is not done. `source` has the digests of its input, by name."""

    key: str
    rows: int
    source: dict[str, str]


@dataclass
class AskedBefore:
    """`current` are the keys of the step's shards, `pending` those to be made; `models` the digests of all that decides
    an outcome but its record."""

    folder: Path
    writes: type[Raw]
    current: Sequence[str]
    pending: Sequence[Pending]
    models: Mapping[str, str]

    def settled(self, key: str, records: Sequence[Raw], digests: Sequence[str]) -> dict[str, Outcome]:
        """The outcomes of those records of a shard that were asked about before, by id; to be called once, before the
        shard is made anew."""
        wanted = {(record.id, digest): record for record, digest in zip(records, digests, strict=True)}
        known = self._rows(key)
        found = self._take(known, wanted)
        if left := [place for place in known if place not in wanted]:
            aside = shards.set_aside(self.folder, key)
            self._elsewhere.update(dict.fromkeys(left, aside))
        missing = {place: record for place, record in wanted.items() if record.id not in found}
        for other in sorted({self._elsewhere[place] for place in missing if place in self._elsewhere} - {key}):
            found |= self._take(self._rows(other), missing)
        return found

    def _take(
        self, known: Mapping[tuple[str, str], dict[str, Any]], wanted: Mapping[tuple[str, str], Raw]
    ) -> dict[str, Outcome]:
        return {
            place[0]: shards.settle(wanted[place], row, self.writes) for place, row in known.items() if place in wanted
        }

    def _rows(self, key: str) -> dict[tuple[str, str], dict[str, Any]]:
        """What a shard knows, by id and digest of the record; nothing where other models gave it, or it is damaged."""
        try:
            done = shards.marker(self.folder, key)
            if done is None or any(done.source.get(name) != content for name, content in self.models.items()):
                return {}
            return {(row["id"], digest): row for digest, row in shards.answers(self.folder, key)}
        except DamagedError:
            return {}

    @cached_property
    def _elsewhere(self) -> dict[tuple[str, str], str]:
        """By id and digest of a record, the shard that knows it and is not current, or not any more."""
        made = set(self.current) - {shard.key for shard in self.pending}
        old = sorted(shards.finished(self.folder) - made)
        return {place: key for key in old for place in self._rows(key)}
