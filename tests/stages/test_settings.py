"""What acts is what is fingerprinted: each setting decides a step, or is one that never changes what is written."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from kun.config.schema import PATHS, RUNTIME, Config
from kun.config.settings import Setting, settings
from kun.demo.tokens import build_tokenizer
from kun.engines.cache import EngineCache
from kun.store.digests import Digests
from stages import pipeline
from stages.stage3_label import LABEL


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_tokenizer().save_pretrained(folder / "base")
    (folder / "base/config.json").write_text('{"max_position_embeddings": 4096}')
    for name in ("seeds", "judge", "polish", "web", "clean", "quiz", "judged"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name}), encoding="utf-8")
    (folder / "lm.arpa").write_text("lm")
    return folder


def configuration(world: Path, **changes: Any) -> dict[str, Any]:
    """Settings that need every stage there is; `changes` are dotted names with __ for a dot."""
    mapping: dict[str, Any] = {
        "base_model": f"{world}/base",
        "seeds": {"pairs": f"{world}/seeds.jsonl", "judge": f"{world}/judge.jsonl", "polish": f"{world}/polish.jsonl"},
        "corpora": {name: {"paths": [f"{world}/web.jsonl"], "format": "jsonl"} for name in ("books", "web")},
        "filter": {"lm": {"estimate_from": f"{world}/clean.jsonl"}},
        "decontaminate": {"files": [f"{world}/quiz.jsonl"]},
    }
    for name, value in changes.items():
        *above, last = name.split("__")
        section = mapping
        for key in above:
            section = section.setdefault(key, {})
        section[last] = copy.deepcopy(value)
    return mapping


def parts(mapping: dict[str, Any]) -> dict[str, Any]:
    """What decides each step, by its name, and which steps it needs."""
    config = Config.model_validate(mapping)
    stages = pipeline(config, Digests(Path("none")), EngineCache(config))
    return {
        step.name: [step.settings().parts, [need.name for need in step.needs]]
        for stage in stages
        for step in stage.steps
    }


VARIANTS: list[dict[str, Any]] = [
    {},
    {"score__select": "top_share", "score__method": "sampled", "ingest__overlong": "split"},
    {"score__select": "best_f1", "score__calibration": "judged.jsonl"},
    {"filter__lm": {"model": "lm.arpa"}},
    {"filter__lm": {}},
]


def another(setting: Setting, value: Any) -> Any:
    """Another value that the setting takes."""
    kinds = [kind for kind in (get_args(setting.kind) or (setting.kind,)) if kind is not type(None)]
    literals = [
        one for kind in (setting.kind, *kinds) if str(get_origin(kind)) == "typing.Literal" for one in get_args(kind)
    ]
    if literals:
        return next(one for one in literals if one != value)
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.9
        case str():
            return "x5" if value.startswith("x") else f"{value}2"
        case dict():
            return {**value, "logging_steps": 3}
        case tuple() | list():
            return [*value, "en" if setting.keys[-1] == "languages" else 1 if setting.keys[-1] == "prune" else "词"]
        case None:
            if setting.keys[-1] == "encoding":
                return "big5"
            return {"dict": {}}.get(str(setting.kind), "text" if str in kinds else 0.5)
    raise AssertionError(setting)


def given(mapping: dict[str, Any], setting: Setting) -> Any:
    """Its value in a configuration, or its default."""
    value: Any = mapping
    for key in setting.keys:
        value = value.get(key) if isinstance(value, dict) else None
    return setting.value if value is None else value


def is_value(setting: Setting) -> bool:
    """No section, no corpus, and nothing that decides by its content."""
    name = ".".join(setting.keys)
    return not setting.is_section and setting.keys[0] not in (*RUNTIME, "corpora") and name not in PATHS


@pytest.mark.parametrize(
    "setting", [*filter(is_value, settings(Config, Config()))], ids=lambda setting: ".".join(setting.keys)
)
def test_every_setting_decides_a_step(world: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    for variant in VARIANTS:
        before = configuration(world, **variant)
        other = {**variant, "__".join(setting.keys): another(setting, given(before, setting))}
        with contextlib.suppress(ValueError):  # does not go with this variant
            if parts(configuration(world, **other)) != parts(before):
                return
    pytest.fail("no step is made again when it changes")


@pytest.mark.parametrize(("key", "value"), [("format", "text"), ("field", "body"), ("filter", {"min_chars": 5})])
def test_a_setting_of_a_corpus_decides_the_steps_of_that_corpus(world: Path, key: str, value: Any) -> None:
    before, after = parts(configuration(world)), parts(configuration(world, **{f"corpora__web__{key}": value}))
    changed = {name for name in after if after[name] != before[name]}
    assert changed and all(name.endswith("/web") for name in changed)


@pytest.mark.parametrize("name", RUNTIME)
def test_how_a_run_works_decides_nothing(world: Path, name: str) -> None:
    value: Any = {"run": "elsewhere", "workers": 3, "trust_remote_code": True, "engine": {"batch_tokens": 7}}[name]
    assert parts(configuration(world, **{name: value})) == parts(configuration(world))


def test_the_content_of_a_file_decides_and_its_name_does_not(world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "seeds.jsonl"
    copy.write_bytes((world / "seeds.jsonl").read_bytes())
    before = parts(configuration(world))
    assert parts(configuration(world, seeds__pairs=str(copy))) == before
    copy.write_text("other", encoding="utf-8")
    after = parts(configuration(world, seeds__pairs=str(copy)))
    assert {name for name in after if after[name] != before[name]} == {"stage1_train/label", "stage1_train/chat"}


def test_the_work_of_a_step_sees_no_other_setting(world: Path) -> None:
    config = Config.model_validate(configuration(world))
    stages = pipeline(config, Digests(Path("none")), EngineCache(config))
    step, _ = next(stage for stage in stages if stage.spec is LABEL).steps
    view = step.settings().config
    assert view.label == config.label and view.filter.privacy == config.filter.privacy and view.workers == 0
    for read in (lambda: view.score, lambda: view.filter.min_chars, lambda: view.seeds):
        with pytest.raises(AttributeError):
            read()
