"""Where a model is, and what its config.json says: `text_settings(local_folder("models/yi-6b"))`. No torch."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

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
    """What config.json says of the model, or of the part that reads text where it also sees or hears.

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


@cache
def warn_of_code(folder: Path) -> None:
    """What is run is said, by every process that runs it."""
    said = f"trust_remote_code is on: Python code that comes with {folder} may run, with all the rights that you have"
    print(f"kun: WARNING: {said}", file=sys.stderr, flush=True)
