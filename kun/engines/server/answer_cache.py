"""Answers that are not in a published shard yet: `AnswerCache(run / "store/answers.sqlite")`.

Each is on disk as soon as it arrives, so that a killed run asks for none of them twice. A bad file costs only time: one
that cannot be read is deleted, and the run goes on without one that cannot be written.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from kun.engines.base import Answer
from kun.errors import BusyError
from kun.store import digests

_decode = msgspec.json.Decoder(Answer).decode
KEPT = 30 * 24 * 3600  # seconds; after a change of settings, answers may never be asked for again


class AnswerCache:
    """Answers by the digest of model and request, of all engines of a process, whatever the URLs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # each engine has a thread of its own
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database: sqlite3.Connection | None = None
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise BusyError(f"{path}: in use by another process; wait for it, or stop it and run again") from None
            self._warn(f"is damaged ({error}) and thrown away; what was in it is asked again")
            _remove(path)
            with contextlib.suppress(sqlite3.DatabaseError):
                self._database = _opened(path)

    def find(self, key: str) -> Answer | None:
        rows = self._execute("SELECT answer FROM answers WHERE key = ?", [key])
        try:
            return _decode(rows[0][0]) if rows else None
        except msgspec.DecodeError:  # of another version of Kun, or damage that SQLite did not detect
            return None

    def keep(self, key: str, answer: Answer) -> None:
        values = [key, msgspec.json.encode(answer), int(time.time())]
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", values)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete answers, once they are in a published shard."""
        listed = msgspec.json.encode(list(keys)).decode()
        self._execute("DELETE FROM answers WHERE key IN (SELECT value FROM json_each(?))", [listed])

    def close(self) -> None:
        """Close the database, and remove it if it is empty."""
        if self._database is not None:
            empty = not self._execute("SELECT 1 FROM answers LIMIT 1", [])
            self._database.close()
            if empty:
                _remove(self.path)
            self._database = None

    def _execute(self, statement: str, values: list[Any]) -> list[Any]:
        with self._lock:
            if self._database is None:
                return []
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                self._warn(f"cannot be used ({error}); the run goes on without it, and a crash costs a shard")
                self._database = None
                return []

    def _warn(self, what: str) -> None:
        logging.getLogger(__name__).warning("%s: the cache of answers %s", self.path, what)


def key(model: str, bodies: list[dict[str, Any]]) -> str:
    """The key of a request: a digest of what identifies the model, and of the bodies sent to the server."""
    return digests.of_value([model, bodies])


def _opened(path: Path) -> sqlite3.Connection:
    """An intact database, usable from the engines' threads. sqlite3.DatabaseError where it is damaged or in use."""
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory, which network file systems lack
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing, a loss of power a few answers
        [[state]] = database.execute("PRAGMA quick_check(1)").fetchall()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB, at INTEGER)")
        database.execute("DELETE FROM answers WHERE at < ?", [int(time.time()) - KEPT])
    except BaseException:
        database.close()
        raise
    return database


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
