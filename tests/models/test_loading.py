"""What a model folder may make Kun do: load safetensors. Pickles and Python code in it are never run unasked."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kun.errors import InputError
from kun.models.chat import load_chat
from kun.models.tokenizer import read_tokenizer
from tests.runs import environment
from tests.tiny_models import llama
from tests.training.settings import small_config

pytestmark = pytest.mark.slow
PICKLES = ("pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
PICKLES += ("training_args.bin", "model.pkl", "tokenizer.pkl")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


def plant(path: Path, made: Path) -> None:
    import torch

    torch.save(Bomb(made), path)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What a bomb makes; that it can is shown first."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "made")))
    (tmp_path / "made").rmdir()
    return tmp_path / "made"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return llama(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    from kun.models.loading import load_base

    chat = load_chat(base)
    model = get_peft_model(load_base(base, chat, "float32"), LoraConfig(r=2, target_modules="all-linear"))
    model.save_pretrained(tmp_path / "adapter")
    chat.save(tmp_path / "adapter")
    return tmp_path / "adapter"


def as_pickle(folder: Path, name: str, bad: str) -> None:
    """The weights in a folder, as a sound pickle and nothing else."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / name), folder / bad)
    (folder / name).unlink()


def test_weights_that_are_a_pickle_are_refused(base: Path) -> None:
    from kun.models.loading import load_model

    as_pickle(base, "model.safetensors", "pytorch_model.bin")
    with pytest.raises(InputError, match=r"base_model: the model in .*base cannot be loaded: .*safetensors"):
        load_model(base)


def test_an_adapter_that_is_a_pickle_is_refused(base: Path, adapter: Path) -> None:
    from kun.models.loading import load_model

    load_model(base, adapter)
    as_pickle(adapter, "adapter_model.safetensors", "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter: this model cannot be loaded \(it has no adapter_model.safetensors"):
        load_model(base, adapter)


def test_pickles_beside_the_weights_are_not_looked_at(base: Path, adapter: Path, made: Path) -> None:
    from kun.models.loading import load_model

    for folder in (base, adapter):
        for name in PICKLES:
            plant(folder / name, made)
    load_model(base, adapter)
    for folder, name in ((adapter, "adapter_model.safetensors"), (base, "model.safetensors")):
        (folder / name).unlink()
        with pytest.raises(InputError):
            load_model(base, adapter)
    assert not made.exists()


CODE = """
import os
os.mkdir({made!r})
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = {kind!r}
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


def with_code(base: Path, made: Path, kind: str) -> Path:
    """The model with Python code of its own, under a name that transformers knows or one that it does not."""
    (base / "own.py").write_text(CODE.format(made=str(made), kind=kind), encoding="utf-8")
    for name, classes in (
        ("config.json", {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "own.Tokenizer"]}),
    ):
        settings = json.loads((base / name).read_text(encoding="utf-8"))
        settings |= {"auto_map": classes, **({"model_type": kind} if name == "config.json" else {})}
        (base / name).write_text(json.dumps(settings), encoding="utf-8")
    return base


LOAD = """
import sys
from kun.models.loading import load_model
from kun.errors import KunError
try:
    load_model(sys.argv[1], trust_remote_code=sys.argv[2] == "trust")
except KunError as error:
    sys.exit(f"kun: {error}")
"""


def load(base: Path, trust: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose copies of remote code go to a folder of the test."""
    surroundings = {**environment(), "HF_HOME": str(base.parent / "hub")}
    command = [sys.executable, "-c", LOAD, str(base), trust]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True)


@pytest.mark.parametrize(("kind", "status"), [("llama", 0), ("own", 1)])
def test_code_of_a_model_is_not_run(base: Path, made: Path, kind: str, status: int) -> None:
    done = load(with_code(base, made, kind), "never")
    assert done.returncode == status, done.stderr
    assert "WARNING" not in done.stderr and not made.exists()
    if status:
        assert "kun: base_model: the model in" in done.stderr and "trust_remote_code" in done.stderr


def test_code_that_is_asked_for_is_run_and_said(base: Path, made: Path) -> None:
    done = load(with_code(base, made, "own"), "trust")
    assert made.exists(), done.stderr
    assert f"kun: WARNING: trust_remote_code is on: Python code that comes with {base} may run" in done.stderr


def test_code_of_a_tokenizer_is_not_run(base: Path, made: Path) -> None:
    with_code(base, made, "own")
    (base / "tokenizer.json").rename(base / "own.json")
    with pytest.raises(InputError, match=r"the tokenizer in .* cannot be read"):
        read_tokenizer(base)
    assert not made.exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A training that was stopped after its second checkpoint, and its configuration."""
    from stages.stage1_train import train_model

    root = tmp_path_factory.mktemp("stopped")
    config = small_config(root, llama(root / "base"))

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(config, "label", root / "label", stop)
    return root / "label", config


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_pickle_in_a_checkpoint_is_not_run(stopped: tuple[Path, Any], tmp_path: Path, made: Path, name: str) -> None:
    """Not even where its marker was made to fit."""
    from kun.training import checkpoints
    from stages.stage1_train import train_model

    folder = shutil.copytree(stopped[0], tmp_path / "label")
    checkpoint = folder / "work" / "checkpoint-4"
    plant(checkpoint / name, made)
    checkpoints.seal(checkpoint)
    with pytest.raises(InputError, match=r"checkpoint-4: the checkpoint is not one of Kun's; delete it"):
        train_model(stopped[1], "label", folder, lambda done, total: None)
    assert not made.exists()


def test_what_a_resumed_training_does_not_read_may_be_anything(
    stopped: tuple[Path, Any], tmp_path: Path, made: Path
) -> None:
    from kun.training import checkpoints
    from stages.stage1_train import train_model

    folder = shutil.copytree(stopped[0], tmp_path / "label")
    checkpoint = folder / "work" / "checkpoint-4"
    for name in ("training_args.bin", "adapter_model.bin", "optimizer.bin"):
        plant(checkpoint / name, made)
    checkpoints.seal(checkpoint)
    seen: list[int] = []
    train_model(stopped[1], "label", folder, lambda done, total: seen.append(done))
    assert seen[0] == 4 and not made.exists()
