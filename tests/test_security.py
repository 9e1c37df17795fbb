"""Nothing let in, nothing given away: what Kun reads from others, what it sends, and where secrets go."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kun.config.files import load
from kun.errors import ConfigError, InputError
from kun.models.chat import load_chat
from kun.prompts import load_prompts
from tests.runs import REPOSITORY, command, environment, small_world
from tests.tiny_models import llama

CODE = [*(REPOSITORY / "kun").rglob("*.py"), *(REPOSITORY / "stages").rglob("*.py")]
NEVER = r"""pickle\.loads?\(|allow_pickle=True|weights_only=False|torch\.load\((?!.*weights_only=True)|joblib|dill"""
NEVER += r"""|yaml\.(unsafe_)?load\(|\beval\((?!\))|\bexec\(|shell=True|os\.system|trust_remote_code=True"""
NEVER += r"""|use_safetensors=False"""

# Read by every Python process at its start, so by worker processes as well.
GUARD = """
import os, socket
def refuse(name):
    def call(*arguments, **options):
        where = arguments[-1] if name != "getaddrinfo" else arguments[0]
        if isinstance(where, tuple) or name == "getaddrinfo":  # others are names of Unix sockets
            with open(os.environ["CALLS"], "a") as file:
                print(name, where, file=file)
            raise OSError("the test lets nothing out")
        return real[name](*arguments, **options)
    return call
real = {"connect": socket.socket.connect, "connect_ex": socket.socket.connect_ex, "getaddrinfo": socket.getaddrinfo}
class Guarded(socket.socket):
    connect, connect_ex = refuse("connect"), refuse("connect_ex")
socket.socket = Guarded
socket.getaddrinfo = refuse("getaddrinfo")
"""
SECRETS = {"HF_TOKEN": "hf_geheimAAAA", "KUN_API_KEY": "sk-geheimBBBB", "OPENAI_API_KEY": "sk-geheimCCCC"}


def guarded(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`kun` in processes that cannot reach any other machine, with secrets in their environment."""
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    variables = {name: value for name, value in environment().items() if name != "HF_HUB_OFFLINE"}
    variables |= {"PYTHONPATH": f"{folder}/guard:{REPOSITORY}", "CALLS": str(folder / "calls"), **SECRETS}
    return subprocess.run(command(*arguments), cwd=folder, env=variables, capture_output=True, text=True)


def calls(folder: Path) -> str:
    return (folder / "calls").read_text(encoding="utf-8") if (folder / "calls").exists() else ""


def test_the_guard_sees_what_goes_out(tmp_path):
    guarded(tmp_path, "--help")
    code = "import urllib.request as u; u.urlopen('http://127.0.0.1:9/')"
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "guard"), "CALLS": str(tmp_path / "calls")}
    done = subprocess.run([*command()[:2], code], env=variables, capture_output=True, text=True)
    assert "the test lets nothing out" in done.stderr and "127.0.0.1" in calls(tmp_path)


def test_a_base_model_that_is_not_here_is_an_error_at_once(tmp_path):
    done = guarded(tmp_path, "run", "stage1", "--config", small_world(tmp_path), "--base-model", "nobody/nothing")
    said = (
        "kun: base_model: nobody/nothing is neither a folder nor in the local hub cache; `hf download nobody/nothing`\n"
    )
    assert (done.returncode, done.stderr, calls(tmp_path)) == (2, said, "")


@pytest.mark.slow
def test_a_whole_run_reaches_nobody_and_writes_no_secret(tmp_path):
    config = small_world(tmp_path, documents=12, seeds=60)
    done = guarded(tmp_path, "run", "all", "--config", config, "--workers", "2")  # which have the guard as well
    assert done.returncode == 0, done.stderr
    assert calls(tmp_path) == ""
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"config.yaml", "lineage.parquet", "lock"} <= {path.name for path in written}
    for secret in SECRETS.values():
        assert not [path for path, data in written.items() if secret.encode() in data]
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "setting",
    [
        "train: {sft: {hub_token: hf_geheim}}",
        "train: {label: {push_to_hub_token: hf_geheim}}",
        "engine: {vllm: {hf-token: hf_geheim}}",
    ],
)
def test_a_secret_among_the_settings_is_refused_and_not_shown(tmp_path, setting):
    (tmp_path / "my.yaml").write_text(setting, encoding="utf-8")
    with pytest.raises(ConfigError, match="secrets belong into the environment") as caught:
        load(tmp_path / "my.yaml")
    assert "hf_geheim" not in str(caught.value)


def test_a_secret_in_an_address_is_refused_and_not_shown(tmp_path):
    address = "http://me:geheim@node1:8000/v1"
    (tmp_path / "my.yaml").write_text(f"engine: {{server: {{urls: ['{address}']}}}}", encoding="utf-8")
    with pytest.raises(ConfigError, match="KUN_API_KEY") as caught:
        load(tmp_path / "my.yaml")
    assert "geheim" not in str(caught.value)
    done = guarded(tmp_path, "run", "stage1", "--config", small_world(tmp_path), "--engine.server.urls", address)
    assert done.returncode == 2 and "KUN_API_KEY" in done.stderr
    shown = "".join(character for character in done.stderr if character.isalnum())
    assert "geheim" not in shown and "mege" not in shown and not (tmp_path / "run").exists()


def test_no_line_of_the_code_loads_pickles_or_runs_text():
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(NEVER, line)
    ]
    assert CODE and not found


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [{made}]", "!!python/name:os.mkdir"])
def test_yaml_makes_no_objects(tmp_path, tag):
    made = tmp_path / "made"
    text = f"run: {tag.format(made=made)}\n"
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"my.yaml"):
        load(tmp_path / "my.yaml")
    for name in ("label", "score", "polish"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("run", "user"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"label.yaml"):
        load_prompts(str(tmp_path))
    assert not made.exists()


def test_an_array_that_is_a_pickle_is_refused(tmp_path):
    from kun.corpora.files import CorpusFile
    from kun.corpora.index import REPEATS, Unit, occurrences
    from tests.models.test_loading import Bomb

    np.save(tmp_path / REPEATS, np.array([Bomb(tmp_path / "made")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="object"):
        list(occurrences(tmp_path, Unit("wudao", 0, CorpusFile(tmp_path, "a"), 0, 1)))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_chat_template_reaches_nothing_but_its_messages(tmp_path, template):
    base = llama(tmp_path / "base")
    (base / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(InputError, match=r"the chat template in .* refuses"):
        load_chat(base)
