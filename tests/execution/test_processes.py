"""Ctrl-C while processes start and work: the parent alone says something, and all end."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from kun.errors import KunError
from kun.execution.processes import FEW, map_unordered
from tests.runs import REPOSITORY, environment


def squared(number: int) -> int:
    return number * number


def work_for_a_while(seconds: float) -> None:
    print("at work", flush=True)
    time.sleep(seconds)


CODE = """
import threading
from kun.execution.processes import map_unordered
from tests.execution.test_processes import work_for_a_while
threading.Thread(target=threading.Event().wait, daemon=True).start()  # which takes signals as well
try:
    print("begun", flush=True)
    list(map_unordered(work_for_a_while, [(60.0,)] * 20, workers=4))
except KeyboardInterrupt:
    raise SystemExit(130)
"""


def test_every_task_once():
    assert sorted(map_unordered(squared, [(n,) for n in range(50)], workers=3)) == [n * n for n in range(50)]


def process(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize(("workers", "records", "here"), [(0, FEW - 1, True), (0, FEW, False), (2, 1, False)])
def test_few_records_are_worked_on_here_unless_a_number_of_processes_is_asked_for(monkeypatch, workers, records, here):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert ({os.getpid()} == set(map_unordered(process, [(1,), (2,), (3,)], workers, records))) == here


def test_a_caller_that_has_enough_does_not_wait_for_the_rest():
    started = time.monotonic()
    for _ in map_unordered(time.sleep, [(0.0,), (60.0,), (60.0,)], workers=2):
        break
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8, None])
def test_an_interrupt_is_the_parents_alone(delay):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    if delay is None:
        process.stdout.readline()  # a worker is at work
    else:
        time.sleep(delay)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_off_the_main_thread():
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(lambda: sorted(map_unordered(squared, [(1,), (2,), (3,)], workers=2))).result()
    assert found == [1, 4, 9]


def kill_oneself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_run_with_a_remedy():
    with pytest.raises(KunError, match=r"a worker process was killed, .* run the same command again, with a smaller"):
        list(map_unordered(kill_oneself, [(0,), (1,)], workers=2))
