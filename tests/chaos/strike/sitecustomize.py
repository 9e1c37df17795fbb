"""Faults inside a process of Kun, at its k-th operation on files of the run: `arm(spec)`, or $KUN_STRIKE at its start.

With this folder on PYTHONPATH the worker processes of a run have it as well. The operations are those of Python: to
open a file for writing, fsync, rename, remove, mkdir, rmdir, symlink. So every window between two can be struck, and
struck again: a spec is JSON, `{"folder": "/tmp/x/run", "at": 17, "what": "kill", "worker": false}`.
"""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR
CREATES = ("open", "fsync", "os.mkdir", "os.symlink", "os.rename")
OPERATIONS = ("open", "fsync", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink")
IS_WORKER = "--multiprocessing-fork" in sys.orig_argv


def arm(spec):
    """`what`: count (a line for each operation into the file `log`), kill, torn (the file that is being flushed is cut
    in half first, as by a loss of power), term, int (to the whole process group, as of a terminal), twice, stop, full
    (from here on nothing more fits), eio (this one operation fails). `clock`: seconds by which the time of day is off.
    """
    seen, busy, fsync = 0, False, os.fsync
    if spec.get("clock"):
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + spec["clock"]
        time.time_ns = lambda: now_ns() + spec["clock"] * 10**9

    def met(operation, path):
        nonlocal seen, busy
        busy = True
        try:
            seen += 1
            if spec["what"] == "count":
                with Path(spec["log"]).open("a", encoding="utf-8") as file:
                    file.write(f"{operation} {path}\n")
            elif seen >= spec["at"]:
                strike(operation, path)
        finally:
            busy = False

    def strike(operation, path):
        first = seen == spec["at"]
        match spec["what"]:
            case "kill" if first:
                os.kill(os.getpid(), signal.SIGKILL)
            case "torn" if operation == "fsync" and Path(path).is_file():
                os.truncate(path, Path(path).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            case "term" if first:
                os.kill(os.getpid(), signal.SIGTERM)
            case "int" if first:
                os.killpg(os.getpgrp(), signal.SIGINT)
            case "twice" if first:
                os.killpg(os.getpgrp(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            case "stop" if first:
                os.kill(os.getpid(), signal.SIGSTOP)
            case "full" if operation in CREATES:
                # a flush does not tell the name of the file
                raise OSError(errno.ENOSPC, "No space left on device", *([] if operation == "fsync" else [path]))
            case "eio" if first:
                raise OSError(errno.EIO, "Input/output error", *([] if operation == "fsync" else [path]))

    def hook(event, arguments):
        if busy or event not in OPERATIONS:
            return
        path = arguments[1] if event in ("os.rename", "os.symlink") else arguments[0]
        if event == "open":
            _, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if mode else flags & WRITES
            if not writes:
                return
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        inside = str(Path(os.fsdecode(path)).absolute()).startswith(spec["folder"])
        in_tree = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # of shutil.rmtree: a name in a folder
        if inside or in_tree:
            met(event, os.fsdecode(path))

    def watched_fsync(descriptor):
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.startswith(spec["folder"]):
            met("fsync", path)
        fsync(descriptor)

    os.fsync = watched_fsync
    sys.addaudithook(hook)


if "KUN_STRIKE" in os.environ:
    _spec = json.loads(os.environ["KUN_STRIKE"])
    if _spec.get("worker", IS_WORKER) == IS_WORKER:
        arm(_spec)
