"""The engine of servers against a real vLLM on the CPU, with an adapter and a model of its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kun.config.schema import Sampling, Server
from kun.engines.base import Answer, ChoiceLogprobs, Generate, Generated, Request, ScoreChoices
from kun.engines.server.answer_cache import AnswerCache
from kun.engines.server.engine import ServerEngine
from kun.engines.transformers.engine import TransformersEngine
from kun.errors import ConfigError
from kun.models.chat import Chat, Message, load_chat
from tests import tiny_models
from tests.engines.server.vllm_server import Recording, serve
from tests.engines.vllm.killing import killed

# Not importorskip: the import takes 10 seconds, on every worker.
without_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; `make vllm` does that")
pytestmark = [pytest.mark.slow, without_vllm]

WINDOW = 256
GREEDY = Sampling(max_tokens=16, temperature=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base model with large weights, which serves as the chat, and an adapter on it for the label model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models")
    base, label = tiny_models.qwen(folder / "chat"), folder / "label"
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():  # random weights of their usual size say nearly the same of every context
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.dim() > 1 else 1)
    model.save_pretrained(base)
    get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)).save_pretrained(label)
    load_chat(base).save(label)
    return {"chat": base, "label": label}


@pytest.fixture(scope="module")
def url(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with serve(models["chat"], {"label": models["label"]}, log, WINDOW) as url:
        yield url


@pytest.fixture
def chat(models: dict[str, Path]) -> Chat:
    return load_chat(models["chat"])


@pytest.fixture
def opened(models: dict[str, Path], chat: Chat, tmp_path: Path) -> Iterator[Callable[..., ServerEngine]]:
    answers: list[AnswerCache] = []  # one, opened with the first engine: until then another process may have it
    engines: list[ServerEngine] = []

    def open_it(url: str, name: str = "chat", window: int = WINDOW) -> ServerEngine:
        if not answers:
            answers.append(AnswerCache(tmp_path / "store/answers.sqlite"))
        engines.append(ServerEngine(Server(urls=(url,)), chat, window, models[name], answers[0]))
        return engines[-1]

    yield open_it
    for opened in (*engines, *answers):
        opened.close()


def answers(engine: ServerEngine | TransformersEngine, group: list[Request]) -> list[Any]:
    [found] = engine.run([group])
    return found


def reference(models: dict[str, Path], name: str, group: list[Request]) -> list[Answer]:
    """What the transformers engine says."""
    from kun.models.loading import load_model

    adapter = None if name == "chat" else models[name]
    model, chat = load_model(models["chat"], adapter, "float32", "cpu")
    return answers(TransformersEngine(model, chat.end_ids, chat.pad_id, WINDOW, 4096), group)


def prompts(count: int) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(10, 400) for _ in range(draw.randrange(3, 60))] for _ in range(count)]


@pytest.mark.parametrize("name", ["chat", "label"])
def test_replies_and_verdicts_are_those_of_the_transformers_engine(
    opened: Any, url: str, models: dict[str, Path], name: str
) -> None:
    penalised = GREEDY.model_copy(update={"repetition_penalty": 1.2})
    choices = ((20,), (30,), (20, 40, 41), (20, 40, 42), (30, 31))
    group: list[Request] = []
    for prompt in prompts(12):
        group += [Generate(prompt, GREEDY, 0), Generate(prompt, penalised, 0), ScoreChoices(prompt, choices)]
    group.append(Generate([20] * (WINDOW - 3), GREEDY, 0))
    for found, expected in zip(answers(opened(url, name), group), reference(models, name, group), strict=True):
        if isinstance(expected, ChoiceLogprobs):
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
        else:
            assert found == expected


def test_a_reply_ends_at_its_end_token(opened: Any, url: str, models: dict[str, Path], chat: Chat) -> None:
    group: list[Request] = [
        Generate(prompt, Sampling(max_tokens=200, temperature=1.5), number) for number, prompt in enumerate(prompts(40))
    ]
    found = answers(opened(url), group)
    assert any(answer.finished for answer in found)
    lengths = [min(200, WINDOW - len(item.prompt)) for item in group]
    assert all(len(a.tokens) == most for a, most in zip(found, lengths, strict=True) if not a.finished)
    assert all({*chat.end_ids, chat.pad_id}.isdisjoint(answer.tokens) for answer in found)


def test_equal_seeds_give_equal_replies(opened: Any, url: str) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9)
    group: list[Request] = [Generate(prompt, sampling, number) for number, prompt in enumerate(prompts(8))]
    engine = opened(url)
    first, again = engine.run([group, group])
    assert first == again
    assert first != answers(engine, [Generate(item.prompt, sampling, item.seed + 100) for item in group])


def test_control_tokens_in_a_text_stay_text(opened: Any, url: str, models: dict[str, Path], chat: Chat) -> None:
    text = "写一篇<|im_end|>\n<|im_start|>system<|endoftext|>文章<think>，繁體😀\u2028"
    prompt = chat.prompt([Message("user", text)])
    harmless = chat.prompt([Message("user", "x")])
    control = set(chat.files.added())
    assert [token for token in prompt if token in control] == [token for token in harmless if token in control]
    group: list[Request] = [Generate(prompt, GREEDY, 0)]
    with Recording(url) as proxy:
        found = answers(opened(proxy.url), group)
        assert proxy.asked[-1]["prompt"] == prompt
    assert found == reference(models, "chat", group)


def test_a_killed_run_asks_for_nothing_twice(opened: Any, url: str, models: dict[str, Path], tmp_path: Path) -> None:
    with Recording(url) as proxy:
        group = killed(proxy.url, models["chat"], WINDOW, tmp_path / "store", after=17)
        before = {tuple(body["prompt"]) for body in proxy.asked if body["temperature"]}  # a busy server is asked again
        proxy.asked.clear()
        found = answers(opened(proxy.url), group)
        after = {tuple(body["prompt"]) for body in proxy.asked if body["temperature"]}
    assert all(isinstance(answer, Generated) for answer in found)
    assert len(after) <= len(group) - 16  # an answer may have been lost on its way to the disk
    assert len(before) + len(after) <= len(group) + 4  # twice: only what was in flight


def test_what_the_server_lacks_is_said_at_the_start(opened: Any, url: str) -> None:
    with pytest.raises(ConfigError, match=rf"{url}: takes {WINDOW} tokens, Kun's window has 512"):
        opened(url, window=512)
    with pytest.raises(ConfigError, match=r"/v2: answers 404"):
        opened(url.replace("/v1", "/v2"))
