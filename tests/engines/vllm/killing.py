"""A client that is killed in the middle of a shard: `group = killed(url, model, 512, store, after=17)`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from kun.config.schema import Sampling, Server
from kun.engines.base import Generate, Request
from kun.engines.server.answer_cache import AnswerCache
from kun.engines.server.engine import ServerEngine
from kun.models.chat import load_chat

GROUP: list[Request] = [Generate([20, number], Sampling(max_tokens=8, temperature=0.7), number) for number in range(30)]


def killed(url: str, model: Path, window: int, store: Path, after: int) -> list[Request]:
    """Ask for a shard in a process of its own, which SIGKILL ends after so many answers; gives the shard."""
    arguments = [url, str(model), str(window), str(store), str(after)]
    done = subprocess.run([sys.executable, "-m", "tests.engines.vllm.killing", *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    return GROUP


def main(url: str, model: str, window: str, store: str, after: str) -> None:
    settings = Server(urls=(url,), concurrency=4)
    answers = AnswerCache(Path(store) / "answers.sqlite")
    engine = ServerEngine(settings, load_chat(model), int(window), Path(model), answers)
    answered = 0

    def on_answer(count: int) -> None:
        nonlocal answered
        answered += count
        if answered >= int(after):
            os.kill(os.getpid(), signal.SIGKILL)

    list(engine.run([GROUP], on_answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
