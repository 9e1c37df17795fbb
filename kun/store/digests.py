"""What a file or folder contains, as a digest: `Digests(cache).path("seeds.jsonl")`. Read once, then remembered."""

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
    """32 hexadecimal characters of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def of_value(value: object) -> str:
    """Digest of a JSON-like value, independent of the order of keys; raises TypeError for anything else."""
    return of_bytes(msgspec.json.encode(value, order="deterministic"))


def of_file(path: Path, advance: Callable[[int], None] = lambda size: None) -> str:
    """`advance` is called with the bytes of each piece that was read."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        while data := file.read(2**20):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


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
        if not path.is_dir():
            return self.files([path], setting)[0]
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not _beside_the_point(p.relative_to(path)))
        names = [_utf8(p.relative_to(path)) for p in inside]
        return of_value([[*pair] for pair in zip(names, self.files(inside, setting), strict=True)])

    def files(self, paths: Sequence[Path], setting: str) -> list[str]:
        """Digests of files; those that are not remembered are read side by side, with a bar where that takes long."""
        try:
            stamps = [(path, _utf8(path.resolve()), path.stat()) for path in paths]
            for path, _, found in stamps:
                if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                    raise InputError(f"{setting}: {path}: a pipe or a device, which cannot be read twice; give a file")
            new = {
                key: (found.st_size, found.st_mtime_ns, path)
                for path, key, found in stamps
                if self._known.get(key, ())[:2] != (found.st_size, found.st_mtime_ns)
            }
            digests = _read([path for *_, path in new.values()], sum(size for size, *_ in new.values()))
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; it is named by the setting {setting}") from None
        for (key, (size, time, _)), digest in zip(new.items(), digests, strict=True):
            self._known[key] = (size, time, digest)
            self._changed = True
        return [self._known[key][2] for _, key, _ in stamps]

    def save(self) -> None:
        """Write the cache, where it changed."""
        if self._changed:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(self._cache, msgspec.json.encode(self._known))
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
        except BaseException:  # the other threads would read to the end of their files
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _utf8(path: Path) -> str:
    """A path as JSON can hold it; file names may be in any encoding."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _beside_the_point(path: Path) -> bool:
    return path.suffix == ".md" or any(part.startswith(".") or part == "__pycache__" for part in path.parts)
