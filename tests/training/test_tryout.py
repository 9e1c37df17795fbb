"""Right after its training a model answers prompts of the seeds, and one that does not end is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kun.models.chat import Chat, Message
from kun.models.loading import load_model
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.status import in_words, render, survey
from kun.store.digests import Digests
from kun.training.seeds import Example, Seed, SeedPair, Task
from kun.training.tryout import PROMPTS, try_out, warning
from stages import stage1_train
from tests.tiny_models import QUESTION, SENTENCES, base_llama, taught
from tests.training.settings import small_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Chat]:
    """It replies with one of the sentences, and its EOS."""
    return load_model(taught(base_llama(tmp_path_factory.mktemp("base"))))


def example(chat: Chat, text: str) -> Example:
    task = Task(Seed("pairs.jsonl", 1, "0", SeedPair(QUESTION, text)), [Message("user", QUESTION)], text)
    return Example(task, chat.prompt(task.messages), chat.completion(text))


def test_replies_that_end_are_counted(model: tuple[Any, Chat]) -> None:
    taught, chat = model
    examples = [example(chat, text) for text in SENTENCES]
    assert try_out(taught, chat, examples, 4096) == {"tried": 3, "ended": 3}
    never = replace(chat, end_id=chat.files.id("Z"), files=chat.files.with_config(eos_token="Z"))
    assert try_out(taught, never, examples, 4096) == {"tried": 3, "ended": 0}


def test_so_many_prompts_are_answered_and_no_more(model: tuple[Any, Chat]) -> None:
    taught, chat = model
    assert try_out(taught, chat, [example(chat, SENTENCES[0])] * 40, 4096)["tried"] == PROMPTS


def test_a_tenth_without_an_end_is_told_with_the_remedy() -> None:
    assert warning({"tried": 24, "ended": 22}, "label") is None
    text = warning({"tried": 24, "ended": 21}, "label")
    assert text is not None and text.startswith("3 of 24 replies do not end")
    assert "train.label.num_train_epochs" in text and "train.sft.learning_rate" in text


def test_a_model_that_does_not_end_is_told_by_its_stage(tmp_path: Path) -> None:
    """In the metrics, and in what `kun status` shows of its step."""
    config = small_config(tmp_path, base_llama(tmp_path / "base"), train={"label": {"max_steps": 1}})
    run, label = RunFolder(Path(config.run)), stage1_train.stage(config, Digests(tmp_path / "digests.json"))
    run.store.mkdir(parents=True)
    run_stage(replace(label, steps=label.steps[:1]), run)
    problem = "24 of 24 replies do not end"
    metrics = json.loads((run.path / "stage1_train/label/metrics.json").read_text())
    assert metrics["replies"] == {"tried": 24, "ended": 0}
    assert metrics["base"]["turns"]["used"] == "EOS between turns"
    states = survey([label], run)
    assert "replies that end 0 of 24" in in_words(label, states[0].counts)
    assert f"warning: {problem}" in render(states, run, [])
