"""Training on models of every shape: what is written, what is loaded again, and that a kill changes no byte."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kun.errors import ConfigError, InputError
from kun.models.chat import Chat, Message, load_chat
from kun.training.seeds import Example, Seed, SeedPair, Task
from kun.training.sft import batched_by_length
from tests.runs import REPOSITORY, environment
from tests.tiny_models import TRAINED, llama, yi
from tests.training.settings import pairs, small_config, write_lines

pytestmark = pytest.mark.slow


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def logits(model: Any, chat: Chat) -> Any:
    import torch

    ids = chat.prompt([Message("system", "你好"), Message("user", "介绍杭州")])
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1].float()


@pytest.fixture(scope="module", params=list(TRAINED))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Any]]:
    """Base folder, model folder, and what was reported as progress."""
    from stages.stage1_train import train_model

    root = tmp_path_factory.mktemp(request.param)
    base = TRAINED[request.param](root / "base")
    reported: list[Any] = []
    train_model(small_config(root, base), "label", root / "label", lambda done, total: reported.append((done, total)))
    return base, root / "label", reported


def test_a_model_folder_is_complete(trained: tuple[Path, Path, list[Any]]) -> None:
    base, folder, reported = trained
    names = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    names |= {"metrics.json", "train_config.json", "loss.jsonl", "loss.png", "seeds.rejects.jsonl"}
    assert names <= {path.name for path in folder.iterdir()} and not (folder / "work").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["examples"] + metrics["held_out"] == 24 and metrics["held_out"] > 0
    assert metrics["train_loss_last"] < metrics["train_loss_first"]
    assert len(metrics["eval_loss_by_epoch"]) == 2 and metrics["eval_loss"] == metrics["eval_loss_by_epoch"][-1]
    assert reported[0] == (0, metrics["steps"]) and reported[-1] == (metrics["steps"], metrics["steps"])
    assert load_chat(folder).fingerprint == load_chat(base).fingerprint


def test_loaded_again_with_and_without_merging(trained: tuple[Path, Path, list[Any]]) -> None:
    import torch

    from kun.models.loading import load_model

    base, folder, _ = trained
    merged, chat = load_model(base, folder)
    apart, _ = load_model(base, folder, merge=False)
    plain, _ = load_model(base)
    assert torch.allclose(logits(merged, chat), logits(apart, chat), atol=1e-4)
    assert not torch.allclose(logits(merged, chat), logits(plain, chat), atol=1e-3)
    assert merged.generation_config.eos_token_id == list(chat.end_ids)


def test_new_rows_are_trained_and_saved(trained: tuple[Path, Path, list[Any]]) -> None:
    import torch

    from kun.models.loading import load_base, load_model

    base, folder, _ = trained
    chat = load_chat(base)
    before = load_base(base, chat, torch.float32)
    after, _ = load_model(base, folder)
    for side in ("get_input_embeddings", "get_output_embeddings"):
        rows = getattr(before, side)().weight, getattr(after, side)().weight
        changed = (rows[0] != rows[1]).any(dim=1).nonzero().flatten().tolist()
        assert changed == list(chat.new_ids)


def test_a_merged_model_needs_no_base(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kun.models.loading import load_model
    from stages.stage1_train import train_model

    base = yi(tmp_path / "base")
    config = small_config(tmp_path, base)
    merged = small_config(tmp_path, base, train={"save": "merged"})
    train_model(config, "label", tmp_path / "adapter", lambda done, total: None)
    train_model(merged, "label", tmp_path / "merged", lambda done, total: None)
    one, chat = load_model(base, tmp_path / "adapter")
    other, same = load_model(base, tmp_path / "merged")
    assert chat.fingerprint == same.fingerprint
    assert torch.allclose(logits(one, chat), logits(other, chat), atol=1e-5)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(other, chat), logits(theirs, chat))
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").eos_token_id == chat.end_id == chat.end_ids[0]
    assert not list((tmp_path / "merged").glob("*.bin"))


def test_a_damaged_adapter_is_named_with_the_remedy(trained: tuple[Path, Path, list[Any]], tmp_path: Path) -> None:
    from kun.models.loading import load_model

    base, folder, _ = trained
    for name, length in (("adapter_model.safetensors", 100), ("tokenizer.json", 0)):
        damaged = shutil.copytree(folder, tmp_path / name)
        os.truncate(damaged / name, length)
        (damaged / "fingerprint.json").write_text('{"step": {"part": "label", "command": "stage1"}}')
        with pytest.raises(InputError, match=rf"{damaged}: this model cannot be loaded .*`kun run stage1 --force`"):
            load_model(base, damaged)
    (damaged / "tokenizer.json").unlink()
    (damaged / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=r"it has no tokenizer\.json.*`kun run stage1 --force`"):
        load_model(base, damaged)


@pytest.mark.parametrize("device", ["cuda:99", "meta", "gpu"])
def test_a_device_that_is_not_here_is_named(tmp_path: Path, device: str) -> None:
    from kun.models.loading import load_model

    with pytest.raises(
        ConfigError, match=rf"engine\.device: {device} cannot be used here .*; auto takes what there is"
    ):
        load_model(llama(tmp_path / "base"), device=device)


def test_a_killed_training_ends_in_the_same_bytes(tmp_path: Path) -> None:
    base = yi(tmp_path / "base")
    config = small_config(tmp_path, base, train={"label": {"num_train_epochs": 5}})
    (tmp_path / "config.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "tests.training.killing", tmp_path / "config.json"]
    command += [tmp_path / "whole", tmp_path / "killed", "3", "6"]
    one_thread = {**environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=REPOSITORY, env=one_thread, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(ast.literal_eval(done.stdout.strip().splitlines()[-1])) == 6
    assert file_bytes(tmp_path / "killed") == file_bytes(tmp_path / "whole")


def test_half_a_checkpoint_never_counts(tmp_path: Path) -> None:
    from kun.training import checkpoints

    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"x")
    for step in (2, 4):
        checkpoints.seal(tmp_path / f"checkpoint-{step}")
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-4"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    (tmp_path / "checkpoint-4" / checkpoints.MARKER).unlink()
    assert checkpoints.latest(tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"w3ights", b"weig", None])
def test_a_damaged_checkpoint_does_not_count(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    from kun.training import checkpoints

    weights = tmp_path / "checkpoint-2" / "adapter_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    checkpoints.seal(weights.parent)
    assert checkpoints.latest(tmp_path) == weights.parent
    assert caplog.messages == []
    weights.unlink() if damage is None else weights.write_bytes(damage)
    assert checkpoints.latest(tmp_path) is None and not list(tmp_path.iterdir())
    assert caplog.messages == [f"{weights.parent}: the checkpoint is damaged; the training goes on from the beginning"]


def test_checkpoints_of_other_settings_are_not_used(tmp_path: Path) -> None:
    from stages.stage1_train import train_model

    base = llama(tmp_path / "base")
    config = small_config(tmp_path, base)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(config, "label", tmp_path / "label", stop)
    assert (tmp_path / "label" / "work" / "checkpoint-4").is_dir()
    other = small_config(tmp_path, base, seed=1)
    seen: list[int] = []
    train_model(other, "label", tmp_path / "label", lambda done, total: seen.append(done))
    assert seen[0] == 0


def test_modules_that_the_model_lacks_are_an_error(tmp_path: Path) -> None:
    from stages.stage1_train import train_model

    config = small_config(tmp_path, llama(tmp_path / "base"), train={"lora": {"target_modules": ["query"]}})
    with pytest.raises(ConfigError, match=r"train\.lora: .*query"):
        train_model(config, "label", tmp_path / "label", lambda done, total: None)


def test_examples_over_the_models_window_are_an_error(tmp_path: Path) -> None:
    from stages.stage1_train import train_model

    config = small_config(tmp_path, llama(tmp_path / "base"), train={"max_length": 4000})
    rows = [*pairs(3), {"instruction": "长", "output": "长文。" * 100}]
    write_lines(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(
        ConfigError, match=r"train\.max_length: an example has \d+ tokens, and the base model reads 512"
    ):
        train_model(config, "label", tmp_path / "label", lambda done, total: None)


def test_a_base_without_weights_is_named(tmp_path: Path) -> None:
    from stages.stage1_train import train_model

    base = llama(tmp_path / "base")
    (base / "model.safetensors").unlink()
    config = small_config(tmp_path, base)
    with pytest.raises(InputError, match=r"base_model: the model in .* cannot be loaded"):
        train_model(config, "label", tmp_path / "label", lambda done, total: None)
    (base / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        train_model(config, "label", tmp_path / "label", lambda done, total: None)


def test_batches_that_differ_from_inference_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from kun.training import seeds
    from kun.training.seeds import SeedPair, Task
    from kun.training.sft import check

    chat = load_chat(llama(tmp_path / "base"))
    rows = seeds.read_seeds(
        write_lines(tmp_path / "p.jsonl", [{"instruction": "问一问", "output": "答"}]), SeedPair, "seeds.pairs", []
    )
    task = Task(rows[0], [Message("user", "答")], "问一问")
    (good,) = seeds.encode([task], chat, 500, "seeds.pairs", [])

    class Trainer:
        data_collator = DataCollatorForLanguageModeling(pad_token_id=chat.pad_id)

    check(Trainer, chat, [good])
    with pytest.raises(AssertionError, match="prompt of inference"):
        check(Trainer, chat, [replace(good, prompt=good.prompt[:-1])])
    with pytest.raises(AssertionError, match="one end token"):
        check(Trainer, chat, [replace(good, completion=good.completion[:-1])])
    beginning = replace(good, task=replace(task, ends=False), completion=good.completion[:-1])
    check(Trainer, chat, [good, beginning])
    with pytest.raises(AssertionError, match="one end token"):
        check(Trainer, chat, [replace(beginning, completion=good.completion)])
    with pytest.raises(AssertionError, match="padding token is the end token"):
        check(Trainer, replace(chat, pad_id=chat.end_id), [good])


def test_batches_are_of_similar_length_and_hold_every_example_once() -> None:
    rng = random.Random(1)
    lengths = [rng.randrange(10, 400) for _ in range(333)]
    task = Task(Seed("seeds.jsonl", 1, "0", SeedPair("问", "答")), [], "答")
    examples = [Example(task, [0] * length, [number]) for number, length in enumerate(lengths)]
    ordered = batched_by_length(examples, 16, seed=7)
    assert sorted(example.completion[0] for example in ordered) == list(range(333))
    batches = [[len(e.prompt) for e in ordered[i : i + 16]] for i in range(0, 333, 16)]
    assert sum(max(batch) * len(batch) for batch in batches) < 1.1 * sum(lengths)
    assert [max(batch) for batch in batches] != sorted(max(batch) for batch in batches)
    assert batched_by_length(examples, 16, seed=7) == ordered
