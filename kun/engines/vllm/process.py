"""vLLM in its own process: `python -m kun.engines.vllm.process FD`, started by kun.engines.vllm.engine.

kun.engines.vllm.wire defines the messages on the socket FD. When the socket closes, the process ends with everything
that vLLM started: an engine without its run would hold the GPU for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import difflib
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import Any, NoReturn

from kun.engines.vllm import wire
from kun.engines.vllm.answers import Work
from kun.engines.vllm.wire import Ready, Refused, Result, Start, Task

PATIENCE = 10.0  # seconds for vLLM to end by itself
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when the thread that started it ends


async def serve(connection: socket.socket) -> None:
    """Answer the tasks on the connection until it closes."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=2**24)
    data = await _next_frame(reader)
    if data is None:
        return
    [start] = wire.decode_start(data)
    try:
        engine, sequences = _open(start)
    except Exception as error:
        writer.write(wire.frame([Refused(f"{type(error).__name__}: {error}")]))
        await writer.drain()
        return
    writer.write(wire.frame([Ready(sequences)]))
    work, results = Work(engine, start), Results(writer)
    running: set[asyncio.Task[None]] = set()
    while (data := await _next_frame(reader)) is not None:
        for task in wire.decode_tasks(data):
            running.add(job := asyncio.create_task(_answer(work, task, results)))
            job.add_done_callback(running.discard)
    _end(engine)


async def _answer(work: Work, task: Task, results: Results) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        results.add(Result(task.key, await work.answer(task)))
    except EngineDeadError:
        _end(work.engine)


class Results:
    """Sends results, all of one iteration of the event loop (such as a step of vLLM) in one frame."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: list[Result] = []

    def add(self, result: Result) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(result)

    def _send(self) -> None:
        self._writer.write(wire.frame(self._waiting))
        self._waiting.clear()


async def _next_frame(reader: asyncio.StreamReader) -> bytes | None:
    """None at the end of the socket."""
    try:
        header = await reader.readexactly(wire.HEADER.size)
        return await reader.readexactly(*wire.HEADER.unpack(header))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _open(start: Start) -> tuple[Any, int]:
    """A running vLLM, and the number of sequences it works on at once."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in start.given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{name}: not a setting of vllm.EngineArgs" + (f"; {close[0]}?" if close else ""))
    options = {**start.options, "disable_log_stats": start.options.get("disable_log_stats", True)}
    # With this context vLLM chooses batch sizes for offline work.
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options), usage_context=UsageContext.LLM_CLASS)
    settings = engine.vllm_config
    return engine, settings.scheduler_config.max_num_seqs * settings.parallel_config.data_parallel_size


def _end(engine: Any) -> NoReturn:
    """End vLLM, then this process and what is left of vLLM's processes, which are in its process group."""
    kill = partial(os.killpg, os.getpgrp(), signal.SIGKILL)
    threading.Timer(PATIENCE, kill).start()
    with contextlib.suppress(Exception):
        engine.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    kill()
    raise SystemExit


def _die_with_parent() -> None:
    """For processes that vLLM starts: or else its core would survive a `kill -9` of this process, and hold the GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__mp_main__":  # this module in a process that multiprocessing has spawned
    _die_with_parent()
if __name__ == "__main__":
    os.register_at_fork(after_in_child=_die_with_parent)
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
