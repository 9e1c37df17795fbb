"""Remembers which errors of Kun were made, and where, while the tests run: `watch()` in every process of theirs.

What a process saw is in a file of the folder that the environment names, so that processes which tests start, or kill,
tell it too. Processes that Kun itself starts are not seen: what can go wrong there has a direct test.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import FrameType

from kun.errors import KunError

FOLDER = "KUN_ERRORS_MET"


def watch() -> None:
    """From now on every KunError that is made is remembered, with its message and the calls that made it."""
    if FOLDER not in os.environ:
        return
    file = Path(os.environ[FOLDER], str(os.getpid()))
    known: set[str] = set()

    def remember(self: KunError, *args: object) -> None:
        Exception.__init__(self, *args)
        # The call itself, and those around it: some errors are made by a function, or by a class of their own.
        frames = islice(_frames(sys._getframe(1)), 3)
        places = tuple((frame.f_code.co_filename, frame.f_lineno) for frame in frames)
        if (line := json.dumps([places, str(args[0])])) not in known:
            known.add(line)
            with file.open("a") as out:
                out.write(line + "\n")

    KunError.__init__ = remember  # type: ignore[method-assign]


def read() -> tuple[set[tuple[str, int]], set[str]]:
    """File and line of the calls that made an error, and the messages."""
    lines = [line for path in Path(os.environ[FOLDER]).iterdir() for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return {(file, line) for places, _ in rows for file, line in places}, {message for _, message in rows}


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
