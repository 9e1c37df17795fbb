"""Builds the artefact of the language model: `make(config.filter.lm, folder, progress)`.

For an existing model it writes a description (and converts an ARPA file, if KenLM's programs are installed). Otherwise
it estimates one from clean text with `lmplz`, which `make setup` builds (scripts/build_lmplz.sh).
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from kun.config.schema import LanguageModel
from kun.corpora.files import CorpusFile
from kun.corpora.readers import read_lines, read_text
from kun.errors import InputError
from kun.filters.perplexity import lm, pieces
from kun.filters.perplexity.text import NORMALISATIONS
from kun.progress import Progress
from kun.text.normal import preview

_log = logging.getLogger(__name__)
MODEL, PIECES = "lm.binary", "sentencepiece.model"
SORT_MEMORY = "1G"  # of lmplz and build_binary; they sort the rest on disk, in the artefact's folder
HOW_TO_GET = (
    "run `make setup`, or scripts/build_lmplz.sh {prefix}; it needs a C++ compiler, cmake, zlib and Boost (Debian: "
    "apt-get install g++ make cmake zlib1g-dev libboost-dev libboost-program-options-dev libboost-system-dev "
    "libboost-thread-dev libboost-test-dev). KUN_LMPLZ may name a folder that has it"
)


def make(settings: LanguageModel, folder: Path, progress: Progress = lambda done, total: None) -> lm.LmInfo:
    """Fill `folder` with the artefact that the settings describe. `progress` counts documents.

    InputError where the model or the corpus cannot be used, or where a program is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".work-*"):  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    if settings.model is not None:
        info = _given(settings, Path(settings.model), folder)
    elif settings.estimate_from is not None:
        source = Path(settings.estimate_from)
        info = estimate(partial(clean_texts, source), folder, settings, progress, name=source.name)
    else:
        raise InputError("filter.lm: neither model nor estimate_from is set: there is no language model")
    lm.write_info(folder, info)
    return info


def _given(settings: LanguageModel, model: Path, folder: Path) -> lm.LmInfo:
    """The artefact of an existing folder or file, which stays in its place."""
    if model.is_dir():
        info = lm.read_info(model)
        sp = None if info.sentencepiece is None else _checked(model, info.sentencepiece, folder)
        file = _checked(model, info.model, folder)
        return lm.LmInfo(file, info.normalisation, sp, lm.load(model / info.model.path).order, info.made)
    order = lm.load(model).order
    file, made = lm.model_file(model, folder), {"given": model.name}
    if not lm.is_binary(model):
        if (program := find_program("build_binary")) is not None:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as work:
                _convert(program, model, folder, settings.structure, Path(work))
            file = lm.model_file(folder / MODEL, folder)
        else:
            _log.warning("%s is an ARPA file, which loads slowly, in every process; %s", model, _how_to_get())
    sp = None
    if settings.sentencepiece is not None:
        if not Path(settings.sentencepiece).is_file():
            raise InputError(f"filter.lm.sentencepiece: no file {settings.sentencepiece}")
        sp = lm.model_file(Path(settings.sentencepiece), folder)
    return lm.LmInfo(file, settings.normalisation, sp, order, made)


def _checked(given: Path, described: lm.ModelFile, folder: Path) -> lm.ModelFile:
    """A file of an existing artefact, as named in `folder`. InputError where it is not the one that `lm.json`
    describes."""
    path = given / described.path
    try:
        file = lm.model_file(path, folder)
    except OSError as error:
        raise InputError(f"{lm.SETTING}: {path}, which {given / lm.INFO} names: {error.strerror}") from None
    if file.sha256 != described.sha256:
        raise InputError(
            f"{lm.SETTING}: {path} is not the file that {given / lm.INFO} describes (its SHA-256 is another): copy the "
            "folder again, or make it again with `kun lm train`"
        )
    return file


def clean_texts(
    path: Path, field: str = "text", setting: str = "filter.lm.estimate_from", unused: list[str] | None = None
) -> Iterator[str]:
    """The texts of JSON lines (in `field`), or of plain text by its name .txt; .gz and .zst as well.

    The reasons of unusable rows are added to `unused`. InputError, naming `setting`, where no row has a text.
    """
    if not path.is_file():
        raise InputError(f"{setting}: no file {path}")
    unused = [] if unused is None else unused
    has_text = False
    read = read_text if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt") else read_lines
    for row in read(CorpusFile(path, path.name), field):
        if row.reject is None:
            has_text = True
            yield row.text
        else:
            unused.append(f"row {row.origin.row}: {row.reject.reason}, {row.reject.detail}")
    if not has_text:
        first = f"; {unused[0]}" if unused else ""
        raise InputError(f"{setting}: {path} has no line of JSON with a text in `{field}`{first}")


def estimate(
    texts: Callable[[], Iterable[str]],
    folder: Path,
    settings: LanguageModel,
    progress: Progress = lambda done, total: None,
    name: str = "",
) -> lm.LmInfo:
    """Estimate an n-gram model with modified Kneser-Ney smoothing in `folder`; a text counts as one sentence.

    `texts()` returns the texts; it is called twice for SentencePiece tokens, which are learned first.
    """
    lmplz, build_binary = find_program("lmplz"), find_program("build_binary")
    if lmplz is None or build_binary is None:
        raise InputError(f"filter.lm.estimate_from: lmplz, which estimates models, is not here; {_how_to_get()}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as scratch:
        work = Path(scratch)
        sp = None
        if settings.tokens == "sentencepiece":
            pieces.train(texts(), NORMALISATIONS[settings.normalisation], settings.vocab_size, folder / PIECES)
            sp = lm.model_file(folder / PIECES, folder)
        to_line = lm.liner(settings.normalisation, None if sp is None else folder / PIECES)
        count = _count_ngrams(lmplz, map(to_line, texts()), settings, work, progress)
        _convert(build_binary, work / "lm.arpa", folder, settings.structure, work)
    made = {"estimated_from": name, "documents": count, "prune": settings.prune, "structure": settings.structure}
    return lm.LmInfo(lm.model_file(folder / MODEL, folder), settings.normalisation, sp, settings.order, made)


def _count_ngrams(lmplz: Path, lines: Iterable[str], settings: LanguageModel, work: Path, progress: Progress) -> int:
    # Small or synthetic text may lack n-grams of some count, and then a discount cannot be estimated: fall back.
    command = [str(lmplz), "--order", str(settings.order), "--discount_fallback", "--skip_symbols"]
    command += ["--memory", SORT_MEMORY, "--temp_prefix", f"{work}/", "--arpa", str(work / "lm.arpa")]
    command += ["--prune", *map(str, settings.prune)] if settings.prune else []
    count = 0
    with (work / "lmplz.log").open("w+b") as log:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as process:
            assert process.stdin is not None
            try:
                with process.stdin as stream:
                    for line in lines:
                        stream.write(line.encode() + b"\n")
                        count += 1
                        progress(count, 0)
            except BrokenPipeError:
                pass  # lmplz ended early; its log has the reason
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise InputError(f"filter.lm.estimate_from: lmplz failed: {_end(log)}")
    return count


def _convert(build_binary: Path, arpa: Path, folder: Path, structure: str, work: Path) -> None:
    """Convert ARPA to a KenLM binary: a trie with 8-bit values and packed pointers (small), or hash tables (fast)."""
    quantised = ["-q", "8", "-b", "8", "-a", "255"] if structure == "trie" else []
    new = work / MODEL
    command = [str(build_binary), "-S", SORT_MEMORY, "-T", f"{work}/", *quantised, structure, str(arpa), str(new)]
    with (work / "build_binary.log").open("w+b") as log:
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
            raise InputError(f"{lm.SETTING}: build_binary failed on {arpa.name}: {_end(log)}")
    new.replace(folder / MODEL)


def find_program(name: str) -> Path | None:
    """Find `lmplz` or `build_binary`: in $KUN_LMPLZ (a folder, or a program in it), beside Python, or on PATH."""
    folders = [Path(sys.executable).parent]
    if place := os.environ.get("KUN_LMPLZ"):
        folders.insert(0, Path(place) if Path(place).is_dir() else Path(place).parent)
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def _how_to_get() -> str:
    return HOW_TO_GET.format(prefix=sys.prefix)


def _end(log: IO[bytes]) -> str:
    """The last lines of a program's output, joined."""
    log.seek(0)
    lines = log.read()[-4000:].decode("utf-8", "replace").split("\n")
    return preview(" ".join(line.strip() for line in lines[-6:]).strip(), 600)
