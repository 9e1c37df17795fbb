"""Work spread over processes: `for rows in each(function, tasks, workers=8): ...`, in the order in which tasks end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from kun.errors import KunError

R = TypeVar("R")


def each(function: Callable[..., R], tasks: Sequence[tuple[Any, ...]], workers: int) -> Iterator[R]:
    """`function(*task)` for every task, in `workers` processes (0: one per core), or here where one is enough.

    The function is pickled once for each process, so what many tasks share belongs into it, as by functools.partial.
    KunError where a process is killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        yield from (function(*task) for task in tasks)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(function,)
    )
    waiting: set[Future[R]] = set()
    try:
        todo = iter(tasks)
        while True:
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
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[..., Any]  # of this worker process


def _start_worker(function: Callable[..., Any]) -> None:
    global _function
    _function = function
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this the workers of a run that was killed go on, and then wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(*task: Any) -> Any:
    return _function(*task)
