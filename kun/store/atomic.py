"""Files that exist whole or not at all: `write(path, data)`, `point(link, target)`."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kun.errors import KunError

SUFFIX = ".tmp"


def temporary_of(path: Path) -> Path:
    """The temporary name under which `path` is written or removed."""
    return path.with_name(f".{path.name}{SUFFIX}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of this block that names no file, as those of read, write and flush."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file for writing; it is flushed to disk and replaces `path` when the block ends without an error."""
    temporary = temporary_of(path)
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """For libraries that write to `folder`: their various errors about a full disk become an OSError that names it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KunError) or (isinstance(error, OSError) and error.filename):
            raise
        if "No space left" in str(error) or shutil.disk_usage(folder).free < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def write(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`."""
    with replacing(path) as file:
        file.write(data)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older link atomically."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and str(link.readlink()) == relative:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(relative)
    temporary.replace(link)
    sync(link.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, so that they survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder or a file, if it exists. It is first moved aside, so that a kill never leaves half of it."""
    aside = temporary_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
    elif folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)


def remove_temporaries(folder: Path, below: str = "**/") -> None:
    """Remove what killed processes left half written in `folder` and below, or half removed beside it."""
    for path in (temporary_of(folder), *folder.glob(f"{below}.*{SUFFIX}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
