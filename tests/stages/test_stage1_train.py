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
from kun.training import seeds
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


CONVERSATION = {
    "system": "你是导游",
    "messages": [
        {"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "问答再多", strict=True)
    ],
}
ALPACA = {"instruction": "翻译成英文", "input": "水", "output": "water"}


def with_pairs(config: Config, rows: list[dict[str, object]], **train: object) -> Config:
    write_lines(Path(config.seeds.pairs or ""), rows)
    seeds = config.seeds.model_copy(update={"judge": None, "polish": None})
    return config.model_copy(update={"seeds": seeds, "train": config.train.model_copy(update=train)})


def test_input_system_and_history_are_part_of_the_prompt(config: Config) -> None:
    chat = load_chat(config.base_model or "")
    alpaca, first, second = collect(with_pairs(config, [ALPACA, CONVERSATION]), "chat", chat, [])
    assert alpaca.prompt == chat.prompt([Message("user", "翻译成英文\n\n水")])
    opening = [Message("system", "你是导游"), Message("user", "问")]
    assert first.prompt == chat.prompt(opening)
    assert second.prompt == chat.prompt([*opening, Message("assistant", "答"), Message("user", "再")])
    assert second.completion == chat.completion("多")


def test_rows_that_differ_in_their_input_are_no_duplicates(config: Config) -> None:
    rows = [ALPACA, {**ALPACA, "input": "海"}, ALPACA]
    bad: list[BadSeed] = []
    assert len(collect(with_pairs(config, rows), "chat", load_chat(config.base_model or ""), bad)) == 2
    assert [(seed.line, seed.reason) for seed in bad] == [(3, "duplicate")]


def test_the_label_model_learns_requests_that_stand_alone(config: Config) -> None:
    shared = [{"instruction": f"问{n}", "output": f"答{n}", "system": "回答问题"} for n in range(4)]
    chat, bad = load_chat(config.base_model or ""), list[BadSeed]()
    examples = collect(with_pairs(config, [*shared, ALPACA, CONVERSATION]), "label", chat, bad)
    assert [example.task.reply for example in examples] == ["问0", "问1", "问2", "问3", "翻译成英文\n\n水"]
    assert [(seed.line, seed.reason) for seed in bad] == [(6, "own_system"), (6, "follow_up")]
    told = "\n".join(seeds.told("label", examples, bad, 400))
    assert "1 of 7 seeds (14.3%) are left out: later turns of conversations" in told


LONG = {"instruction": "介绍这里", "output": "这是一句话。" * 60}


def test_label_material_that_is_too_long_ends_at_a_sentence(config: Config) -> None:
    chat = load_chat(config.base_model or "")
    (example,) = collect(with_pairs(config, [LONG], max_length=150), "label", chat, [])
    content = example.task.messages[-1].content
    assert example.cut and content.endswith("这是一句话。") and example.completion == chat.completion("介绍这里")
    assert 150 - len(chat.encode("这是一句话。")) <= len(example.prompt) + len(example.completion) <= 150


def test_a_reply_that_is_too_long_is_learnt_without_an_end(config: Config) -> None:
    chat = load_chat(config.base_model or "")
    (example,) = collect(with_pairs(config, [LONG], max_length=150), "chat", chat, [])
    assert example.cut and chat.end_id not in example.completion
    assert example.completion == chat.encode(example.task.reply) and example.task.reply.endswith("这是一句话。")
    assert seeds.told("chat", [example], [], 150)[0].startswith("chat model: 1 of 1 seeds (100.0%) are cut")


def test_of_a_long_conversation_the_oldest_turns_are_dropped(config: Config) -> None:
    turns = [
        {"role": role, "content": f"{'问答'[turn % 2]}{turn}，" + "很长" * 10}
        for turn, role in enumerate(["user", "assistant"] * 8)
    ]
    chat = load_chat(config.base_model or "")
    *_, last = collect(with_pairs(config, [{"messages": turns}], max_length=700), "chat", chat, [])
    kept = [message.content for message in last.task.messages]
    assert kept == [turn["content"] for turn in turns[-1 - len(kept) : -1]] and 1 < len(kept) < 15
    assert last.cut and last.completion == chat.completion(str(turns[-1]["content"]))


def test_what_no_cut_makes_fit_is_over_long(config: Config) -> None:
    bad: list[BadSeed] = []
    rows = [{"instruction": "问" * 200, "output": "答"}, ALPACA]
    assert len(collect(with_pairs(config, rows, max_length=100), "label", load_chat(config.base_model or ""), bad)) == 1
    assert [(seed.line, seed.reason) for seed in bad] == [(1, "over_long")]
    assert "raise that" in seeds.told("label", [], bad, 100)[0]


def test_how_pairs_are_read_decides_the_models(config: Config, tmp_path: Path) -> None:
    parts = training_settings(config, "label", Digests(tmp_path / "cache")).parts
    assert {"seeds.fields.output", "seeds.turns", "seeds.encoding", "seeds.header"} <= set(parts)
