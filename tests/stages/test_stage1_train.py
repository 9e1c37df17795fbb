"""Which seeds make which examples, in the very prompts of the later stages; errors before any model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kun.config.schema import Config
from kun.errors import ConfigError
from kun.models.chat import Message, load_chat
from kun.prompts import load_prompts
from kun.store.digests import Digests
from kun.training.seeds import BadSeed, Example, JudgedInstruction
from stages.stage1_train import collect, training_settings
from tests.runs import REPOSITORY, environment
from tests.tiny_models import qwen
from tests.training.settings import small_config, write_lines

JUDGE = [{"instruction": "写一首诗", "verdict": "good"}, {"instruction": "那个", "verdict": "bad"}, {"verdict": "bad"}]
POLISH = [{"instruction": "介绍杭州", "text": "杭州！！点击", "output": "杭州在浙江。"}]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    files = {
        "judge": write_lines(tmp_path / "judge.jsonl", JUDGE),
        "polish": write_lines(tmp_path / "polish.jsonl", POLISH),
    }
    return small_config(tmp_path, qwen(tmp_path / "base"), seeds=files)


def test_the_label_model_learns_instructions_from_outputs(config: Config) -> None:
    chat = load_chat(config.base_model or "")
    example = collect(config, "label", chat, [])[0]
    row = example.task.seed.row
    prompt = load_prompts(config.prompts).label.messages(text=row.output)
    assert example.prompt == chat.prompt(prompt)
    assert example.completion == chat.completion(row.instruction)


def test_the_chat_learns_replies_verdicts_and_polishing(config: Config) -> None:
    chat, bad = load_chat(config.base_model or ""), list[BadSeed]()
    examples = collect(config, "chat", chat, bad)
    assert len(examples) == 24 + 2 + 1
    assert [(Path(seed.file).name, seed.line, seed.reason) for seed in bad] == [("judge.jsonl", 3, "missing_field")]
    prompts = load_prompts(config.prompts)
    reply, good, spoiled, polished = examples[0], *examples[-3:]
    assert reply.prompt == chat.prompt([Message("user", reply.task.seed.row.instruction)])
    assert good.prompt == chat.prompt(prompts.score.messages(instruction="写一首诗"))
    assert (good.completion, spoiled.completion) == (chat.completion("好"), chat.completion("坏"))
    assert polished.prompt == chat.prompt(prompts.polish.messages(text="杭州！！点击", instruction="介绍杭州"))
    assert polished.completion == chat.completion("杭州在浙江。")


def test_the_label_model_learns_from_raw_texts_too(config: Config) -> None:
    chat = load_chat(config.base_model or "")
    raw = collect(config, "label", chat, [])[-1]
    assert raw.prompt == chat.prompt(load_prompts(config.prompts).label.messages(text="杭州！！点击"))
    assert raw.completion == chat.completion("介绍杭州")


def test_a_judge_is_made_of_the_pairs_alone(config: Config, tmp_path: Path) -> None:
    auto = config.model_copy(update={"seeds": config.seeds.model_copy(update={"judge": "auto"})})
    chat = load_chat(config.base_model or "")
    verdicts = [one for one in collect(auto, "chat", chat, []) if isinstance(one.task.seed.row, JudgedInstruction)]
    assert len(verdicts) == 2 * (24 - 24 // 5)
    good, spoiled = verdicts[:2]
    assert good.prompt == chat.prompt(load_prompts(config.prompts).score.messages(instruction=instruction_of(good)))
    assert (good.completion, spoiled.completion) == (chat.completion("好"), chat.completion("坏"))
    parts = training_settings(auto, "chat", Digests(tmp_path / "cache")).parts
    assert parts["seeds.judge"] == "auto"
    assert "prompts.score" in parts


def test_a_file_called_auto_is_given_with_its_folder(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "auto", JUDGE)
    monkeypatch.chdir(tmp_path)
    given = config.model_copy(update={"seeds": config.seeds.model_copy(update={"judge": "./auto"})})
    examples = collect(given, "chat", load_chat(config.base_model or ""), [])
    assert [instruction_of(one) for one in examples if one.task.seed.file == "./auto"] == ["写一首诗", "那个"]


def instruction_of(example: Example) -> str:
    return example.task.seed.row.instruction


def test_each_model_hangs_on_what_it_is_made_of(config: Config, tmp_path: Path) -> None:
    label = training_settings(config, "label", Digests(tmp_path / "cache")).parts
    chat = training_settings(config, "chat", Digests(tmp_path / "cache")).parts
    assert {"base_model", "seeds.pairs", "seeds.polish", "prompts.label", "train.label", "train.lora"} <= set(label)
    assert not {"seeds.judge", "prompts.score", "train.chat"} & set(label)
    assert {"base_model", "seeds.judge", "seeds.polish", "prompts.score", "prompts.polish", "train.chat"} <= set(chat)


@pytest.mark.parametrize("key", ["base_model", "seeds.pairs"])
def test_what_is_missing_is_named(config: Config, tmp_path: Path, key: str) -> None:
    section, _, field = key.rpartition(".")
    lacking = (
        config.model_copy(update={section: config.seeds.model_copy(update={field: None})})
        if section
        else config.model_copy(update={field: None})
    )
    with pytest.raises(ConfigError, match=key):
        training_settings(lacking, "label", Digests(tmp_path / "cache"))


def test_a_useless_seed_file_stops_before_torch(config: Config, tmp_path: Path) -> None:
    Path(config.seeds.pairs or "").write_text('{"instruction": "only"}\n')
    (tmp_path / "config.json").write_text(config.model_dump_json())
    code = (
        "import sys; from pathlib import Path\n"
        "from kun.config.schema import Config; from kun.errors import InputError\n"
        "from stages.stage1_train import train_model\n"
        f"config = Config.model_validate_json(Path({str(tmp_path / 'config.json')!r}).read_bytes())\n"
        f"try: train_model(config, 'label', Path({str(tmp_path / 'label')!r}), print)\n"
        "except InputError as error: print(error)\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "has no usable seed: 1 missing_field" in done.stdout
    assert not (tmp_path / "label").exists()
