"""Every setting as an option, in `kun run --help`."""

import pytest

from kun.config.files import load
from kun.config.reference import help_text, metavar
from kun.config.schema import Config
from kun.config.settings import NAME, kind_of, settings

MINE = """
corpora: {wu_dao: {paths: [a, b c], format: text, filter: {quality: {digits: null}}}}
label: {pointing_words: [根据, 图片]}
train: {sft: {learning_rate: 0.1}}
"""


def help_of(folder, text):
    (folder / "my.yaml").write_text(text, encoding="utf-8")
    return help_text(load(folder / "my.yaml"), "Settings of my.yaml:")


def test_every_setting_is_an_option_with_its_meaning_and_value(tmp_path):
    shown = help_of(tmp_path, MINE)
    words = " ".join(shown.split())
    for setting in settings(Config):
        if not setting.is_section and NAME not in setting.keys:
            assert "--" + ".".join(setting.keys).replace("_", "-") in words
            assert " ".join(setting.description.split()) in words.replace("- ", "-") or len(setting.description) > 60
    assert "--score.threshold NUMBER lowest score kept, with select: threshold (now: 0.5)" in words
    assert "--filter.quality.digits NUMBER|null largest share of digits (now: 0.4)" in words
    assert "--engine.kind transformers|vllm|server the engine;" in words
    assert max(map(len, shown.splitlines())) <= 120


def test_corpora_mappings_and_chinese_words(tmp_path):
    words = " ".join(help_of(tmp_path, MINE).split())
    assert '--corpora.wu_dao.paths [TEXT ...] files, folders or globs (now: a "b c")' in words
    assert "--corpora.wu_dao.filter.KEY.quality.digits" not in words
    assert "--corpora.wu_dao.filter.quality.digits (now: null)" in words
    assert "--train.sft.KEY VALUE trl.SFTConfig, both models --train.sft.learning_rate (now: 0.1)" in words
    assert "--engine.vllm.KEY VALUE vllm.EngineArgs" in words
    assert "(now: 根据 图片)" in words
    assert "--corpora.NAME.paths [TEXT ...] files, folders or globs" in " ".join(help_of(tmp_path, "{}").split())


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("filter.ppl_max", "NUMBER|TEXT|null"),
        ("filter.privacy.phone", "mask|drop|null"),
        ("filter.lm.prune", "[INTEGER ...]"),
        ("filter.quality.unbroken", "INTEGER|null"),
        ("trust_remote_code", "true|false"),
    ],
)
def test_types_as_one_types_them(setting, shown):
    assert metavar(kind_of(setting.split("."))) == shown
