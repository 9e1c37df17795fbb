"""Remembers which errors of Kun were made, and where, while the tests run: `watch()` in every process of theirs.

What a process saw is in a file of the folder that the environment names, so that processes which tests start, or kill,
tell it too. Processes that Kun itself starts are not seen: what can go wrong there has a direct test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Literal

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


def judge(whole: bool, well: bool) -> tuple[Literal["passed", "failed", "skipped"], str]:
    """Whether every error is met by a test, and if not, which are missed, or why it cannot be known.

    whole: the session has all tests; well: and none has failed.
    """
    from kun.filters.perplexity.lmplz import find_program

    if not whole:
        return "skipped", "not all tests are run"
    if not well:
        return "skipped", "a test has failed, or they were interrupted"
    if importlib.util.find_spec("vllm") is None or find_program("lmplz") is None:
        return "skipped", "without vLLM and lmplz their errors are not met"
    missed = unmet(*read())
    return ("failed", "these errors are met by no test:\n" + "\n".join(missed)) if missed else ("passed", "")


def unmet(places: set[tuple[str, int]], messages: set[str]) -> list[str]:
    """The places in Kun whose error is not among what was met, as `file:line: kind('message')`."""
    from tests.raise_sites import FAILURES, HOLE, REPOSITORY, Site, sites

    def is_met(site: Site) -> bool:
        if site.kind == "ValueError":  # of a validator: pydantic makes it part of a ConfigError's message
            said = re.compile(".+".join(map(re.escape, site.form.split(HOLE))))
            return any(map(said.search, messages))
        return any((str(REPOSITORY / site.file), line) in places for line in range(site.line, site.end + 1))

    return [str(site) for site in sites() if site.kind not in FAILURES and not is_met(site)]


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
