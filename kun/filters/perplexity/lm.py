"""The language model of the filter: `perplexity = open_lm(folder); perplexity(text)`.

An artefact is a folder with `lm.json`, which names the KenLM file, the normalisation and the tokens (characters, or a
SentencePiece model), and usually with the files themselves. kun.filters.perplexity.lmplz makes one; `open_given` opens
a bare file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from kun.config.schema import EngineConfig
from kun.errors import InputError
from kun.filters.perplexity import base_model as base_lm
from kun.filters.perplexity import pieces
from kun.filters.perplexity.text import CHARACTERS, NORMALISATIONS
from kun.store import atomic

INFO = "lm.json"
SETTING = "filter.lm.model"
BINARY_MAGIC = b"mmap lm http://kheafield.com/code"  # lm/binary_format.cc
ARPA_MAGIC = b"\\data\\"

Perplexity = Callable[[str], float]
CPU_OR_GPU = EngineConfig()


class ModelFile(msgspec.Struct, frozen=True):
    """A file of the artefact: its path (relative if it is in the folder of `lm.json`) and SHA-256."""

    path: str
    sha256: str


class LmInfo(msgspec.Struct, frozen=True):
    """The content of `lm.json`. `made` is for people: where the model comes from, how it was estimated."""

    model: ModelFile
    normalisation: Literal["kun", "cc_net"]
    sentencepiece: ModelFile | None  # None: the tokens are characters
    order: int
    made: dict[str, Any]


def perplexities(
    path: Path, texts: Sequence[str], engine: EngineConfig = CPU_OR_GPU, trust_remote_code: bool = False
) -> list[float]:
    """The perplexities of texts under the artefact, or the transformers model, in folder `path`.

    `engine` has the device and the size of batches for the latter. InputError, naming the file and the setting, where
    the folder cannot be used.
    """
    if base_lm.is_base(path):
        return base_lm.open_base(path, engine, trust_remote_code)(texts)
    return list(map(open_lm(path), texts))


@lru_cache(maxsize=2)
def open_lm(path: Path) -> Perplexity:
    """The perplexity of a text under the artefact in folder `path`.

    10^(-log10 p / (tokens + 1)) over the whole text as one line, the end counting as a token. A KenLM binary is
    memory-mapped and shared by all processes. InputError, naming the file and the setting, where it cannot be used.
    """
    info = read_info(path)
    sentencepiece = None if info.sentencepiece is None else path / info.sentencepiece.path
    return open_given(path / info.model.path, sentencepiece, info.normalisation)


def read_info(folder: Path) -> LmInfo:
    try:
        return msgspec.json.decode((folder / INFO).read_bytes(), type=LmInfo)
    except OSError as error:
        raise InputError(f"{SETTING}: {folder} is no language model of Kun: {INFO}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InputError(f"{SETTING}: {folder / INFO}: {error}") from None


def write_info(folder: Path, info: LmInfo) -> None:
    """Write `lm.json`, last of all: it marks the folder as complete."""
    atomic.write(folder / INFO, msgspec.json.format(msgspec.json.encode(info)) + b"\n")


def model_file(path: Path, folder: Path) -> ModelFile:
    """The entry for the file at `path` in the `lm.json` of `folder`."""
    name = path.name if path.parent == folder else str(path.resolve())
    with path.open("rb") as file:
        return ModelFile(name, hashlib.file_digest(file, "sha256").hexdigest())


def is_binary(path: Path) -> bool:
    """True for a KenLM binary, False for an ARPA file; InputError for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{SETTING}: {path}: {error.strerror}") from None
    if not head.startswith(BINARY_MAGIC) and not head.lstrip().startswith(ARPA_MAGIC):
        raise InputError(f"{SETTING}: {path} is neither a KenLM binary nor an ARPA file")
    return head.startswith(BINARY_MAGIC)


def load(path: Path) -> Any:
    """The kenlm.Model of a file. InputError where it is damaged, or made for longer n-grams or another machine."""
    import kenlm

    is_binary(path)
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(str(path), config)
    except OSError as error:
        raise InputError(f"{SETTING}: {path} is damaged, or no model that this kenlm can read: {error}") from None


def open_given(model: Path, sentencepiece: Path | None, normalisation: str) -> Perplexity:
    """The perplexity under a bare KenLM binary or ARPA file. An ARPA file of 1 GB loads in ten seconds, a binary at
    once."""
    score = load(model).score
    to_line = liner(normalisation, sentencepiece)

    def perplexity(text: str) -> float:
        line = to_line(text)
        tokens = line.count(" ") + bool(line)
        return float(10 ** (-score(line) / (tokens + 1)))

    return perplexity


def liner(normalisation: str, sentencepiece: Path | None) -> Callable[[str], str]:
    """A function from a text to the line of tokens that KenLM reads: characters, or SentencePiece pieces."""
    if sentencepiece is None:
        return CHARACTERS[normalisation]
    normalise, to_pieces = NORMALISATIONS[normalisation], pieces.load(sentencepiece)
    return lambda text: to_pieces(normalise(text))
