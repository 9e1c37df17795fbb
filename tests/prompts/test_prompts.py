"""Prompt sets: what is shipped, what is refused, and that fields stay text."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.errors import ConfigError
from kun.prompts import load_prompts

LABEL = "user: |\n  {text}\n  问题？\n"
SCORE = "user: |\n  {instruction}\n  好还是差？\ngood: 好\nbad: 差\n"
POLISH = "user: |\n  {text}\n  {instruction}\n"


def write(folder: Path, label: str = LABEL, score: str = SCORE, polish: str = POLISH) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in (("label", label), ("score", score), ("polish", polish)):
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", ["zh", "en", "demo"])
def test_shipped_sets_load_and_fill(name: str) -> None:
    prompts = load_prompts(name)
    shown = prompts.label.messages(text="【T】")[-1].content
    assert shown.count("【T】") == 1
    polish = prompts.polish.messages(text="【T】", instruction="【I】")[-1].content
    assert "【T】" in polish
    assert polish.index("【T】") < polish.index("【I】")
    judged = prompts.score.messages("【I】")
    assert judged[-1].content.count("【I】") == 1
    for message in judged:
        assert "{" not in message.content


@pytest.mark.parametrize("name", ["zh", "en"])
def test_the_judge_has_two_good_and_five_bad_examples_before_the_instruction(name: str) -> None:
    score = load_prompts(name).score
    system, user = score.messages("【I】")
    rendered = system.content.splitlines()
    assert [line.endswith(score.good) for line in rendered if line.startswith(("评判：", "Verdict:"))].count(True) == 2
    assert [line.endswith(score.bad) for line in rendered if line.startswith(("评判：", "Verdict:"))].count(True) == 5
    assert "【I】" in user.content
    assert "【T】" in score.messages("【I】", "【T】")[-1].content
    assert "【T】" not in score.messages("【I】")[-1].content


def test_fields_are_filled_in_one_pass() -> None:
    hostile = "{instruction} {text} {examples} {{x}} {0} %s \\1 \u2028 \ud800 😀"
    prompts = load_prompts("zh")
    content = prompts.polish.messages(text=hostile, instruction="{text}")[-1].content
    assert content.count(hostile) == 1
    assert "指令：{text}" in content
    assert prompts.score.messages(hostile)[-1].content.count(hostile) == 1


def test_braces_in_examples_stay_text(tmp_path: Path) -> None:
    score = SCORE + "system: '{examples}'\nexamples:\n  - {instruction: '写 {text} {instruction}', verdict: bad}\n"
    system, user = load_prompts(write(tmp_path, score=score)).score.messages("问")
    assert system.content == "写 {text} {instruction}\n差"
    assert user.content == "问\n好还是差？"


def test_the_digest_is_of_the_words_not_of_the_file(tmp_path: Path) -> None:
    one = load_prompts(write(tmp_path / "a"))
    same = load_prompts(write(tmp_path / "b", label='# a comment\nuser: "{text}\\n问题？"\n'))
    other = load_prompts(write(tmp_path / "c", label=LABEL + "system: 你好\n", score=SCORE.replace("差", "坏")))
    assert one.label.digest == same.label.digest != other.label.digest
    assert one.score.digest == same.score.digest != other.score.digest
    assert one.polish.digest == other.polish.digest


@pytest.mark.parametrize(
    ("files", "file", "says"),
    [
        ({"label": "user: 没有\n"}, "label.yaml", "user: the placeholder {text} is missing"),
        ({"label": LABEL + "usr: x\n"}, "label.yaml", "unknown key usr"),
        ({"label": "user: '{text} {title}'\n"}, "label.yaml", "user: unknown placeholder {title}"),
        ({"label": LABEL + "system: '{text} {x}'\n"}, "label.yaml", "system: unknown placeholder {x}"),
        ({"label": "user: 3\n"}, "label.yaml", "user: must be text"),
        ({"label": "system: a\n"}, "label.yaml", "the key user is missing"),
        ({"label": "- a\n"}, "label.yaml", "must be a mapping"),
        ({"label": "user: '{text}\n"}, "label.yaml", "not valid YAML"),
        ({"label": LABEL + LABEL}, "label.yaml", "not valid YAML"),
        ({"polish": LABEL}, "polish.yaml", "{instruction} is missing"),
        ({"score": SCORE.replace("bad: 差", "bad: 好")}, "score.yaml", "good and bad are the same word"),
        ({"score": SCORE.replace("bad: 差", "")}, "score.yaml", "the key bad is missing"),
        ({"score": SCORE.replace("bad: 差", "bad: true")}, "score.yaml", "bad: must be text"),
        ({"score": SCORE + "pair: '{instruction}'\n"}, "score.yaml", "pair: the placeholder {text} is missing"),
        ({"score": SCORE + "examples: [{instruction: a, verdict: good}]\n"}, "score.yaml", "{examples} is missing"),
        ({"score": SCORE + "examples: []\n"}, "score.yaml", "examples: must be a list"),
        (
            {"score": SCORE + "examples: [{instruction: a, verdict: 好}]\n"},
            "score.yaml",
            "number 1: instruction must be",
        ),
        ({"score": SCORE + "examples: [{instruction: a}]\n"}, "score.yaml", "number 1: needs the keys"),
        ({"score": SCORE + "example: x\nexamples: [{instruction: a, verdict: bad}]\n"}, "score.yaml", "example: needs"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, files: dict[str, str], file: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_prompts(write(tmp_path, **files))
    assert file in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_set_or_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither zh, en, demo nor a folder"):
        load_prompts("klingon")
    with pytest.raises(ConfigError, match=r"label\.yaml"):
        load_prompts(str(tmp_path))


def test_pair_mode_needs_its_prompt(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pair"):
        load_prompts(write(tmp_path)).score.messages("问", "文")
