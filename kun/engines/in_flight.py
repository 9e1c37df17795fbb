"""Several groups of requests in flight at once, yielded in order: `in_order(groups, slots, ask, wait)`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from kun.engines.base import Answer, Failure, Request
from kun.engines.batches import problem

AHEAD = 2  # requests handed over per slot: the engine must not run dry while a shard is prepared
HELD = 32  # requests per slot in groups that wait for an earlier one: bounds memory


@dataclass
class Group:
    """A group in flight.

    `asked`: the requests that reach the model, with their numbers; `missing`: how many of them have no answer yet;
    `on_answer(1)` is called for each answer; `keys`: the keys of answers in the engine's cache, if it has one.
    """

    answers: list[Answer]
    asked: list[tuple[int, Request]]
    missing: int
    on_answer: Callable[[int], None]
    keys: list[str] = field(default_factory=list)

    @staticmethod
    def of(requests: Sequence[Request], window: int, vocabulary: int, on_answer: Callable[[int], None]) -> Group:
        """A group in which only the requests that must not reach the model are answered."""
        problems = [problem(request, window, vocabulary) for request in requests]
        asked = [(number, request) for number, request in enumerate(requests) if problems[number] is None]
        on_answer(len(requests) - len(asked))
        return Group([Failure(text or "not asked") for text in problems], asked, len(asked), on_answer)

    def settle(self, number: int, answer: Answer) -> None:
        self.answers[number] = answer
        self.missing -= 1
        self.on_answer(1)


def in_order(
    groups: Iterable[Sequence[Request]], slots: int, ask: Callable[[Sequence[Request]], Group], wait: Callable[[], None]
) -> Iterator[Group]:
    """Each group in order, once it is complete, while the engine works on later ones.

    `slots`: the number of requests that the engine works on at once; `ask` hands a group over to it, `wait` blocks
    until there are more answers, in this run or another one of the same engine.
    """
    source, exhausted = iter(groups), False
    opened: deque[Group] = deque()
    while True:
        while not exhausted and _has_room(opened, slots):
            requests = next(source, None)
            exhausted = requests is None
            if requests is not None:
                opened.append(ask(requests))
        if not opened:
            return
        if opened[0].missing == 0:
            yield opened.popleft()
        else:
            wait()


def _has_room(opened: deque[Group], slots: int) -> bool:
    waiting = sum(group.missing for group in opened)
    held = sum(len(group.answers) for group in islice(opened, 1, None))
    return waiting < AHEAD * slots and held < HELD * slots
