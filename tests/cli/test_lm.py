"""`kun lm train` and `kun lm score`, as typed."""

import gzip
import json
import os
import subprocess

import pytest

from kun.config.schema import LanguageModel
from kun.filters.perplexity import lm
from kun.filters.perplexity.lmplz import make
from tests.filters.perplexity.test_lm import CLEAN, clean_file
from tests.filters.perplexity.tiny_lm import needs_lmplz, write_arpa
from tests.runs import command, environment, kun


@pytest.fixture
def model(tmp_path):
    make(LanguageModel(model=str(write_arpa(tmp_path))), tmp_path / "lm")
    return tmp_path / "lm"


@needs_lmplz
def test_train_then_score_then_filter(tmp_path):
    clean_file(tmp_path)
    done = kun(
        tmp_path, "lm", "train", "--from", "clean.jsonl", "--out", "models/zh", "--order", "3", "--prune", "0", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "wrote models/zh: 3-grams of characters, normalisation kun, trie, from 90 documents" in done.stdout
    assert "kun lm score models/zh corpus.jsonl" in done.stdout
    assert 'filter: {lm: {model: "models/zh"}, ppl_min: x0.1, ppl_max: x6}' in done.stdout
    assert lm.read_info(tmp_path / "models/zh").made["prune"] == [0, 1]
    shown = kun(tmp_path, "lm", "score", "models/zh", "clean.jsonl").stdout.splitlines()
    assert len(shown) == 93 - 1 and shown[0].endswith(CLEAN[0]) and shown[90].startswith("90 documents")
    again = kun(tmp_path, "lm", "train", "--from", "clean.jsonl", "--out", "models/zh")
    assert again.returncode == 2 and "--out: models/zh holds a language model already" in again.stderr


@needs_lmplz
def test_pieces_and_cc_net_from_plain_text(tmp_path):
    (tmp_path / "clean.txt.gz").write_bytes(gzip.compress("\n\n".join(CLEAN).encode()))
    options = ("--tokens", "sentencepiece", "--vocab-size", "80", "--normalisation", "cc_net", "--structure", "probing")
    done = kun(tmp_path, "lm", "train", "--from", "clean.txt.gz", "--out", "lm", "--order", "2", *options)
    assert "2-grams of SentencePiece pieces, normalisation cc_net, probing, from 90 documents" in done.stdout, (
        done.stderr
    )
    info = lm.read_info(tmp_path / "lm")
    assert info.sentencepiece is not None and info.normalisation == "cc_net"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "none.jsonl"), "--from: no file none.jsonl"),
        (("--from", "empty.jsonl"), "--from: empty.jsonl has no line of JSON with a text in `text`"),
        (("--from", "ok.jsonl", "--field", "body"), "no line of JSON with a text in `body`; row 0: no_field"),
        (("--from", "ok.jsonl", "--order", "9"), "--order: Input should be less than or equal to 6, not 9"),
    ],
)
def test_errors_of_train_name_the_option_and_leave_nothing(tmp_path, arguments, message):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "ok.jsonl").write_text('{"text": "好"}\n')
    done = kun(tmp_path, "lm", "train", "--out", "lm", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "lm").exists()


def test_score_as_json_with_what_cannot_be_read_on_stderr(tmp_path, model):
    lines = [json.dumps({"content": text}) for text in ("好", "好\u2028的", "\ud800")]
    (tmp_path / "web.jsonl").write_text("\n".join([*lines, "{broken", '{"text": 1}']), encoding="utf-8")
    done = kun(tmp_path, "lm", "score", model, "web.jsonl", "--field", "content", "--json")
    *rows, last = map(json.loads, done.stdout.splitlines())
    perplexity = lm.open_lm(model)
    assert rows == [{"row": n, "ppl": perplexity(text)} for n, text in enumerate(("好", "好的", ""))]
    assert (last["documents"], last["unread"], done.returncode) == (3, 2, 1)
    assert last["percentiles"]["p50"] == sorted(row["ppl"] for row in rows)[1]
    assert "web.jsonl: row 3: not_json" in done.stderr and "row 4: no_field" in done.stderr


@pytest.mark.parametrize("given", ["好的\n\n好\n", '{"text": "好的"}\n{"text": "好"}\n'])
def test_score_of_standard_input(tmp_path, model, given):
    done = subprocess.run(
        command("lm", "score", model, "-"), input=given, cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    ppls = [float(line.split("\t")[0]) for line in done.stdout.splitlines()[:2]]
    assert ppls == [round(lm.open_lm(model)(text), 1) for text in ("好的", "好")]
    assert "2 documents; percentiles of perplexity:" in done.stdout


def test_errors_of_score(tmp_path, model):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "text.txt").write_text("好", encoding="utf-8")
    for arguments, message in [
        ((model, "none.jsonl"), "none.jsonl: no such file"),
        ((model, "empty.txt"), "empty.txt: there is no text"),
        ((model, "."), ".: a folder; give one of its files"),
        ((tmp_path, "text.txt"), f"kun: MODEL: {tmp_path} is no language model of Kun"),
    ]:
        done = kun(tmp_path, "lm", "score", *arguments)
        assert done.returncode == 2 and message in done.stderr


def test_what_can_be_read_of_a_cut_file_is_scored(tmp_path, model):
    packed = gzip.compress(json.dumps({"text": "好"}).encode() + b"\n" + os.urandom(2000).hex().encode() + b"\n")
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-100])
    done = kun(tmp_path, "lm", "score", model, "cut.jsonl.gz")
    assert "1 documents; percentiles" in done.stdout and "cut.jsonl.gz: row 1: truncated" in done.stderr
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:15])
    done = kun(tmp_path, "lm", "score", model, "cut.jsonl.gz")
    assert done.returncode == 2 and "row 0: truncated" in done.stderr and "there is no text" in done.stderr


@needs_lmplz
def test_train_says_which_rows_gave_no_text(tmp_path):
    clean_file(tmp_path)
    with (tmp_path / "clean.jsonl").open("a") as file:
        file.write('{"title": "x"}\n{broken\n')
    done = kun(tmp_path, "lm", "train", "--from", "clean.jsonl", "--out", "lm", "--order", "2")
    assert done.returncode == 0 and "clean.jsonl: 2 rows gave no text; row 90: no_field" in done.stderr


def test_a_failed_train_leaves_no_folder(tmp_path):
    clean_file(tmp_path)
    failing = tmp_path / "bin"
    failing.mkdir()
    for name in ("lmplz", "build_binary"):
        (failing / name).write_text("#!/bin/sh\ncat > /dev/null\necho no room >&2\nexit 1\n")
        (failing / name).chmod(0o755)
    done = subprocess.run(
        command("lm", "train", "--from", "clean.jsonl", "--out", "lm"),
        cwd=tmp_path,
        env={**environment(), "KUN_LMPLZ": str(failing)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--from: lmplz failed: no room" in done.stderr
    assert not (tmp_path / "lm").exists()


def test_help_teaches(tmp_path):
    assert "kun lm train --from clean.jsonl --out models/lm" in kun(tmp_path, "lm", "train", "--help").stdout
    assert "zcat corpus.jsonl.gz | kun lm score models/lm -" in kun(tmp_path, "lm", "score", "--help").stdout
