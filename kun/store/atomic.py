"""Files that are there whole or not at all: `write(path, data)`, `point(link, target)`."""

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
    """Where what becomes `path`, or was it, is until it is whole, or gone."""
    return path.with_name(f".{path.name}{SUFFIX}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """The file of an error in this block, which an OSError of a read, a write or a flush does not name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well, flushed to the disk before that."""
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
    sync_folder(path.parent)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Where libraries write to `folder`: what each says of a full disk in its own words is an OSError with the name."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KunError) or (isinstance(error, OSError) and error.filename):
            raise
        if "No space left" in str(error) or shutil.disk_usage(folder).free < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`."""
    with replacing(path) as file:
        file.write(data)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older link in one move."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and str(link.readlink()) == relative:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(link)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(relative)
    temporary.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder, if it is there. It is moved aside first: killed half-way, it is gone, not half there."""
    aside = temporary_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
        shutil.rmtree(aside)


def remove_temporaries(folder: Path, below: str = "**/") -> None:
    """Remove what a killed process left half written in `folder` and below, or half removed in its place."""
    for path in (temporary_of(folder), *folder.glob(f"{below}.*{SUFFIX}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
