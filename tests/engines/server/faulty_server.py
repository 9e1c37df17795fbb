"""A server that fails as it is told, to see what the engine makes of it: `with FaultyServer(probe) as server: ...`.

It speaks as much of the protocol of vLLM as Kun uses. Its "model" replies with tokens that prompt and seed decide.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Exchange(BaseHTTPRequestHandler):
    """One request. A fault gets it before it is answered, and may answer, hang or drop the connection itself."""

    protocol_version = "HTTP/1.1"
    server: Any
    body: dict[str, Any]

    def do_GET(self) -> None:
        self.answer(200, {"data": self.server.owner.cards})

    def do_POST(self) -> None:
        owner = self.server.owner
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with owner.lock:
            owner.keys.append(self.headers.get("authorization"))
            is_probe = self.body["prompt"] == owner.probe
            if not is_probe:
                owner.asked.append(self.body)
            owner.in_flight += 1
            owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
        try:
            fault = owner.fault if not is_probe or owner.fault_hits_probes else None
            if fault is None or not fault(self):
                self.answer(200, {"choices": [completion(self.body)]})
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def answer(self, status: int, body: Any, **headers: str) -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        return True

    def drop(self) -> bool:
        self.close_connection = True
        self.connection.shutdown(2)
        return True

    def hang(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self.drop()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Listener(ThreadingHTTPServer):
    """A client that goes away is no news."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def completion(body: dict[str, Any]) -> dict[str, Any]:
    if "logprob_token_ids" in body:
        top = {f"token_id:{token}": -1.0 - token / 1000 for token in body["logprob_token_ids"]}
        return _choice(body, [5], "length") | {"logprobs": {"top_logprobs": [top]}}
    favoured = [int(token) for token, bias in body.get("logit_bias", {}).items() if bias > 0]
    if favoured:
        return _choice(body, favoured[:1], "stop")
    tokens = reply(body["prompt"], body["seed"])
    return _choice(body, [*tokens, body["stop_token_ids"][0]], "stop")


def reply(prompt: list[int], seed: int) -> list[int]:
    """What the server's model says."""
    return [(sum(prompt) + seed + place) % 200 for place in range(3)]


def _choice(body: dict[str, Any], tokens: list[int], reason: str) -> dict[str, Any]:
    return {"finish_reason": reason, "token_ids": tokens, "prompt_token_ids": body["prompt"], "logprobs": None}


class FaultyServer:
    """`fault(exchange)` is called before each request is answered and tells whether it has done so itself.

    `asked` holds the bodies of all requests but the engine's probe, `keys` their Authorization headers.
    """

    def __init__(self, probe: list[int], model: str = "label") -> None:
        self.cards: list[dict[str, Any]] = [{"id": model, "max_model_len": 512}]
        self.probe = probe
        self.fault: Callable[[Exchange], bool] | None = None
        self.fault_hits_probes = False
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self._server: Any = Listener(("127.0.0.1", 0), Exchange)
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The port is closed; requests under way are answered."""
        self._server.shutdown()
        self._server.server_close()
