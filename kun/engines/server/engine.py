"""The engine for running servers, such as `vllm serve`: `ServerEngine(settings, chat, window, ...)`.

An event loop in its own thread keeps the servers busy with requests of later shards while the caller publishes one.
docs/engines.md shows how to start the servers; a missing capability is a ConfigError at the start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from kun.config.schema import Server as Settings
from kun.engines.base import Answer, Failure, Generate, Request, ScoreChoices
from kun.engines.choices import beginnings, chosen
from kun.engines.in_flight import Group, in_order
from kun.engines.server import answer_cache
from kun.engines.server.answer_cache import AnswerCache
from kun.engines.server.completions import (
    Completion,
    NoAnswerError,
    RefusedError,
    generated,
    generation,
    logprobs,
    next_token,
)
from kun.engines.server.probe import check_model, check_replies, check_verdicts, models
from kun.engines.server.servers import Servers
from kun.errors import ConfigError, KunError
from kun.models.chat import Chat
from kun.models.folder import plain_name
from kun.store import digests

T = TypeVar("T")
Part = tuple[dict[str, Any], Callable[[Completion], Any]]  # the body of a request; a reader of its completion
Result = tuple[Group, int, Answer] | KunError


class ServerEngine:
    """Answers requests with the model of `folder` on all servers that have it. See `kun.engines.base.Engine`.

    The caller closes `answers`, which keeps those that are not published yet. ConfigError names a server that lacks
    what Kun needs; log-probabilities of verdicts are checked when the first one is asked for.
    """

    def __init__(self, settings: Settings, chat: Chat, window: int, folder: Path, answers: AnswerCache) -> None:
        if not settings.urls:
            raise ConfigError("engine.server.urls: names no server; give base URLs, such as http://localhost:8000/v1")
        self.window = window
        name = plain_name(folder)
        self._model = settings.models.get(name, name)
        self._chat = chat
        self._vocabulary = 1 + max(chat.files.raw.get_vocab(with_added_tokens=True).values())
        self._gives_verdicts = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers = Servers(settings.urls, settings.concurrency, settings.timeout, settings.retries)
        folder = folder.resolve()
        self._cache, self._identity = answers, _identity(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._call(self._choose_servers(name, folder.name))
            self._slots = settings.concurrency * len(self._servers.all)
        except BaseException:
            self.close()
            raise

    def run(
        self, groups: Iterable[Sequence[Request]], on_answer: Callable[[int], None] = lambda count: None
    ) -> Iterator[list[Answer]]:
        """The answers of each group, in the order of its requests; `on_answer(n)` after n more of them.

        A group counts as published when the next one is requested: its answers leave the cache. KunError where no
        server answers any more.
        """
        results = SimpleQueue[Result]()
        ask, wait = partial(self._hand_over, results, on_answer), partial(self._wait, results)
        try:
            for group in in_order(groups, self._slots, ask, wait):
                yield group.answers
                self._loop.call_soon_threadsafe(self._cache.forget, group.keys)
        finally:
            if not self._loop.is_closed():
                self._call(self._cancel())

    def close(self) -> None:
        """Cancel the requests in flight, and end the thread."""
        if self._loop.is_closed():
            return
        self._call(self._cancel())
        self._call(self._servers.client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _hand_over(
        self, results: SimpleQueue[Result], on_answer: Callable[[int], None], requests: Sequence[Request]
    ) -> Group:
        if not self._gives_verdicts and not all(isinstance(request, Generate) for request in requests):
            self._call(self._check_verdicts())
            self._gives_verdicts = True
        group = Group.of(requests, self.window, self._vocabulary, on_answer)
        self._loop.call_soon_threadsafe(self._start, results, group)
        return group

    def _wait(self, results: SimpleQueue[Result]) -> None:
        result = results.get()
        if isinstance(result, KunError):
            raise result
        group, number, answer = result
        group.settle(number, answer)

    def _start(self, results: SimpleQueue[Result], group: Group) -> None:
        for number, request in group.asked:
            task = self._loop.create_task(self._settle(results, group, number, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _settle(self, results: SimpleQueue[Result], group: Group, number: int, request: Request) -> None:
        try:
            results.put((group, number, await self._answer(group, request)))
        except (NoAnswerError, RefusedError) as error:
            results.put((group, number, Failure(str(error))))
        except KunError as error:
            results.put(error)
        except Exception as error:  # one record never ends a run
            results.put((group, number, Failure(f"{type(error).__name__}: {error}")))

    async def _answer(self, group: Group, request: Request) -> Answer:
        """From the cache, or from a server."""
        parts, together = self._parts(request)
        key = answer_cache.key(self._identity, [body for body, _ in parts])
        group.keys.append(key)
        if known := self._cache.find(key):
            return known
        answer = together([await self._complete(body, read) for body, read in parts])
        if not isinstance(answer, Failure):
            self._cache.keep(key, answer)
        return answer

    def _parts(self, request: Request) -> tuple[list[Part], Callable[[list[Any]], Answer]]:
        """The parts of a request to a server, and a function from their results to the answer."""
        end_ids, pad_id = self._chat.end_ids, self._chat.pad_id
        match request:
            case Generate():
                body = generation(request, self.window, end_ids, pad_id)
                return [(body, partial(generated, end_ids=end_ids))], itemgetter(0)
            case ScoreChoices():  # choices are forced, token by token
                follow = beginnings(request)
                parts: list[Part] = [
                    (next_token([*request.prompt, *start], tokens), partial(logprobs, tokens=tokens))
                    for start, tokens in follow.items()
                ]
                return parts, lambda read: chosen(request, dict(zip(follow, read, strict=True)))

    async def _complete(self, body: dict[str, Any], read_answer: Callable[[Completion], T]) -> T:
        return await self._servers.complete(body | {"model": self._model}, read_answer)

    async def _choose_servers(self, name: str, folder: str) -> None:
        """Use the servers that have the model: two merged models may be on different ports."""
        named = {server: await models(server) for server in self._servers.all}
        having = [server for server, cards in named.items() if self._model in cards]
        if len(having) < len(named):
            others = [f"{server.url} ({', '.join(cards)})" for server, cards in named.items() if server not in having]
            lacking = "; ".join(others)
            if not having:
                raise ConfigError(
                    f"engine.server.urls: {self._model} is not served by {lacking}; serve it by that name, or set "
                    f"engine.server.models.{name}"
                )
            logging.getLogger(__name__).warning("%s is not served by %s; the others are asked", self._model, lacking)
        canary: dict[str, Any] = {}
        for server in having:
            check_model(server, named[server], self._model, self.window, folder)
            canary = await check_replies(server, self._model, self._chat)
        self._servers.use(having, canary)

    async def _check_verdicts(self) -> None:
        for server in self._servers.all:
            await check_verdicts(server, self._model, self._chat)

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _identity(folder: Path) -> str:
    """What identifies a model: the name of its folder, which has the fingerprint of its settings, and its marker with
    the digest of its files, since a second training may give other weights."""
    marker = folder / "done.json"
    return f"{folder.name} {digests.of_file(marker) if marker.is_file() else ''}"
