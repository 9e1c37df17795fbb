"""Progress of long work: `with bar("stage3 label", total=1200, unit="rows") as advance: advance(64, 1200)`.

A live bar on a terminal; elsewhere a plain line every few seconds. Nothing with `--quiet`, which lets the logger
`kun.progress` pass errors only.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@contextmanager
def bar(title: str, unit: str, total: int = 0) -> Iterator[Progress]:
    """Yields `advance(done, total)`; a total of 0 is not known yet."""
    if not _log.isEnabledFor(logging.WARNING):
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _live(title, unit, total) as advance:
            yield advance
    else:
        yield _plain(title, unit)


@contextmanager
def _live(title: str, unit: str, total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    title_column, rate_column = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
    columns = (title_column, BarColumn(), MofNCompleteColumn(), rate_column, TimeRemainingColumn())
    rate = _Rate(unit)
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total or None, rate=unit)
        yield lambda done, total: bars.update(task, completed=done, total=total or None, rate=rate(done))


def _plain(title: str, unit: str) -> Progress:
    rate, printed = _Rate(unit), time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        text = rate(done)
        if now - printed < SECONDS_BETWEEN_LINES:
            return
        printed = now
        left = f" of {total:,}, {_duration((total - done) / rate.per_second)} left" if total and rate.per_second else ""
        speed = f"{left}, {text}" if rate.per_second else f" {unit}"
        print(f"{title}: {done:,}{speed}", file=sys.stderr, flush=True)

    return advance


class _Rate:
    """The rate since the first call, when an earlier run may already have done some of the work."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._start: tuple[float, int] | None = None
        self.per_second = 0.0

    def __call__(self, done: int) -> str:
        now = time.monotonic()
        start, first = self._start = self._start or (now, done)
        if now > start:
            self.per_second = (done - first) / (now - start)
        return f"{self.per_second:,.1f} {self._unit}/s" if self.per_second else self._unit


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
