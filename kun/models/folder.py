"""Where a model is, what it is called, and what its config.json has: `text_settings(local_folder("models/yi-6b"))`.

No torch.
"""

from __future__ import annotations

import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError


def local_folder(name: str | Path, setting: str = "base_model") -> Path:
    """The folder of a model: `name` itself, or its snapshot in the local hub cache. Never asks the network.

    Raises InputError, naming `setting` and the folder.
    """
    folder = Path(name)
    if folder.is_dir():
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
    """The configuration in config.json of the model, or of the part that reads text where it also sees or hears.

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
    """The step of a pipeline that made a model: the model's name in the run, and the command that makes it again."""

    part: str
    command: str


class Made(msgspec.Struct, frozen=True):
    """What `fingerprint.json` in the folder of a model that Kun trained tells of its making."""

    step: Step


def made_by(folder: Path) -> Step | None:
    """The step that made the model; None where it is not one of Kun's, or its fingerprint cannot be read."""
    try:
        return msgspec.json.decode((folder / "fingerprint.json").read_bytes(), type=Made).step
    except (OSError, ValueError):
        return None


def plain_name(folder: Path) -> str:
    """A model's name in its run, such as `label` or `chat`; of another model, its folder's own name."""
    step = made_by(folder)
    return step.part if step else folder.name


def remedy(folder: Path) -> str:
    """What to do about a model whose files are damaged or missing."""
    step = made_by(folder)
    return f"train it again with `kun run {step.command} --force`" if step else "put the model's files there again"


@cache
def warn_of_code(folder: Path) -> None:
    """Warn, once in each process, that code of the model's may run."""
    text = f"trust_remote_code is on: Python code that comes with {folder} may run, with all the rights that you have"
    logging.getLogger(__name__).warning("kun: WARNING: %s", text)
