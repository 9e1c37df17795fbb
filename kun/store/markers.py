"""Markers of what is finished, which tell when they are damaged: `write(path, done)`, then `read(path, Done)`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from kun.store import atomic
from kun.store.digests import of_value


class Marker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`check` is the digest of the other fields, set by `write`."""

    check: str = ""


M = TypeVar("M", bound=Marker)


def write_marker(path: Path, marker: M) -> M:
    """Write the marker, last of all; gives it as it is read back."""
    marker = msgspec.json.decode(msgspec.json.encode(marker), type=type(marker))  # 0 seconds are 0.0 when read
    checked = msgspec.structs.replace(marker, check=_check(marker))
    atomic.write(path, msgspec.json.encode(checked))
    return checked


def read_marker(path: Path, kind: type[M]) -> M | None:
    """The marker, or None where there is none as it was written: what it stood for is looked at again."""
    try:
        with atomic.naming(path):
            data = path.read_bytes()
        marker = msgspec.json.decode(data, type=kind)
    except (FileNotFoundError, ValueError):
        return None
    return marker if marker.check == _check(marker) else None


def _check(marker: Marker) -> str:
    return of_value(msgspec.structs.replace(marker, check=""))
