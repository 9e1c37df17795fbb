"""Answers that were paid for and are in no published shard yet: `AnswerCache(run / "store/answers.sqlite", model)`.

Each is on the disk as soon as it has come, so that a killed run asks for none of them twice. What only the cache can
lose is time: a file that cannot be read is thrown away, one that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from kun.engines.base import ChoiceLogprobs, Generated
from kun.errors import BusyError
from kun.store import digests

KEPT = 30 * 24 * 3600  # seconds; answers to requests that nobody repeated, because settings changed


class AnswerCache:
    """Answers by the digest of model and request. `model` must tell any two models apart; the URL does not matter.

    Used by one process, from one thread at a time.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database: sqlite3.Connection | None = None
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise BusyError(f"{path}: in use by another process; wait for it, or stop it and run again") from None
            self._say(f"is damaged ({error}) and thrown away; what was in it is asked again")
            _remove(path)
            with contextlib.suppress(sqlite3.DatabaseError):
                self._database = _opened(path)

    def key(self, bodies: list[dict[str, Any]]) -> str:
        """Of all that a request puts to the server."""
        return digests.of_value([self.model, bodies])

    def find(self, key: str, kind: type[Generated] | type[ChoiceLogprobs]) -> Generated | ChoiceLogprobs | None:
        rows = self._execute("SELECT answer FROM answers WHERE key = ?", [key])
        try:
            return msgspec.json.decode(rows[0][0], type=kind) if rows else None
        except msgspec.DecodeError:  # a part of the file that was damaged without a trace
            return None

    def keep(self, key: str, answer: Generated | ChoiceLogprobs) -> None:
        values = [key, msgspec.json.encode(answer), int(time.time())]
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", values)

    def forget(self, keys: Iterable[str]) -> None:
        """Answers that are in a published shard are of no use here any more."""
        listed = msgspec.json.encode(list(keys)).decode()
        self._execute("DELETE FROM answers WHERE key IN (SELECT value FROM json_each(?))", [listed])

    def close(self) -> None:
        """An empty file goes."""
        if self._database is not None:
            empty = not self._execute("SELECT 1 FROM answers LIMIT 1", [])
            self._database.close()
            if empty:
                _remove(self.path)
            self._database = None

    def _execute(self, statement: str, values: list[Any]) -> list[Any]:
        if self._database is None:
            return []
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._say(f"cannot be used ({error}); the run goes on without it, and a crash costs a shard")
            self._database = None
            return []

    def _say(self, what: str) -> None:
        print(f"{self.path}: the cache of answers {what}", file=sys.stderr, flush=True)


def _opened(path: Path) -> sqlite3.Connection:
    """A sound database. The engine's own thread uses it, which is not the one that opens it."""
    database = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory, which network file systems lack
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing, a lost machine a few answers
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
