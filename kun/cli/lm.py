"""The commands `kun lm train` and `kun lm score`: estimate a language model for the filter, and score texts with it."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

from kun.cli.log import add_verbosity
from kun.config.schema import Filter, LanguageModel
from kun.corpora.files import CorpusFile, lines, open_file
from kun.corpora.readers import read_lines, read_text
from kun.corpora.rows import Row
from kun.errors import InputError
from kun.filters.perplexity.percentiles import percentile
from kun.progress import bar
from kun.records import Reject
from kun.text.normal import normalise, preview, printable

PERCENTILES = (0.5, 1, 5, 10, 25, 50, 60, 75, 90, 95, 99)
BATCH = 256
_log = logging.getLogger(__name__)

TRAIN = """Estimate an n-gram language model from clean text, for the perplexity of stage 2.

The text should be of the kind that you want to keep: a document is judged by how much it surprises the model. Ten
million characters are a start; with order 5 they take about 30 seconds and 1 GB of memory. KenLM's `lmplz` and
`build_binary` do the work (`make setup` builds them).

  kun lm train --from clean.jsonl --out models/lm
  kun lm train --from clean.jsonl.zst --out models/lm --order 5 --prune 0 0 1 --structure probing
  kun lm train --from clean.jsonl --out models/lm --tokens sentencepiece --vocab-size 65536 --normalisation cc_net
"""
SCORE = """Print the perplexity of each document under a language model, then the percentiles of all.

Thresholds (filter.ppl_min, filter.ppl_max) are valid only for the model with which they were measured. Look at
documents near a percentile before you choose it; `kun lm score DIR FILE | sort -n` sorts by perplexity.

  kun lm score models/lm corpus.jsonl
  kun lm score models/lm page.txt            # documents are separated by blank lines
  zcat corpus.jsonl.gz | kun lm score models/lm - --field content --json
"""


def add_command(commands: Any) -> None:
    """Add `lm`, with its two commands, to the commands of kun."""
    raw = argparse.RawDescriptionHelpFormatter
    group = commands.add_parser("lm", help="estimate a language model for the filter, or score texts with one")
    below = group.add_subparsers(required=True, metavar="COMMAND")
    default = LanguageModel()

    train = below.add_parser("train", help="estimate a model from clean text", description=TRAIN, formatter_class=raw)
    train.add_argument("--from", dest="source", type=Path, required=True, help="JSON lines or .txt, also .gz and .zst")
    train.add_argument("--field", default="text", help="field of the text in JSON lines (default: %(default)s)")
    train.add_argument("--out", type=Path, required=True, help="folder to make")
    train.add_argument("--order", type=int, default=default.order, help="n-gram order, 2 to 6 (default: %(default)s)")
    train.add_argument(
        "--prune", type=int, nargs="+", default=(), metavar="N", help="leave out n-grams seen N times or less, by order"
    )
    train.add_argument(
        "--structure", choices=("trie", "probing"), default=default.structure, help="small, or fast (default: trie)"
    )
    train.add_argument(
        "--tokens", choices=("characters", "sentencepiece"), default=default.tokens, help="(default: %(default)s)"
    )
    train.add_argument(
        "--vocab-size",
        type=int,
        default=default.vocab_size,
        help="SentencePiece pieces, at most (default: %(default)s)",
    )
    train.add_argument(
        "--normalisation", choices=("kun", "cc_net"), default=default.normalisation, help="(default: %(default)s)"
    )
    add_verbosity(train)
    train.set_defaults(function=_train)

    score = below.add_parser("score", help="the perplexity of texts", description=SCORE, formatter_class=raw)
    score.add_argument("model", type=Path, help="folder made by `kun lm train` or a run, or folder of a base model")
    score.add_argument("file", help="JSON lines or text, also .gz and .zst; - for standard input")
    score.add_argument("--field", default="text", help="field of the text in JSON lines (default: %(default)s)")
    score.add_argument("--json", action="store_true", help="print JSON lines, the last with the percentiles")
    add_verbosity(score)
    score.set_defaults(function=_score)


def _train(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.filters.perplexity import lm, lmplz

    folder = cast(Path, arguments.out)
    if (folder / lm.INFO).exists():
        raise InputError(f"--out: {folder} holds a language model already: remove it, or choose another folder")
    settings = _settings(arguments)
    unused: list[str] = []

    def texts() -> Iterator[str]:
        unused.clear()
        return lmplz.clean_texts(arguments.source, arguments.field, "--from", unused)

    next(texts())  # an error of the input before a folder is made
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            _naming_the_argument("--from", "filter.lm.estimate_from"),
            bar(f"kun lm train {folder}", "texts") as progress,
        ):
            info = lmplz.estimate(texts, folder, settings, progress, name=arguments.source.name)
        lm.write_info(folder, info)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if unused:
        _log.warning("%s: %s rows gave no text; %s", arguments.source, f"{len(unused):,}", unused[0])
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    tokens = "characters" if info.sentencepiece is None else "SentencePiece pieces"
    print(
        f"wrote {folder}: {info.order}-grams of {tokens}, normalisation {info.normalisation}, {settings.structure}, "
        f"from {info.made['documents']:,} documents, {size:,.1f} MB"
    )
    print("next: look at perplexities of the corpus that it shall filter, then name the folder in the configuration;")
    print("limits are multiples of the median of a sample, those below are the defaults (docs/stage2.md)")
    print(f"  kun lm score {shlex.quote(str(folder))} corpus.jsonl")
    named, default = json.dumps(str(folder), ensure_ascii=False), Filter()
    print(f"  filter: {{lm: {{model: {named}}}, ppl_min: {default.ppl_min}, ppl_max: {default.ppl_max}}}")
    return 0


def _reason(row: Row) -> str:
    assert row.reject is not None
    return f"row {row.origin.row}: {row.reject.reason}, {row.reject.detail}"


@contextmanager
def _naming_the_argument(argument: str, setting: str) -> Iterator[None]:
    """Report errors of a setting as errors of the command-line argument that stands for it here."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(f"{argument}{text.removeprefix(setting)}" if text.startswith(setting) else text) from None


def _settings(arguments: argparse.Namespace) -> LanguageModel:
    from pydantic import ValidationError

    names = ("order", "structure", "tokens", "vocab_size", "normalisation")
    try:
        options = {name: getattr(arguments, name) for name in names}
        return LanguageModel(prune=tuple(arguments.prune), estimate_from=str(arguments.source), **options)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}, not {first['input']}") from None


def _score(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.filters.perplexity import lm

    ppls = array("d")
    unread = 0
    with _rows(arguments.file, arguments.field) as rows:
        while batch := list(islice(rows, BATCH)):
            good = [row for row in batch if row.reject is None]
            unread += len(batch) - len(good)
            with _naming_the_argument("MODEL", lm.SETTING):
                scores = lm.perplexities(arguments.model, [normalise(row.text) for row in good])
            for row, ppl in zip(good, scores, strict=True):
                _print_row(row, ppl, arguments.json)
            ppls.extend(scores)
            for row in batch:
                if row.reject is not None:
                    _log.warning("%s: %s", arguments.file, _reason(row))
    if not ppls:
        raise InputError(f"{arguments.file}: there is no text in it that could be scored; see --field")
    ordered = sorted(ppls)
    percentiles = {f"p{percent:g}": percentile(ordered, percent) for percent in PERCENTILES}
    if arguments.json:
        print(json.dumps({"documents": len(ppls), "unread": unread, "percentiles": percentiles}))
    else:
        print(f"{len(ppls):,} documents; percentiles of perplexity:")
        print("  ".join(f"{name} {value:.1f}" for name, value in percentiles.items()))
    return 1 if unread else 0


def _print_row(row: Row, ppl: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"row": row.origin.row, "ppl": ppl}))
    else:
        print(f"{ppl:.1f}\t{row.origin.row}\t{printable(preview(' '.join(row.text.split()), 60))}")


@contextmanager
def _rows(file: str, field: str) -> Iterator[Iterator[Row]]:
    """The rows of a file, or of a copy of standard input, which can be read only once."""
    if file != "-":
        if Path(file).is_dir():
            raise InputError(f"{file}: a folder; give one of its files")
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file; - is standard input")
        yield _read(CorpusFile(Path(file), file), field)
        return
    with tempfile.NamedTemporaryFile(prefix="kun-lm-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield _read(CorpusFile(Path(copy.name), "standard input"), field)


def _read(found: CorpusFile, field: str) -> Iterator[Row]:
    """JSON lines where the file begins with an object, and text otherwise."""
    with open_file(found) as stream:
        pieces = (piece for _, piece in lines(stream, found))
        head = next((piece for piece in pieces if isinstance(piece, Reject) or piece.strip()), b"")
    is_text = isinstance(head, bytes) and not head.lstrip().startswith(b"{")
    return (read_text if is_text else read_lines)(found, field)
