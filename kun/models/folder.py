"""The folder of a model, its name and its config.json, without torch: `text_settings(local_folder("models/yi-6b"))`."""

from __future__ import annotations

import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.store.substitutes import refuse


def local_folder(name: str | Path, setting: str = "base_model") -> Path:
    """The folder of a model: `name` itself, or its snapshot in the local hub cache. Never uses the network.

    InputError names `setting` and the folder.
    """
    folder = Path(name)
    if folder.is_dir():
        for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.model")]):
            refuse(path, setting)
        return folder
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(str(name), local_files_only=True))
        except LocalEntryNotFoundError:
            raise InputError(
                f"{setting}: {name} is neither a folder nor in the local hub cache; `hf download {name}`"
            ) from None
    raise InputError(f"{setting}: no folder {name}; give one that is there, or owner/name of a model in the hub cache")


def text_settings(folder: Path) -> dict[str, Any]:
    """The configuration in config.json of the model, or of its text part if it is multimodal.

    InputError where it cannot be read.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        return dict(settings.get("text_config", settings))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is not the configuration of a model ({error}); put the model's files there again"
        ) from None


class Step(msgspec.Struct, frozen=True):
    """The pipeline step that made a model: the model's name in the run, and the command to make it again."""

    part: str
    command: str


class Made(msgspec.Struct, frozen=True):
    """The part of `fingerprint.json`, in the folder of a model that Kun trained, that is read here."""

    step: Step


def made_by(folder: Path) -> Step | None:
    """The step that made the model; None if Kun did not train it, or its fingerprint cannot be read."""
    try:
        return msgspec.json.decode((folder / "fingerprint.json").read_bytes(), type=Made).step
    except (OSError, ValueError):
        return None


def plain_name(folder: Path) -> str:
    """A model's name in its run, such as `label` or `chat`; for other models the name of the folder."""
    step = made_by(folder)
    return step.part if step else folder.name


def remedy(folder: Path) -> str:
    """What to do about a model whose files are damaged or missing."""
    step = made_by(folder)
    return f"train it again with `kun run {step.command} --force`" if step else "put the model's files there again"


@cache
def warn_of_code(folder: Path) -> None:
    """Warn, once per process, that code from the model's folder may run."""
    text = f"trust_remote_code is on: Python code that comes with {folder} may run, with all the rights that you have"
    logging.getLogger(__name__).warning("kun: WARNING: %s", text)
