"""One process at a time works on a run: `with hold(folder / "lock", "kun run stage3"): ...`; others can check whether
it is free: `check_free(folder / "lock")`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kun.errors import BusyError


@contextmanager
def hold(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock, or raise BusyError with the holder's name. The kernel frees it however its holder ends."""
    with path.open("a+", encoding="utf-8") as file:
        _lock(file, fcntl.LOCK_EX)
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"{doing!r} (process {os.getpid()} on {socket.gethostname()}, since {since})\n")
        file.flush()
        yield


def check_free(path: Path) -> None:
    """BusyError where another process holds the lock; nothing is written, and the lock is not kept."""
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open(encoding="utf-8") as file:
        _lock(file, fcntl.LOCK_SH)


def _lock(file: TextIO, kind: int) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        folder = Path(file.name).parent
        raise BusyError(f"{folder}: in use by {holder}; wait for it, or stop it and run again") from None
