"""Makes the artefact of the language model: `make(config.filter.lm, folder, progress)`.

A given model is described (an ARPA file is also converted, where KenLM's programs are there); otherwise one is
estimated from clean text with `lmplz`, which `make setup` builds (scripts/build_lmplz.sh).
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
SORT_MEMORY = "1G"  # of lmplz and build_binary; what does not fit is sorted on the disk, in the artefact's folder
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
    for left in folder.glob(".work-*"):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
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
    """The artefact of a given folder or file, which stay where they are."""
    if model.is_dir():
        given = lm.read_info(model)
        sp = None if given.sentencepiece is None else _checked(model, given.sentencepiece, folder)
        file = _checked(model, given.model, folder)
        return lm.LmInfo(file, given.normalisation, sp, lm.load(model / given.model.path).order, given.made)
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
    """A file of the given artefact as `folder` names it. InputError where it is not what `lm.json` describes."""
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

    `unused` gets the reason of each row that gives none. InputError, naming `setting`, where no row gives one.
    """
    if not path.is_file():
        raise InputError(f"{setting}: no file {path}")
    unused = [] if unused is None else unused
    found = False
    read = read_text if path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt") else read_lines
    for row in read(CorpusFile(path, path.name), field):
        if row.reject is None:
            found = True
            yield row.text
        else:
            unused.append(f"row {row.origin.row}: {row.reject.reason}, {row.reject.detail}")
    if not found:
        first = f"; {unused[0]}" if unused else ""
        raise InputError(f"{setting}: {path} has no line of JSON with a text in `{field}`{first}")


def estimate(
    texts: Callable[[], Iterable[str]],
    folder: Path,
    settings: LanguageModel,
    progress: Progress = lambda done, total: None,
    name: str = "",
) -> lm.LmInfo:
    """An n-gram model with modified Kneser-Ney smoothing, written to `folder`; a text is a sentence.

    `texts()` gives the texts, twice where the tokens are SentencePiece's, which are learned first.
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


def _count_ngrams(
    lmplz: Path,
    lines: Iterable[str],
    settings: LanguageModel,
    work: Path,
    progress: Progress,
) -> int:
    # Small and synthetic text has no n-gram of some count, where the estimate of a discount fails: fall back.
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
                pass  # it ended early, and said why in the log
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise InputError(f"filter.lm.estimate_from: lmplz failed: {_end(log)}")
    return count


def _convert(build_binary: Path, arpa: Path, folder: Path, structure: str, work: Path) -> None:
    """ARPA to KenLM's binary: a trie with 8-bit values and packed pointers (small), or hashes (fast)."""
    quantised = ["-q", "8", "-b", "8", "-a", "255"] if structure == "trie" else []
    new = work / MODEL
    command = [str(build_binary), "-S", SORT_MEMORY, "-T", f"{work}/", *quantised, structure, str(arpa), str(new)]
    with (work / "build_binary.log").open("w+b") as log:
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode:
            raise InputError(f"{lm.SETTING}: build_binary failed on {arpa.name}: {_end(log)}")
    new.replace(folder / MODEL)


def find_program(name: str) -> Path | None:
    """`lmplz` or `build_binary`: in the folder $KUN_LMPLZ (or beside the program it names), beside Python, on PATH."""
    folders = [Path(sys.executable).parent]
    if given := os.environ.get("KUN_LMPLZ"):
        folders.insert(0, Path(given) if Path(given).is_dir() else Path(given).parent)
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def _how_to_get() -> str:
    return HOW_TO_GET.format(prefix=sys.prefix)


def _end(log: IO[bytes]) -> str:
    """The last lines of a program's output, in one."""
    log.seek(0)
    said = log.read()[-4000:].decode("utf-8", "replace").split("\n")
    return preview(" ".join(line.strip() for line in said[-6:]).strip(), 600)
