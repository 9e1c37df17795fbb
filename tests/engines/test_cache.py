"""Opening the configured engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kun.config.schema import Config, EngineConfig, Sampling
from kun.engines.base import Answer, Generate, Generated, Request
from kun.engines.cache import EngineCache, window, window_with_room
from kun.errors import ConfigError, InputError
from tests import tiny_models


def test_the_engine_of_a_model_folder_answers(tmp_path: Path) -> None:
    base = tiny_models.qwen(tmp_path / "base")
    settings = EngineConfig(device="cpu", batch_tokens=500)
    engines = EngineCache(Config(base_model=str(base), engine=settings))
    engine = engines.open(base)
    [[answer]] = engine.run([[Generate([20, 21], Sampling(max_tokens=3), seed=1)]])
    assert isinstance(answer, Generated)
    assert engine.window == 512
    assert engines.open(base) is engine
    engines.close()
    assert engines.open(base) is not engine


def test_a_teacher_and_a_student_are_open_side_by_side(tmp_path: Path) -> None:
    base = tiny_models.louder(tiny_models.qwen(tmp_path / "base"))
    teacher, student, third = (tiny_models.adapter(base, tmp_path / name, seed) for seed, name in enumerate("abc"))
    config = Config(base_model=str(base), engine=EngineConfig(device="cpu"))
    asked: list[Request] = [Generate([20 + n, 21], Sampling(max_tokens=8, temperature=0), seed=0) for n in range(4)]

    def alone(model: Path) -> list[Answer]:
        engines = EngineCache(config)
        [answers] = engines.open(model).run([asked])
        engines.close()
        return answers

    engines = EngineCache(config, room=2)
    first, second = engines.open(teacher), engines.open(student)
    together = list(zip(first.run([asked] * 2), second.run([asked] * 2), strict=True))
    assert together == [(alone(teacher), alone(student))] * 2
    assert alone(teacher) != alone(student)
    assert engines.open(teacher) is first  # so that the student was used the longest time ago
    engines.open(third)
    assert engines.open(teacher) is first
    assert engines.open(student) is not second
    engines.close()


def test_the_window_is_the_models_own_or_a_smaller_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 300}}))
    assert window(Config(base_model=str(tmp_path))) == 300
    assert window(Config(base_model=str(tmp_path), engine=EngineConfig(window=200))) == 200
    with pytest.raises(ConfigError, match=r"engine\.window: 301 is more than the base model's 300 tokens"):
        window(Config(base_model=str(tmp_path), engine=EngineConfig(window=301)))
    (tmp_path / "config.json").write_text("{}")
    assert window(Config(base_model=str(tmp_path), engine=EngineConfig(window=200))) == 200
    with pytest.raises(ConfigError, match=r"engine\.window"):
        window(Config(base_model=str(tmp_path)))


def test_the_longest_reply_leaves_room_for_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 300}))
    config = Config(base_model=str(tmp_path))
    assert window_with_room(config, Sampling(max_tokens=299), "label.sampling") == 300
    with pytest.raises(ConfigError, match=r"label\.sampling\.max_tokens: 300 leaves no room .* window of 300"):
        window_with_room(config, Sampling(max_tokens=300), "label.sampling")


def test_a_wrong_base_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="base_model: no folder"):
        EngineCache(Config(base_model=str(tmp_path / "none"))).open(tmp_path)
    with pytest.raises(InputError, match="is not the configuration of a model"):
        EngineCache(Config(base_model=str(tmp_path))).open(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="is not the configuration of a model"):
        window(Config(base_model=str(tmp_path)))
    with pytest.raises(ConfigError, match="base_model: is not set"):
        window(Config())
