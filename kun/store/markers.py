"""Markers of finished work, whose damage is detected: `write_marker(path, done)`, `read_marker(path, Done)`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from kun.store import atomic
from kun.store.digests import of_value


class Marker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`check` is the digest of the other fields, set by `write_marker`."""

    check: str = ""


M = TypeVar("M", bound=Marker)


def checked(marker: M) -> M:
    """The marker as it is read back, with its `check`."""
    marker = msgspec.json.decode(msgspec.json.encode(marker), type=type(marker))  # 0 seconds are 0.0 when read
    return msgspec.structs.replace(marker, check=_check(marker))


def write_marker(path: Path, marker: M) -> M:
    """Write the marker, after everything it stands for; return it as it is read back."""
    marker = checked(marker)
    atomic.write(path, msgspec.json.encode(marker))
    return marker


def read_marker(path: Path, kind: type[M]) -> M | None:
    """The marker, or None where it is missing or damaged; then what it stands for is checked again."""
    try:
        with atomic.naming(path):
            data = path.read_bytes()
        marker = msgspec.json.decode(data, type=kind)
    except (FileNotFoundError, ValueError):
        return None
    return marker if marker.check == _check(marker) else None


def _check(marker: Marker) -> str:
    return of_value(msgspec.structs.replace(marker, check=""))
