"""What is fuzzed: `TARGETS["wanjuan"]` makes an input from a random generator, and says what became of it.

A target ends in outcomes (kept, the reason of a reject, the class of an error of Kun's own) or in a failure: any other
exception, or a property that does not hold.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from kun.checks import answers
from kun.checks.faithfulness import faithfulness
from kun.checks.selection import read_calibration
from kun.config.files import dump, load
from kun.config.schema import Clean, Corpus, Seeds
from kun.corpora import evaluation, files, index, read_corpus
from kun.corpora.ingest import counted, documents, items
from kun.errors import KunError
from kun.filters import quality
from kun.filters.clean import clean
from kun.filters.duplicates.signatures import sign
from kun.filters.perplexity import text as lm_text
from kun.seeds import files as seed_files
from kun.text import numerals
from kun.text.characters import count
from kun.text.fold import fold
from kun.text.language import identify
from kun.text.normal import normalise, printable, split_paragraphs, split_sentences
from kun.training import seeds
from tests.fuzzing import inputs
from tests.fuzzing.inputs import NAMES, as_text


@dataclass(frozen=True)
class Target:
    """`check(data)` gives the outcomes of one input, for any bytes; `make(rng)` an input that gets far."""

    make: Callable[[random.Random], bytes]
    check: Callable[[bytes], Iterable[str]]


def outcomes(target: Target, data: bytes) -> list[str]:
    """The outcomes of one input; what is no error of Kun's own is raised."""
    try:
        return list(target.check(data))
    except KunError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        return [type(error).__name__]


@cache
def folder() -> Path:
    """For the files of this process, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="kun-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))


def _file(kind: str, data: bytes) -> Path:
    path = folder() / NAMES[kind][data[0] % len(NAMES[kind]) if data else 0]
    path.write_bytes(data[1:])
    return path


def _corpus(kind: str, data: bytes) -> Iterator[str]:
    path = _file(kind, data)
    last = 0
    for row in read_corpus("fuzz", Corpus(paths=(str(path),), format=kind)):
        row.origin.file.encode()
        assert kind == "wanjuan" or row.origin.row >= last  # two members of an archive may have one name
        last = row.origin.row
        if row.reject is None:
            assert normalise(row.text).encode() is not None
            yield "kept"
        else:
            assert row.reject.reason.isidentifier() and len(row.reject.detail) < 500
            (row.text + row.reject.detail).encode()
            yield row.reject.reason


def _ranges(data: bytes) -> Iterator[str]:
    """The parts of a file, cut anywhere, give the documents of the file that is read at once."""
    path = folder() / "ranges.jsonl"
    path.write_bytes(data[1:])
    corpus = Corpus(paths=(str(path),), format="jsonl")
    size = 1 + 7 * data[0] if data else 1
    with patch("kun.corpora.units.PART_BYTES", size), patch.object(files, "ROW_LIMIT", limit := 2000):
        with patch("kun.corpora.units.ROW_LIMIT", limit), tempfile.TemporaryDirectory(dir=folder()) as target:
            index.build(Path(target), "fuzz", corpus, ["digest of the file"], lambda: None)
            parts = index.units(Path(target), "fuzz", corpus)
            found = [
                outcome
                for unit in parts
                for outcome in documents(
                    "fuzz",
                    items(unit.rows(corpus)),
                    index.occurrences(Path(target), unit),
                )
            ]
        rows = list(items(read_corpus("fuzz", corpus)))
        assert found == list(documents("fuzz", rows, counted(rows)))
    yield f"{min(len(parts), 3)} parts or more"
    yield from ("kept" if not hasattr(outcome, "reason") else outcome.reason for _, outcome in found)


def _evaluation(data: bytes) -> Iterator[str]:
    file = files.CorpusFile(_file("evaluation", data), "a")
    for fields in ((), ("question",)):
        for _, strings in evaluation.read_texts(file, fields):
            "".join(strings).encode()
            yield "row"


def _seeds(data: bytes) -> Iterator[str]:
    path = _file("seeds", data)
    other = Seeds.model_validate({"header": False, "turns": "first", "fields": {"output": "chosen"}})
    for kind, settings in (
        (seeds.SeedPair, Seeds()),
        (seeds.SeedPair, other),
        (seeds.JudgedInstruction, Seeds()),
        (seeds.PolishedText, Seeds()),
    ):
        bad: list[seeds.BadSeed] = []
        try:
            with patch.object(seed_files._log, "disabled", True):  # it says which encoding it has found
                usable = seeds.read_seeds(str(path), kind, "seeds.pairs", bad, settings)
            for seed in usable:
                assert all(text.strip() for text in (seed.row.instruction, getattr(seed.row, "output", "x")))
                yield "a conversation" if getattr(seed.row, "history", ()) else "kept"
        except KunError as error:
            assert len(str(error)) < 5_000
            yield "InputError"
        for one in bad:
            assert len(msgspec.json.encode(one)) < 5_000
            yield one.reason


def _calibration(data: bytes) -> Iterator[str]:
    path = folder() / "calibration.jsonl"
    path.write_bytes(data)
    yield from ("kept" for _ in read_calibration(path))


def _config(data: bytes) -> Iterator[str]:
    path = folder() / "self.yaml"
    path.write_bytes(data)
    (folder() / "base.yaml").write_text("seed: 3\nfilter: {max_tokens: 100}\n")
    (folder() / "loop.yaml").write_text("extends: self.yaml\n")
    config = load(path)
    again = folder() / "again.yaml"
    again.write_text(dump(config), encoding="utf-8")
    assert load(again) == config
    yield "loaded" if data.strip() else "empty"


def _text(data: bytes) -> Iterator[str]:
    text = as_text(data)
    whole = normalise(text)
    whole.encode()
    assert normalise(whole) == whole
    assert "".join(split_sentences(whole)) == whole == "".join(split_paragraphs(whole))
    shown = printable(text)
    shown.encode()
    assert "\x1b" not in shown
    yield "empty" if not whole else "same" if whole == text else "changed"


def _clean_instruction(data: bytes) -> Iterator[str]:
    text = as_text(data)
    made = answers.clean_instruction(text)
    assert len(made) <= len(text) and made == made.strip()
    yield "empty" if not made else "same" if made == text else "changed"
    output = answers.clean_output(text)
    yield "output " + ("same" if output == text else "changed")
    yield f"unusable {(answers.unusable(text) or ('no', ''))[0]}"


def _verdict(data: bytes) -> Iterator[str]:
    text = as_text(data)
    yield from (str(answers.verdict(text, *words)) for words in (("优", "差"), ("合格", "不合格"), ("good", "bad")))


def _repetition(data: bytes) -> Iterator[str]:
    text = as_text(data)
    found = answers.repeats(text, 5)
    yield "repeats " + (found.split(" ")[0] if found else "no")
    yield f"twice {answers.says_twice(text) is not None}"
    half = text[len(text) // 2 :]
    yield f"again {answers.says_again(text, half) is not None}"
    copied = answers.copied(half, text)
    assert copied is None or copied in answers.folded(text)
    yield f"copied {copied is not None}"
    yield f"echo {answers.echo(text, half) is not None}"


def _faithfulness(data: bytes) -> Iterator[str]:
    text = as_text(data)
    middle = len(text) // 2
    found = faithfulness(text[:middle], text[middle:], text[:30])
    assert 0 <= found.score <= 1 and isinstance(found.detail, str)
    yield f"{found.score:.1f}"
    same = faithfulness(text, text)
    assert same.score == 1 or not same.items or same.unsupported


def _numerals(data: bytes) -> Iterator[str]:
    text = as_text(data)
    found = numerals.numbers(text)
    missing = numerals.unsupported_numbers(text, text[len(text) // 2 :])
    assert len(missing) <= len(found)
    yield f"{min(len(found), 3)} numbers, {min(len(missing), 3)} missing"


def _quality(data: bytes) -> Iterator[str]:
    text = as_text(data)
    texts = [text, "", text[::-1], text[: len(text) // 2]]
    together = quality.measure(texts)
    alone = quality.measure([text])
    for name, values in together.items():
        assert np.isfinite(values).all() and values[0] == alone[name][0]
    yield "repeats" if together["repetition"][0] > 0.5 else "no repetition"


def _cleaning(data: bytes) -> Iterator[str]:
    text = normalise(as_text(data))
    for script in (None, "simplified", "traditional"):
        made, changes = clean(text, Clean(encoding=True, page_lines=True, script=script))
        made.encode()
        assert (made != text) == bool(changes)
        yield " ".join(changes) or "same"


def _language(data: bytes) -> Iterator[str]:
    yield from identify(count([normalise(as_text(data))]))


def _signatures(data: bytes) -> Iterator[str]:
    text = as_text(data)
    rows = sign([text, "", text])
    assert (rows[0] == rows[2]).all()
    yield "unsigned" if (rows[0] == 0xFFFF).all() else "signed"


def _fold(data: bytes) -> Iterator[str]:
    text = as_text(data)
    one = fold([text])
    three = fold(["前", text, "后"])
    assert (three.codes[three.borders[1] : three.borders[2]] == one.codes).all()
    yield "empty" if not len(one.codes) else "folded"


def _lm_text(data: bytes) -> Iterator[str]:
    text = as_text(data)
    assert lm_text.kun_characters(text) == " ".join(lm_text.kun(text))
    bare = lm_text.cc_net(normalise(text))
    bare.encode()
    yield "empty" if not bare else "text"


def _chat(data: bytes) -> Iterator[str]:
    from kun.models.chat import Message

    text = as_text(data)
    scalar = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    for name, chat, control in _chats():
        ids = chat.encode(scalar)
        assert control.isdisjoint(ids), name
        prompt = chat.prompt([Message("user", scalar)])
        assert [token for token in prompt if token in control] == [
            token for token in chat.prompt([Message("user", "x")]) if token in control
        ], name
        yield "same" if chat.decode(ids) == scalar else "lossy"


@cache
def _chats() -> list[tuple[str, Any, set[int]]]:
    import json

    from kun.models.chat import load_chat
    from tests import tiny_models

    made = []
    with patch.object(tiny_models, "_save_model", lambda folder, *_, **__: folder):
        for name, make in tiny_models.SHAPES.items():
            chat = load_chat(make(folder() / name))
            tokens = json.loads(chat.files.raw.to_str())["added_tokens"]
            made.append((name, chat, {token["id"] for token in tokens if token["content"].strip()}))
    return made


READERS = ("wudao", "wanjuan", "skypile", "jsonl", "text", "parquet")
_TEXTS = {
    "text_functions": _text,
    "answers_clean": _clean_instruction,
    "verdict": _verdict,
    "repetition": _repetition,
    "faithfulness": _faithfulness,
    "numerals": _numerals,
    "quality": _quality,
    "cleaning": _cleaning,
    "language": _language,
    "signatures": _signatures,
    "fold": _fold,
    "lm_text": _lm_text,
    "chat": _chat,
}
TARGETS = {
    **{kind: Target(partial(inputs.corpus_file, kind=kind), partial(_corpus, kind)) for kind in READERS},
    "ranges": Target(lambda rng: rng.randbytes(1) + inputs.json_lines(rng, ("text",)), _ranges),
    "evaluation": Target(partial(inputs.corpus_file, kind="evaluation"), _evaluation),
    "seeds": Target(inputs.seed_file, _seeds),
    "calibration": Target(inputs.CALIBRATION, _calibration),
    "config": Target(inputs.settings, _config),
    **{name: Target(inputs.text_bytes, check) for name, check in _TEXTS.items()},
}
