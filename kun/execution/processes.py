"""Work in parallel processes, results as they come: `for rows in map_unordered(function, tasks, workers=8): ...`.

Only the parent handles Ctrl-C: workers never receive it, and end at once when the parent gives up.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from math import inf
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from types import FrameType
from typing import Any, TypeVar

from kun.errors import KunError
from kun.execution import log

R = TypeVar("R")
FEW = 4000  # records: this process has done them in about the second that others take to start


def map_unordered(
    function: Callable[..., R], tasks: Sequence[tuple[Any, ...]], workers: int, records: float = inf
) -> Iterator[R]:
    """`function(*task)` for every task, in `workers` processes, or in this one if one is enough.

    `workers` 0: one per core, or this one where all tasks together have few `records`. The function is pickled once
    per process, so bind what all tasks share to it, as by functools.partial. KunError where a worker is killed.
    """
    workers = min(workers or (1 if records < FEW else os.cpu_count() or 1), len(tasks))
    if workers <= 1:
        yield from (function(*task) for task in tasks)
        return
    spawn = get_context("spawn")
    given_up, giving_up = spawn.Pipe(duplex=False)
    arguments = (function, given_up, log.present())
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=arguments)
    waiting: set[Future[R]] = set()
    try:
        todo = iter(tasks)
        while True:
            with _without_interrupts():  # submit starts the processes
                waiting |= {pool.submit(_work, *task) for task in islice(todo, 2 * workers - len(waiting))}
            if not waiting:
                return
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    except BrokenProcessPool:
        raise KunError(
            "a worker process was killed, perhaps for lack of memory; finished shards are kept: "
            "run the same command again, with a smaller --workers"
        ) from None
    except (KeyboardInterrupt, GeneratorExit):
        giving_up.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        giving_up.close()
        given_up.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Delay SIGINT until the end of the block; processes started in it inherit the mask, and never get the signal.

    Another thread may still receive it, and Python would run the handler in the main thread, half-way through starting
    a process: so the handler is delayed too.
    """
    caught: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        handler = None
    if handler is not None:
        signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
            if caught:
                handler(*caught[0])


_function: Callable[..., Any]  # of this worker process


def _start_worker(function: Callable[..., Any], given_up: Connection, setup: log.LogSetup | None) -> None:
    global _function
    _function = function
    if setup is not None:
        log.configure(setup)
    threading.Thread(target=_end_with_parent, args=(given_up,), daemon=True).start()


def _end_with_parent(given_up: Connection) -> None:
    """Without this the workers of a killed run would go on, and then wait for work forever."""
    parent = parent_process()
    assert parent is not None
    wait_for([parent.sentinel, given_up])
    os._exit(1)


def _work(*task: Any) -> Any:
    return _function(*task)
