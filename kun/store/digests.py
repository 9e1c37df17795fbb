"""What a file or folder contains, as a digest: `Digests(cache).path("seeds.jsonl")`. Read once, then remembered."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from kun.errors import InputError
from kun.store import atomic


def of_bytes(data: bytes) -> str:
    """32 hexadecimal characters of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def of_value(value: object) -> str:
    """Digest of a JSON-like value, independent of the order of keys; raises TypeError for anything else."""
    return of_bytes(msgspec.json.encode(value, order="deterministic"))


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def of_folder(folder: Path, leave_out: Collection[str] = ()) -> str:
    """Digest of the files in a folder and below, and of their names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in leave_out)
    return of_value([[path.relative_to(folder).as_posix(), of_file(path)] for path in files])


class Digests:
    """Digests by content. `cache` remembers them by path, size and time of change, so that 600 GB are read once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, tuple[int, int, str]] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):  # nothing remembered: everything is read again
            self._known = msgspec.json.decode(cache.read_bytes(), type=dict[str, tuple[int, int, str]])

    def path(self, path: str | Path, setting: str) -> str:
        """Digest of a file, or of a folder: its files and their names, without cards. InputError names `setting`."""
        path = Path(path)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _beside_the_point(p.relative_to(path)))
            return of_value([[_utf8(p.relative_to(path)), self.path(p, setting)] for p in inside])
        try:
            stat = path.stat()
            key, stamp = _utf8(path.resolve()), (stat.st_size, stat.st_mtime_ns)
            known = self._known.get(key)
            if known is None or known[:2] != stamp:
                self._known[key] = known = (*stamp, of_file(path))
                self._changed = True
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; it is named by the setting {setting}") from None
        return known[2]

    def save(self) -> None:
        """Write the cache, where it changed."""
        if self._changed:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self._cache, msgspec.json.encode(self._known))
            self._changed = False


def _utf8(path: Path) -> str:
    """A path as JSON can hold it; file names may be in any encoding."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _beside_the_point(path: Path) -> bool:
    return path.suffix == ".md" or any(part.startswith(".") or part == "__pycache__" for part in path.parts)
