"""Options of the command line as the mapping that they stand for."""

from types import NoneType
from typing import get_args

import pytest

from kun.config.files import load
from kun.config.overrides import layer
from kun.config.schema import Config
from kun.config.settings import NAME, kind_of, settings
from kun.errors import ConfigError, InputError

BELOW = {"corpora": {"wu-dao.2024": {"paths": ["a"]}, "web": {"paths": ["b"]}}}


@pytest.mark.parametrize(
    ("options", "mapping"),
    [
        ("--seed 7 --filter.min-chars=5", {"seed": 7, "filter": {"min_chars": 5}}),
        ("--filter.min_chars 5 --filter.max-tokens 9", {"filter": {"min_chars": 5, "max_tokens": 9}}),
        ("--seed 7 --seed 8", {"seed": 8}),
        ("--filter.near-duplicates null", {"filter": {"near_duplicates": None}}),
        ("--filter.near-duplicates None", {"filter": {"near_duplicates": None}}),
        ("--filter.ppl-max 3000", {"filter": {"ppl_max": 3000}}),
        ("--filter.ppl-max x6", {"filter": {"ppl_max": "x6"}}),
        ("--run 7 --prompts null --base-model null", {"run": "7", "prompts": "null", "base_model": None}),
        ("--filter.languages zh no", {"filter": {"languages": ["zh", "no"]}}),
        ("--filter.languages", {"filter": {"languages": []}}),
        ("--filter.lm.prune 0 0 1", {"filter": {"lm": {"prune": [0, 0, 1]}}}),
        ("--label.pointing-words 根据 图片", {"label": {"pointing_words": ["根据", "图片"]}}),
        ("--trust-remote-code", {"trust_remote_code": True}),
        ("--trust-remote-code false", {"trust_remote_code": False}),
        ("--no-trust-remote-code", {"trust_remote_code": False}),
        ("--filter.clean.no-encoding", {"filter": {"clean": {"encoding": False}}}),
        ("--engine.vllm.a-b 0.5 --engine.vllm.c x y", {"engine": {"vllm": {"a_b": 0.5, "c": ["x", "y"]}}}),
        ("--engine.vllm.seed 2024-01-01", {"engine": {"vllm": {"seed": "2024-01-01"}}}),
        ("--corpora.wu-dao.2024.paths c d", {"corpora": {"wu-dao.2024": {"paths": ["c", "d"]}}}),
        ("--corpora.wu_dao.2024.filter.min-chars 3", {"corpora": {"wu-dao.2024": {"filter": {"min_chars": 3}}}}),
        ("--corpora.web null", {"corpora": {"web": None}}),
        ("--corpora.web None", {"corpora": {"web": None}}),
        ("--label.pointing-words null None", {"label": {"pointing_words": ["null", "None"]}}),
        ("--corpora.web.field 7", {"corpora": {"web": {"field": "7"}}}),
    ],
)
def test_options_and_what_they_stand_for(options, mapping):
    assert layer(options.split(" "), BELOW) == mapping


def options_of_nullable_settings():
    for setting in settings(Config):
        if NoneType in get_args(setting.kind):
            yield "--" + ".".join(setting.keys).replace(NAME, "wudao").replace("_", "-")
            if setting.keys[0] == "filter" and setting.keys[1] not in ("lm", "near_duplicates"):
                yield f"--corpora.wudao.{'.'.join(setting.keys)}"
    yield from ("--engine.vllm.seed", "--train.sft.warmup-steps")  # of mappings that go to a library


@pytest.mark.parametrize("word", ["null", "None"])
@pytest.mark.parametrize("option", list(options_of_nullable_settings()))
def test_null_is_none_for_every_setting_that_may_be_none(tmp_path, option, word):
    (tmp_path / "my.yaml").write_text("corpora: {wudao: {paths: [a], format: text, field: x, filter: {ppl_max: x3}}}")
    value = load(tmp_path / "my.yaml", [option, word]).model_dump()
    for key in option.removeprefix("--").replace("-", "_").split("."):
        value = value[key]
    assert value is None


def test_null_of_one_corpus_holds_for_it_alone(tmp_path):
    (tmp_path / "my.yaml").write_text("corpora: {wudao: {paths: [a], format: text}, web: {paths: [b], format: text}}")
    config = load(
        tmp_path / "my.yaml",
        ["--corpora.wudao.filter.ppl_max", "null", "--corpora.wudao.filter.quality.digits", "null"],
    )
    own, other = config.of_subset("wudao").filter, config.of_subset("web").filter
    assert (own.ppl_max, own.quality.digits) == (None, None)
    assert (other.ppl_max, other.quality.digits) == ("x6", 0.4)


def test_a_value_with_blanks_is_one_word_and_a_mapping_may_be_one():
    assert layer(["--run", "my run", "--engine.vllm", "{a: 1, b: [2]}"], {}) == {
        "run": "my run",
        "engine": {"vllm": {"a": 1, "b": [2]}},
    }


def test_of_two_names_that_are_alike_the_one_that_is_typed():
    below = {"corpora": {"wu-dao": {}, "wu_dao": {}}}
    for name in ("wu-dao", "wu_dao"):
        assert layer([f"--corpora.{name}.field", "x"], below) == {"corpora": {name: {"field": "x"}}}


def test_kinds():
    assert kind_of(["filter", "min_chars"]) is int
    assert kind_of(["corpora", "web", "filter", "clean", "encoding"]) is bool


def test_what_is_no_option_is_an_error():
    for words in (["stage9"], ["-x"], ["--"], ["x", "--seed", "1"]):
        with pytest.raises(InputError, match="unknown arguments: "):
            layer(words, {})
    with pytest.raises(ConfigError, match="--seed: takes one word, and has none"):
        layer(["--seed"], {})
