"""One process at a time works on a run: `with hold(folder / "lock", "kun run stage3"): ...`."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kun.errors import BusyError


@contextmanager
def hold(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock, or raise BusyError with the holder's name. The kernel frees it however its holder ends."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BusyError(f"{path.parent}: in use by {holder}; wait for it, or stop it and run again") from None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"{doing!r} (process {os.getpid()} on {socket.gethostname()}, since {since})\n")
        file.flush()
        yield
