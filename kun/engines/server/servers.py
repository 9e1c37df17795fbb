"""Several servers as one: `await Servers(urls, ...).complete(body, read_answer)`, whichever of them answers.

At most `concurrency` requests are in flight at each URL. Transient failures (no connection, timeout, 429, 5xx, a
malformed answer) are retried, after a pause that doubles, or that the server asks for (Retry-After). A server that
fails rests in the same way, and then gets one request at a time until it answers; the others get the rest.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
import msgspec

from kun.engines.server.completions import Completion, NoAnswerError, RefusedError, parse_completion
from kun.errors import ConfigError, KunError

T = TypeVar("T")
LONGEST_PAUSE = 60.0  # seconds; a server may ask for more, up to `timeout`
IN_A_ROW = 10  # after so many requests given up with no answer in between, check whether any server still works
CONNECT = 10.0  # seconds until a machine counts as unreachable


class Server:
    """One base URL. `failures` in a row since its last answer; `parked` of its slots are unused until it answers."""

    def __init__(self, url: str, client: httpx2.AsyncClient, key: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        self.failures = 0
        self.parked = 0
        self.rests = False
        self._client, self._key, self._timeout = client, key, timeout

    async def get(self, path: str) -> bytes:
        return await self._send("GET", path, None)

    async def complete(self, body: dict[str, Any], read_answer: Callable[[Completion], T]) -> T:
        """NoAnswerError or RefusedError has the URL and the server's message."""
        data = await self._send("POST", "completions", msgspec.json.encode(body))
        try:
            return read_answer(parse_completion(data, body["prompt"]))
        except NoAnswerError as error:
            raise NoAnswerError(f"{self.url}: {error}") from None

    async def _send(self, method: str, path: str, content: bytes | None) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.request(method, f"{self.url}/{path}", content=content)
        except TimeoutError:
            raise NoAnswerError(f"{self.url}: no answer in {self._timeout:g} s (engine.server.timeout)") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = self._without_key(str(error)) or type(error).__name__
            raise NoAnswerError(f"{self.url}: the connection failed ({why})") from None
        if response.is_success:
            return response.content
        status, message = response.status_code, self._without_key(_message(response.content))
        text = f"{self.url} answers {status}: {message}"
        if status in (408, 429) or status >= 500:
            raise NoAnswerError(text, busy=status == 429, after=_retry_after(response.headers, self._timeout))
        raise RefusedError(text)

    def _without_key(self, text: str) -> str:
        """Mask the key: a server may quote it in an error, and its messages end up in files."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]


class Servers:
    """The servers of a run: all configured ones, until `use` chooses some."""

    def __init__(self, urls: tuple[str, ...], concurrency: int, timeout: float, retries: int) -> None:
        key = _key()
        self.client = httpx2.AsyncClient(
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(None, connect=min(CONNECT, timeout)),
            # vLLM's server drops connections that are idle for 5 seconds.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0),
        )
        self.all = [Server(url, self.client, key, timeout) for url in urls]
        self._canary: dict[str, Any] = {}
        self._retries = retries
        self._answered = 0
        self._given_up = 0  # in a row
        self._checking = asyncio.Lock()
        self._slots: asyncio.Queue[tuple[Server, bool]] = asyncio.Queue()  # a server; whether this is a trial
        self._concurrency = concurrency

    def use(self, servers: list[Server], canary: dict[str, Any]) -> None:
        """Use these from now on. `canary` is a request that all of them have answered."""
        self.all, self._canary = servers, canary
        for _ in range(self._concurrency):
            for server in servers:
                self._slots.put_nowait((server, False))

    async def complete(self, body: dict[str, Any], read_answer: Callable[[Completion], T]) -> T:
        """The result of `read_answer` on the completion.

        NoAnswerError after all retries, RefusedError at once, KunError where no server works any more.
        """
        tries, answered = 0, self._answered
        while True:
            server = await self._slot()
            try:
                answer = await server.complete(body, read_answer)
            except NoAnswerError as error:
                # A server that is busy, or already down, says nothing about this request while others are answered.
                tries += not ((error.busy or server.failures) and self._answered > answered)
                answered = self._answered
                self._failed(server, error.after)
                if tries > self._retries:
                    await self._gave_up()
                    raise
                await self._check()
                await asyncio.sleep(error.after or pause(tries))
            except RefusedError:
                self._works(server, slots=1)
                await self._gave_up()
                raise
            except BaseException:  # the run ends
                self._slots.put_nowait((server, True))
                raise
            else:
                self._works(server, slots=1)
                self._given_up = 0
                self._answered += 1
                return answer

    async def _slot(self) -> Server:
        while True:
            server, is_trial = await self._slots.get()
            if is_trial or not server.failures:
                return server
            server.parked += 1

    def _works(self, server: Server, slots: int = 0) -> None:
        server.failures = 0
        for _ in range(server.parked + slots):
            self._slots.put_nowait((server, False))
        server.parked = 0

    def _failed(self, server: Server, after: float | None) -> None:
        """Park the slot. After a rest one request may try; failures in the meantime are not counted."""
        server.parked += 1
        if not server.rests:
            server.rests = True
            server.failures += 1
            rest = after or (pause(server.failures - 1) if server.failures > 1 else 0.0)
            asyncio.get_running_loop().call_later(rest, self._try, server)

    def _try(self, server: Server) -> None:
        server.rests = False
        if server.parked:
            server.parked -= 1
            self._slots.put_nowait((server, True))

    async def _gave_up(self) -> None:
        self._given_up += 1
        await self._check()

    def _silent(self) -> bool:
        return self._given_up >= IN_A_ROW or all(server.failures > self._retries for server in self.all)

    async def _check(self) -> None:
        """KunError where no server answers even the canary, so that the requests are not at fault."""
        if not self._silent():
            return
        async with self._checking:
            if not self._silent():  # another request has just checked this
                return
            errors = [text for text in await asyncio.gather(*map(self._try_canary, self.all)) if text]
            self._given_up = 0
            if len(errors) == len(self.all):
                raise KunError(
                    f"no server answers any more ({'; '.join(errors)}); what was answered is kept, "
                    "run the same command again when they are back"
                )

    async def _try_canary(self, server: Server) -> str:
        """The error; empty if the server answers."""
        try:
            await server.complete(self._canary, lambda completion: None)
        except (NoAnswerError, RefusedError) as error:
            return str(error)
        self._works(server)
        return ""


def pause(tries: int) -> float:
    """Seconds before the next try: 1, 2, 4, ... to a minute, minus up to a quarter, so that requests spread."""
    return min(LONGEST_PAUSE, 2.0 ** (tries - 1)) * random.uniform(0.75, 1.0)


def _key() -> str:
    key = (os.environ.get("KUN_API_KEY") or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("KUN_API_KEY (or OPENAI_API_KEY): the key has characters that no key can have; set it anew")
    return key


def _message(content: bytes) -> str:
    """The message in the body of an error, in the form of OpenAI or FastAPI, or as it is."""
    try:
        body = msgspec.json.decode(content)
        error = body.get("error", body)
        message = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    except (msgspec.DecodeError, AttributeError):
        message = content[:1000].decode("utf-8", "replace")
    return str(message)


def _retry_after(headers: httpx2.Headers, longest: float) -> float | None:
    """Seconds to wait by the header Retry-After, a number or a date."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(seconds, longest) if seconds > 0 else None
