"""Progress of long work: `with bar("stage3 label", total=1200, unit="rows") as advance: advance(64)`.

A live bar on a terminal; elsewhere a plain line every few seconds, so that logs stay readable.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def bar(title: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`. `total` 0 means that nobody knows yet how much there is."""
    if sys.stderr.isatty():
        with _live(title, total, unit, done) as advance:
            yield advance
    else:
        yield _plain(title, total, unit, done)


@contextmanager
def _live(title: str, total: int, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start, here = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total or None, completed=done, rate=unit)

        def advance(count: int) -> None:
            nonlocal here
            here += count
            progress.update(task, advance=count, rate=_rate(here, time.monotonic() - start, unit))

        yield advance


def _plain(title: str, total: int, unit: str, done: int) -> Callable[[int], None]:
    start = spoken = time.monotonic()
    here = 0

    def advance(count: int) -> None:
        nonlocal here, spoken
        here += count
        now = time.monotonic()
        if now - spoken < SECONDS_BETWEEN_LINES:
            return
        spoken = now
        left = ""
        if total and here:
            left = f" of {total:,}, {_duration((total - done - here) * (now - start) / here)} left"
        print(f"{title}: {done + here:,}{left}, {_rate(here, now - start, unit)}", file=sys.stderr, flush=True)

    return advance


def _rate(count: int, seconds: float, unit: str) -> str:
    return f"{count / seconds:,.1f} {unit}/s" if seconds > 0 else unit


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
