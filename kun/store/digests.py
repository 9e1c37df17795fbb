"""Digests of the contents of files and folders, cached: `Digests(cache).path("seeds.jsonl", "seeds.pairs")`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from kun.errors import InputError
from kun.progress import bar
from kun.store import atomic

WORTH_A_BAR = 2**28  # bytes


def of_bytes(data: bytes) -> str:
    """BLAKE2b in 32 hexadecimal characters."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def of_value(value: object) -> str:
    """Digest of a JSON-like value, whatever the order of keys. TypeError for any other value."""
    return of_bytes(msgspec.json.encode(value, order="deterministic"))


def of_file(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """Digest of a file. `advance` is called with the number of bytes of each piece read."""
    digest = hashlib.blake2b(digest_size=16)
    with atomic.naming(path), path.open("rb", buffering=0) as file:
        while data := file.read(2**20):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


def of_folder(folder: Path, leave_out: Collection[str] = ()) -> str:
    """Digest of all files in a folder and below, and of their names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in leave_out)
    return of_value([[path.relative_to(folder).as_posix(), of_file(path)] for path in files])


class Known(msgspec.Struct, frozen=True):
    """A cached digest; the file is read again when one of the first three fields has changed.

    `touch`, `cp -p` or the clock can reset the time of the content, but not that of the inode.
    """

    size: int
    changed: int
    inode_changed: int
    digest: str


class Cache(msgspec.Struct, frozen=True):
    """`digest` is the digest of `files`: a corrupted entry would make a whole run stale."""

    files: dict[str, Known]
    digest: str


class Digests:
    """Digests by content. `cache` keeps them by path, size and times of change, so that 600 GB are read once."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, Known] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):  # without a cache everything is read again
            read = msgspec.json.decode(cache.read_bytes(), type=Cache)
            self._known = read.files if read.digest == of_value(read.files) else {}

    def path(self, path: str | Path, setting: str) -> str:
        """Digest of a file, or of the files of a folder and their names, without cards. InputError names `setting`."""
        path = Path(path)
        if not path.is_dir():
            return self.files([path], setting)[0]
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not _is_irrelevant(p.relative_to(path)))
        names = [_utf8(p.relative_to(path)) for p in inside]
        return of_value([[*pair] for pair in zip(names, self.files(inside, setting), strict=True)])

    def files(self, paths: Sequence[Path], setting: str) -> list[str]:
        """Digests of files. Those not in the cache are read in parallel, with a progress bar where that takes long."""
        try:
            keys = {path: _utf8(path.resolve()) for path in paths}
            stats = {path: path.stat() for path in keys}
            for path, status in stats.items():
                if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    raise InputError(f"{setting}: {path}: a pipe or a device, which cannot be read twice; give a file")
            new = {path: status for path, status in stats.items() if not self._is_known(keys[path], status)}
            digests = _read(list(new), sum(status.st_size for status in new.values()))
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; it is named by the setting {setting}") from None
        for (path, status), digest in zip(new.items(), digests, strict=True):
            self._known[keys[path]] = Known(status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest)
            self._changed = True
        return [self._known[keys[path]].digest for path in paths]

    def changed(self, path: Path) -> bool:
        """Whether a file has changed since it was digested, by its size and times."""
        return not self._is_known(_utf8(path.resolve()), path.stat())

    def _is_known(self, key: str, status: os.stat_result) -> bool:
        known = self._known.get(key)
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return known is not None and (known.size, known.changed, known.inode_changed) == stamp

    def save(self) -> None:
        """Write the cache if it has changed."""
        if self._changed:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self._cache, msgspec.json.encode(Cache(self._known, of_value(self._known))))
            self._changed = False


def _read(paths: Sequence[Path], size: int) -> list[str]:
    if size < WORTH_A_BAR:
        return [of_file(path) for path in paths]
    lock, stopped, done = threading.Lock(), threading.Event(), 0
    with bar("digests of the input", "MB") as progress, ThreadPoolExecutor() as pool:

        def advance(read: int) -> None:
            nonlocal done
            if stopped.is_set():
                raise InterruptedError
            with lock:
                done += read
                progress(done // 10**6, size // 10**6)

        try:
            return list(pool.map(partial(of_file, advance=advance), paths))
        except BaseException:  # or else the other threads would read their files to the end
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _utf8(path: Path) -> str:
    """A path as valid UTF-8 for JSON; file names may be in any encoding."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_irrelevant(path: Path) -> bool:
    return path.suffix == ".md" or any(part.startswith(".") or part == "__pycache__" for part in path.parts)
