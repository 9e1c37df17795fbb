"""The engine of servers against one that fails as it is told; test_engine_vllm.py has a real one."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kun.config.files import load
from kun.config.schema import Config, EngineConfig, Sampling, Server
from kun.engines.base import Answer, ChoiceLogprobs, Failure, Generate, Generated, Request, ScoreChoices
from kun.engines.cache import EngineCache
from kun.engines.server import servers
from kun.engines.server.answer_cache import AnswerCache
from kun.engines.server.engine import ServerEngine
from kun.errors import ConfigError, InputError, KunError
from kun.models.chat import Chat, load_chat
from tests import tiny_models
from tests.engines.server.faulty_server import Exchange, FaultyServer, reply
from tests.engines.vllm.killing import killed

WINDOW = 512
SAMPLING = Sampling(max_tokens=8, temperature=0.7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.qwen(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def label(folder: Path) -> Path:
    """A folder of the name under which the server has its model."""
    return shutil.copytree(folder, folder.parent / "label")


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    return load_chat(folder)


@pytest.fixture(scope="module")
def probe(chat: Chat) -> list[int]:
    return sorted({*chat.end_ids, chat.pad_id, *chat.new_ids})


@pytest.fixture
def server(probe: list[int]) -> Iterator[FaultyServer]:
    with FaultyServer(probe) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "pause", lambda tries: 0.01)
    monkeypatch.delenv("KUN_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def opened(label: Path, chat: Chat, tmp_path: Path) -> Iterator[Callable[..., ServerEngine]]:
    """Opens an engine of this test's run; closes it at the end."""
    engines: list[ServerEngine] = []

    def open_it(*urls: str, model: Path = label, window: int = WINDOW, **settings: Any) -> ServerEngine:
        settings = {"concurrency": 4, "timeout": 10.0, "retries": 3} | settings
        answers = AnswerCache(tmp_path / "store/answers.sqlite")
        try:
            engine = ServerEngine(Server(urls=urls, **settings), chat, window, model, answers)
        except ConfigError:
            answers.close()
            raise
        engines.append(engine)
        return engine

    yield open_it
    for engine in engines:
        close(engine)


def close(engine: ServerEngine) -> None:
    engine.close()
    engine._cache.close()


def shard(count: int, start: int = 0) -> list[Request]:
    return [Generate([20, number], SAMPLING, seed=number) for number in range(start, start + count)]


def replies(group: list[Request]) -> list[Answer]:
    return [Generated(reply(item.prompt, item.seed), True) for item in group if isinstance(item, Generate)]


def only(engine: ServerEngine, group: list[Request]) -> list[Answer]:
    [answers] = engine.run([group])
    return answers


# The protocol


def test_shards_are_answered_in_order_by_several_servers(opened: Any, server: FaultyServer, probe: list[int]) -> None:
    groups = [shard(5), [], shard(9, 5), shard(1, 14), shard(6, 15)]
    counted: list[int] = []
    with FaultyServer(probe) as other:
        answers = list(opened(server.url, other.url).run(groups, counted.append))
        assert answers == [replies(group) for group in groups]
        assert sum(counted) == 21
        assert server.asked
        assert other.asked
        assert len(server.asked) + len(other.asked) == 21


def test_what_is_sent(opened: Any, server: FaultyServer, chat: Chat) -> None:
    sampling = Sampling(max_tokens=300, temperature=0.5, top_p=0.9, repetition_penalty=1.2)
    only(opened(server.url), [Generate([20] * 400, sampling, seed=2**62 + 1)])
    [body] = server.asked
    assert body["prompt"] == [20] * 400
    assert body["model"] == "label"
    assert body["max_tokens"] == WINDOW - 400
    assert (body["temperature"], body["top_p"], body["repetition_penalty"]) == (0.5, 0.9, 1.2)
    assert body["seed"] == 2**62 + 1
    assert body["stop_token_ids"] == list(chat.end_ids)
    assert body["logit_bias"] == {str(chat.pad_id): -100.0}
    # What a request leaves open, a server takes from the model's generation_config.json.
    assert (body["top_k"], body["min_p"], body["presence_penalty"], body["frequency_penalty"]) == (0, 0, 0, 0)


def test_choices_of_several_tokens_are_summed_over_their_beginnings(opened: Any, server: FaultyServer) -> None:
    choices = ((10,), (20, 30), (20, 40, 50))
    [answer] = only(opened(server.url), [ScoreChoices([7, 8], choices)])
    assert isinstance(answer, ChoiceLogprobs)
    assert answer.logprobs == pytest.approx([-(len(choice) + sum(choice) / 1000) for choice in choices])
    asked = [(body["prompt"], body["logprob_token_ids"]) for body in server.asked[-3:]]
    assert asked == [([7, 8], [10, 20]), ([7, 8, 20], [30, 40]), ([7, 8, 20, 40], [50])]


def test_what_does_not_fit_never_reaches_the_server(opened: Any, server: FaultyServer) -> None:
    group: list[Request] = [
        *shard(1),
        Generate([20] * 32, SAMPLING, seed=0),
        Generate([], SAMPLING, seed=0),
        Generate([10**6], SAMPLING, seed=0),
        *shard(1, 1),
    ]
    answers = only(opened(server.url, window=32), group)
    assert [type(answer) for answer in answers] == [Generated, *[Failure] * 3, Generated]
    assert len(server.asked) == 2


def test_the_servers_work_on_while_a_shard_is_published(opened: Any, server: FaultyServer) -> None:
    groups = [shard(6, 10 * number) for number in range(4)]
    running = opened(server.url, concurrency=4).run(groups)
    assert next(running) == replies(groups[0])
    deadline = time.monotonic() + 10
    while len(server.asked) < 12 and time.monotonic() < deadline:  # nobody asks the generator for more
        time.sleep(0.01)
    assert len(server.asked) >= 12
    assert list(running) == [replies(group) for group in groups[1:]]
    assert server.most_in_flight <= 4


# Failures


FAULTS: dict[str, Callable[[Exchange], bool]] = {
    "429": lambda exchange: exchange.answer(429, {"error": {"message": "slow down"}}, Retry_After="0.05"),
    "500": lambda exchange: exchange.answer(500, b"Internal Server Error"),
    "503": lambda exchange: exchange.answer(503, {"detail": "starting"}),
    "dropped": lambda exchange: exchange.drop(),
    "hanging": lambda exchange: exchange.hang(1.5),
    "no JSON": lambda exchange: exchange.answer(200, b"<html>Welcome to the proxy</html>"),
    "other JSON": lambda exchange: exchange.answer(200, {"choices": []}),
    "no token ids": lambda exchange: exchange.answer(200, {"choices": [{"text": "Hello", "finish_reason": "stop"}]}),
    "broken off": lambda exchange: exchange.answer(
        200,
        {"choices": [{"token_ids": [5], "prompt_token_ids": exchange.body["prompt"], "finish_reason": "abort"}]},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_in_passing_is_tried_again(opened: Any, server: FaultyServer, fault: str) -> None:
    failed: set[int] = set()

    def once_each(exchange: Exchange) -> bool:
        seed = exchange.body["seed"]
        if seed in failed or seed % 2:
            return False
        failed.add(seed)
        return FAULTS[fault](exchange)

    server.fault = once_each
    group = shard(6)
    assert only(opened(server.url, timeout=1.0), group) == replies(group)
    assert len(server.asked) == 9


@pytest.mark.parametrize("fault", ["500", "hanging", "no JSON", "dropped"])
def test_a_request_that_always_fails_is_a_failure_among_answers(opened: Any, server: FaultyServer, fault: str) -> None:
    server.fault = lambda exchange: exchange.body["seed"] == 2 and FAULTS[fault](exchange)
    group = shard(12)
    answers = only(opened(server.url, timeout=1.0, retries=2), group)
    assert isinstance(answers[2], Failure)
    assert server.url in answers[2].error
    assert answers[:2] + answers[3:] == replies(group[:2] + group[3:])
    assert sum(body["seed"] == 2 for body in server.asked) == 3


def test_many_requests_that_fail_by_themselves_end_no_run(opened: Any, server: FaultyServer) -> None:
    server.fault = lambda exchange: FAULTS["500"](exchange)
    answers = only(opened(server.url, retries=1), shard(40))
    assert [type(answer) for answer in answers] == [Failure] * 40


def test_what_the_server_refuses_is_a_failure_at_once(opened: Any, server: FaultyServer) -> None:
    server.fault = lambda exchange: (
        exchange.body["seed"] == 1 and exchange.answer(400, {"error": {"message": "坏请求"}})
    )
    answers = only(opened(server.url), shard(3))
    assert answers[1] == Failure(f"{server.url} answers 400: 坏请求")
    assert len(server.asked) == 3


def test_being_told_to_wait_says_nothing_against_a_request(opened: Any, server: FaultyServer) -> None:
    """A server that answers one request in five and sends the others away."""
    turn = iter(range(10**6))
    server.fault = lambda exchange: next(turn) % 5 != 0 and exchange.answer(429, {"message": "slow down"})
    group = shard(30)
    assert only(opened(server.url, retries=8), group) == replies(group)


def test_the_requests_of_a_server_that_dies_go_to_the_others(
    opened: Any, server: FaultyServer, probe: list[int]
) -> None:
    with FaultyServer(probe) as other:
        engine = opened(server.url, other.url)

        def die(exchange: Exchange) -> bool:
            return len(server.asked) > 3 and exchange.drop()

        server.fault, server.fault_hits_probes = die, True
        groups = [shard(20), shard(20, 20)]
        assert list(engine.run(groups)) == [replies(group) for group in groups]
        assert len(other.asked) >= 37


def test_the_run_stops_where_no_server_answers_any_more(opened: Any, server: FaultyServer) -> None:
    published: list[list[Answer]] = []
    engine = opened(server.url, retries=2)
    server.fault_hits_probes = True
    with pytest.raises(KunError, match=f"no server answers any more .*{server.url}.* run the same command again"):
        for answers in engine.run(shard(4, 4 * number) for number in range(100_000)):
            published.append(answers)
            server.fault = lambda exchange: exchange.drop()
    assert published
    assert published == [replies(shard(4, 4 * number)) for number in range(len(published))]
    assert len(server.asked) < 100


def test_a_model_that_is_taken_away_ends_the_run(opened: Any, server: FaultyServer) -> None:
    engine = opened(server.url)
    server.fault_hits_probes = True
    server.fault = lambda exchange: exchange.answer(404, {"error": {"message": "The model `label` does not exist."}})
    with pytest.raises(KunError, match=r"no server answers any more .*does not exist"):
        list(engine.run([shard(1000)]))


# What a server cannot do


def test_no_server_is_named(opened: Any) -> None:
    with pytest.raises(ConfigError, match=r"engine\.server\.urls: names no server"):
        opened()


def test_a_server_that_is_not_there_is_named(
    opened: Any, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kun.engines.server.probe.TRIES", 1)
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9/v1: the connection failed .* taken out of the list"):
        opened(server.url, "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([{"id": "label", "max_model_len": 256}], "takes 256 tokens, Kun's window has 512"),
        ([{"id": "base", "max_model_len": 256}, {"id": "label", "parent": "base"}], "takes 256 tokens"),
        (
            [{"id": "label", "root": "/runs/x/store/stage1_train-label-0123456789abcdef"}],
            "serves stage1_train-label-0123456789abcdef as label",
        ),
        ("none", "its list of models cannot be read"),
    ],
)
def test_the_served_model_has_to_be_the_runs(opened: Any, server: FaultyServer, cards: Any, message: str) -> None:
    server.cards = cards
    with pytest.raises(ConfigError) as caught:
        opened(server.url)
    assert f"engine.server.urls: {server.url}: {message}" in str(caught.value)


def test_each_model_is_asked_where_it_is_served(
    opened: Any, server: FaultyServer, probe: list[int], caplog: Any
) -> None:
    with FaultyServer(probe, model="chat") as other:
        engine = opened(other.url, server.url)
        assert only(engine, shard(6)) == replies(shard(6))
        close(engine)
        assert (len(server.asked), other.asked) == (6, [])
        assert f"label is not served by {other.url} (chat); the others are asked" in caplog.text
        with pytest.raises(ConfigError) as caught:
            opened(other.url)
        message = f"label is not served by {other.url} (chat); serve it by that name, or set engine.server.models.label"
        assert str(caught.value) == f"engine.server.urls: {message}"


def altered(**changes: Any) -> Callable[[Exchange], bool]:
    def fault(exchange: Exchange) -> bool:
        own = {"finish_reason": "stop", "token_ids": exchange.body.get("stop_token_ids", [])[:1], "logprobs": None}
        choice = own | {"prompt_token_ids": exchange.body["prompt"], **changes}
        return exchange.answer(200, {"choices": [choice]})

    return fault


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (altered(token_ids=None), "without token ids"),
        (altered(prompt_token_ids=[1, 2]), "did not arrive as the token ids that were sent"),
        (altered(token_ids=[5, 6], finish_reason="length"), "does not heed logit_bias and stop_token_ids"),
        (FAULTS["no JSON"], "not a completion"),
        (lambda exchange: exchange.answer(400, {"error": {"message": "Token id 451 is out of vocabulary"}}), "451"),
        (lambda exchange: exchange.answer(401, {"error": "Unauthorized"}), "answers 401: Unauthorized"),
    ],
)
def test_a_server_without_token_ids_is_refused(
    opened: Any, server: FaultyServer, fault: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kun.engines.server.probe.TRIES", 1)
    server.fault, server.fault_hits_probes = fault, True
    with pytest.raises(ConfigError, match=message) as caught:
        opened(server.url)
    assert str(caught.value).startswith(f"engine.server.urls: {server.url}")
    assert "docs/engines.md" in str(caught.value)


def test_a_server_without_verdicts_still_writes_replies(
    opened: Any, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kun.engines.server.probe.TRIES", 1)

    def top_one_alone(exchange: Exchange) -> bool:
        if "logprob_token_ids" not in exchange.body:
            return False
        return altered(logprobs={"top_logprobs": [{"token_id:5": -0.1}]})(exchange)

    server.fault, server.fault_hits_probes = top_one_alone, True
    engine = opened(server.url)
    assert only(engine, shard(2)) == replies(shard(2))
    with pytest.raises(ConfigError, match=r"log-probabilities .* are missing.*score\.method: sampled"):
        only(engine, [ScoreChoices([7], ((10,), (20,)))])


# Keys


def test_the_key_goes_to_the_server_and_nowhere_else(
    opened: Any, server: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, caplog: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("KUN_API_KEY", "sk-geheim\n")
    server.fault = lambda exchange: (
        exchange.body["seed"] == 1 and exchange.answer(401, {"error": {"message": "Wrong key sk-geheim given"}})
    )
    running = opened(server.url).run([shard(2)])
    answers = next(running)
    assert set(server.keys) == {"Bearer sk-geheim"}
    assert answers[1] == Failure(f"{server.url} answers 401: Wrong key *** given")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"answers" in written
    assert b"geheim" not in written + "".join((*capsys.readouterr(), caplog.text)).encode()


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("engine: {kind: server, server: {urls: ['http://a:8000/v1', 'http://me:geheim@b:8000/v1']}}")
    with pytest.raises(ConfigError, match=r"number 2 of the urls .*KUN_API_KEY") as caught:
        load(path)
    assert "geheim" not in str(caught.value)


# The cache


def test_a_killed_run_asks_for_nothing_twice(opened: Any, server: FaultyServer, label: Path, tmp_path: Path) -> None:
    group = killed(server.url, label, WINDOW, tmp_path / "store", after=17)
    before, server.asked = server.asked, []
    assert only(opened(server.url), group) == replies(group)
    assert len(server.asked) <= len(group) - 17
    assert len(before) + len(server.asked) <= len(group) + 4  # twice: only what was in flight


def test_failures_are_asked_again_and_answers_are_not(opened: Any, server: FaultyServer, probe: list[int]) -> None:
    group = [*shard(6), ScoreChoices([7], ((10,), (20, 30)))]
    server.fault = lambda exchange: exchange.body["prompt"] == [20, 4] and exchange.answer(400, {"message": "no"})
    engine = opened(server.url)
    first = next(engine.run([group]))  # never published: nobody asks for the next shard
    assert [type(answer) for answer in first] == [*[Generated] * 4, Failure, Generated, ChoiceLogprobs]
    close(engine)
    with FaultyServer(probe) as other:  # the same model, elsewhere
        again = only(opened(other.url), group)
        assert again == [*first[:4], *replies(group[4:5]), *first[5:]]
        assert [body["prompt"] for body in other.asked if body["max_tokens"] > 1] == [[20, 4]]


def test_another_model_or_request_is_asked(opened: Any, server: FaultyServer, chat: Chat, tmp_path: Path) -> None:
    def asked(model: Path, sampling: Sampling = SAMPLING) -> int:
        server.cards = [{"id": model.name}]
        server.asked = []
        engine = opened(server.url, model=model)
        next(engine.run([[Generate([20, 1], sampling, seed=1)]]))
        close(engine)
        return len(server.asked)

    model = tmp_path / "stage1_train-label-0123"
    model.mkdir()
    assert [asked(model), asked(model)] == [1, 0]
    (model / "done.json").write_text('{"content": "trained again"}')
    assert [asked(model), asked(model)] == [1, 0]
    assert asked(tmp_path / "stage1_train-label-4567") == 1
    assert asked(model, Sampling(max_tokens=9, temperature=0.7)) == 1
    assert asked(model) == 0


def test_what_was_published_leaves_the_cache(opened: Any, server: FaultyServer, tmp_path: Path) -> None:
    engine = opened(server.url)
    running = engine.run([shard(5), shard(5, 5)])
    next(running)
    assert next(running)
    running.close()
    close(engine)
    with sqlite3.connect(tmp_path / "store/answers.sqlite") as database:
        assert database.execute("SELECT count(*) FROM answers").fetchall() == [(5,)]
    database.close()
    engine = opened(server.url)
    list(engine.run([shard(5), shard(5, 5)]))
    close(engine)
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" * 100])
def test_a_damaged_cache_is_thrown_away(
    opened: Any, server: FaultyServer, tmp_path: Path, caplog: Any, damage: Callable[[bytes], bytes]
) -> None:
    engine = opened(server.url)
    next(engine.run([shard(100)]))
    close(engine)
    path = tmp_path / "store/answers.sqlite"
    path.write_bytes(damage(path.read_bytes()))
    server.asked = []
    assert only(opened(server.url), shard(100)) == replies(shard(100))
    assert len(server.asked) == 100
    assert f"{path}: the cache of answers is damaged" in caplog.text


def test_a_disk_that_is_full_costs_the_cache_and_not_the_run(opened: Any, server: FaultyServer, caplog: Any) -> None:
    engine = opened(server.url)
    engine._cache._database.execute("PRAGMA max_page_count = 3")
    assert only(engine, shard(60)) == replies(shard(60))
    assert "the cache of answers cannot be used (database or disk is full)" in caplog.text


# Opening


def test_the_configured_engine(server: FaultyServer, folder: Path, label: Path, tmp_path: Path) -> None:
    settings = EngineConfig(kind="server", server=Server(urls=(server.url + "/",)))
    config = Config(run=str(tmp_path / "run"), base_model=str(folder), engine=settings)
    engines = EngineCache(config)
    try:
        engine = engines.open(label)
        assert engine.window == WINDOW
        assert list(engine.run([shard(3)])) == [replies(shard(3))]
        assert engines.open(label) is engine
        with pytest.raises(ConfigError, match=r"base is not served by .* set engine\.server\.models\.base"):
            engines.open(folder)
    finally:
        engines.close()


def test_two_models_are_open_side_by_side(server: FaultyServer, folder: Path, label: Path, tmp_path: Path) -> None:
    server.cards = [{"id": "teacher"}, {"id": "label"}]
    settings = EngineConfig(kind="server", server=Server(urls=(server.url,), models={"base": "teacher"}))
    config = Config(run=str(tmp_path / "run"), base_model=str(folder), engine=settings)
    engines = EngineCache(config, room=2)
    runs = [engines.open(model).run([shard(6), shard(6, 6)]) for model in (folder, label)]
    assert list(zip(*runs, strict=True)) == [(replies(group), replies(group)) for group in (shard(6), shard(6, 6))]
    asked = Counter((body["model"], *body["prompt"]) for body in server.asked)
    assert asked == Counter((model, 20, number) for model in ("teacher", "label") for number in range(12))
    engines.close()
    assert list((tmp_path / "run/store").iterdir()) == []


def test_a_shard_that_cannot_be_read_ends_the_run(opened: Any, server: FaultyServer) -> None:
    def groups() -> Iterator[list[Request]]:
        yield shard(3)
        raise InputError("part-00001.jsonl: is damaged")

    before = threading.active_count()
    engine = opened(server.url)
    with pytest.raises(InputError, match="is damaged"):
        list(engine.run(groups()))
    engine.close()
    engine.close()
    assert threading.active_count() <= before + 1 + 4  # the server's threads end with their connections
