"""Remembers which errors of Kun were made, and where, while the tests run: `watch()`, once, in tests/conftest.py."""

from __future__ import annotations

import sys
from itertools import islice
from collections.abc import Iterator
from types import FrameType

from kun.errors import KunError

places: set[tuple[str, int]] = set()  # file and line of the calls that made an error
messages: set[str] = set()
deselected: list[str] = []  # tests that this session leaves out


def watch() -> None:
    def remember(self: KunError, *args: object) -> None:
        Exception.__init__(self, *args)
        messages.add(str(args[0]))
        # The call itself, and those around it: some errors are made by a function, or by a class of their own.
        places.update((frame.f_code.co_filename, frame.f_lineno) for frame in islice(_frames(sys._getframe(1)), 3))

    KunError.__init__ = remember  # type: ignore[method-assign]


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
