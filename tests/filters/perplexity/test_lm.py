import json
import pickle
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.config.schema import LanguageModel
from kun.errors import InputError
from kun.filters.perplexity import lm, lmplz, pieces
from kun.filters.perplexity import text as lm_text
from kun.filters.perplexity.text import cc_net, kun
from tests.filters.perplexity.tiny_lm import needs_lmplz, write_arpa


def test_perplexity_by_hand(tmp_path):
    perplexity = lm.open_given(write_arpa(tmp_path), None, "kun")
    assert perplexity("好") == pytest.approx(10 ** ((0.30103 + 1) / 2), rel=1e-5)
    assert perplexity("好的") == pytest.approx(10 ** ((0.30103 + 0.1 + 1) / 3), rel=1e-5)
    assert perplexity(" 好\n的 ") == perplexity("好的")
    assert perplexity("鑫") == pytest.approx(10 ** ((3 + 1) / 2), rel=1e-5)
    assert perplexity("") == pytest.approx(10.0, rel=1e-5)  # the end alone; never 0, which would pass for perfect


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Kun １２ 号，ＯＫ。", "kun12号,ok。"),
        ("第 2024 年\n第二行", "第2024年第二行"),
        ("坏\ud800\0字", "坏字"),
    ],
)
def test_our_normalisation(text, line):
    assert kun(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Ａ，b。C、d：E？f！", "ａ,b.c,d:e?f!"),
        ("“引”「号」《书》〈单〉【方】（圆）", '"引""号""书"<单>[方](圆)'),
        ("2024年１月", "0000年0月"),
        ("café Ñandú", "cafe nandu"),
        ("两行\n并成\t一行\x85", "两行并成一行"),
        ("破—折…点．波～", "破 - 折...点. 波~"),
        ("’s ´ – ━ ► ％ ∶ „«»", '\'s \' - - - % : """'),
        ("  两端 ", "两端"),
        (" \n", ""),
        ("が", "か"),  # the voicing mark is an accent to cc_net
        ("한국", "한국"),  # Hangul stays decomposed, as in the original
    ],
)
def test_the_normalisation_of_cc_net(text, line):
    import unicodedata

    assert cc_net(text) == (unicodedata.normalize("NFD", line) if text == "한국" else line)


@given(st.text(st.characters() | st.sampled_from("Σσ…—１ａ\u0301\u302e\u1b44\U0001d160が한İ\n\x85"), max_size=40))
def test_character_by_character_cc_net_gives_what_its_steps_give(text):
    assert cc_net(text) == lm_text._cc_net_steps(text.strip().lower())


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\\data\\\nngram 1=3\n", lm.BINARY_MAGIC + b" format version 5\n\0"]
)
def test_a_file_that_is_no_model(tmp_path, content):
    path = tmp_path / "zh.arpa.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"filter\.lm\.model: .*{path}"):
        lm.open_given(path, None, "kun")
    with pytest.raises(InputError, match=r"filter\.lm\.model"):
        lmplz.make(LanguageModel(model=str(path)), tmp_path / "lm")


def test_a_folder_that_is_no_artefact(tmp_path):
    with pytest.raises(InputError, match=r"filter\.lm\.model: .*lm\.json"):
        lm.open_lm(tmp_path)
    (tmp_path / "lm.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"lm\.json"):
        lm.read_info(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        lmplz.make(LanguageModel(model=str(tmp_path / "none.bin")), tmp_path / "lm")


TEXT = "".join(map(chr, range(0x4E00, 0x4E80)))
CLEAN = ["今天天气很好，我们去公园走走。", "他每天早上喝一杯茶，然后去上班。", "公园里有很多人在散步，天气真好。"] * 30


def clean_file(folder, lines=None):
    path = folder / "clean.jsonl"
    texts = [json.dumps({"text": text}, ensure_ascii=False) for text in CLEAN]
    path.write_text("\n".join(texts if lines is None else lines) + "\n", encoding="utf-8")
    return path


@needs_lmplz
@pytest.mark.parametrize("tokens", ["characters", "sentencepiece"])
@pytest.mark.parametrize("structure", ["trie", "probing"])
@pytest.mark.parametrize(("order", "prune"), [(2, ()), (4, (0, 0, 1, 2))])
def test_an_estimated_model_knows_its_language(tmp_path, tokens, structure, order, prune):
    seen = []
    settings = LanguageModel(
        estimate_from=str(clean_file(tmp_path)),
        order=order,
        prune=prune,
        structure=structure,
        tokens=tokens,
        vocab_size=80,
    )
    info = lmplz.make(settings, tmp_path / "lm", lambda done, total: seen.append(done))
    assert seen[-1] == 90 and info.order == order and info.made["documents"] == 90
    names = ["lm.binary", "lm.json"] + (["sentencepiece.model"] if tokens == "sentencepiece" else [])
    assert sorted(path.name for path in (tmp_path / "lm").iterdir()) == names
    assert lm.load(tmp_path / "lm" / "lm.binary").order == order
    perplexity = lm.open_lm(tmp_path / "lm")
    shuffled = list(CLEAN[0])
    random.Random(0).shuffle(shuffled)
    assert perplexity("今天早上天气很好。") < min(perplexity("".join(shuffled)), perplexity("鷿狘锣颌揤菧鷗虞"))


@needs_lmplz
def test_the_same_corpus_gives_the_same_file(tmp_path):
    settings = LanguageModel(estimate_from=str(clean_file(tmp_path)), order=3, prune=(0, 0, 1))
    first, second = (lmplz.make(settings, tmp_path / name) for name in ("one", "two"))
    assert first.model == second.model


@needs_lmplz
def test_pruning_makes_a_smaller_model_and_a_trie_is_smaller_than_hashes(tmp_path):
    source = str(
        clean_file(tmp_path, [json.dumps({"text": "".join(random.Random(n).sample(TEXT, 40))}) for n in range(200)])
    )
    sizes = {}
    for name, options in {"trie": {}, "pruned": {"prune": (0, 0, 1)}, "probing": {"structure": "probing"}}.items():
        lmplz.make(LanguageModel(estimate_from=source, order=4, **options), tmp_path / name)
        sizes[name] = (tmp_path / name / "lm.binary").stat().st_size
    assert sizes["pruned"] < sizes["trie"] < sizes["probing"]


@needs_lmplz
def test_pieces_are_those_of_the_corpus_and_the_same_each_time(tmp_path):
    settings = LanguageModel(estimate_from=str(clean_file(tmp_path)), order=3, tokens="sentencepiece", vocab_size=80)
    first, second = (lmplz.make(settings, tmp_path / name) for name in ("one", "two"))
    assert (first.model, first.sentencepiece) == (second.model, second.sentencepiece)
    line = pieces.load(tmp_path / "one" / "sentencepiece.model")("今天天气很好")
    assert line.replace(" ", "") == "今天天气很好" and line.count(" ") < 5
    with pytest.raises(InputError, match=r"filter\.lm\.vocab_size: 5 pieces cannot be learned"):
        lmplz.make(settings.model_copy(update={"vocab_size": 5}), tmp_path / "three")


@needs_lmplz
@pytest.mark.parametrize("name", ["lm.binary", "sentencepiece.model"])
def test_a_given_folder_with_another_file_than_it_describes(tmp_path, name):
    settings = LanguageModel(estimate_from=str(clean_file(tmp_path)), order=2, tokens="sentencepiece", vocab_size=80)
    lmplz.make(settings, tmp_path / "lm")
    lmplz.make(LanguageModel(model=str(tmp_path / "lm")), tmp_path / "whole")
    with (tmp_path / "lm" / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match=rf"filter\.lm\.model: .*{name} is not the file that .*lm\.json describes"):
        lmplz.make(LanguageModel(model=str(tmp_path / "lm")), tmp_path / "other")
    (tmp_path / "lm" / name).unlink()
    with pytest.raises(InputError, match=rf"filter\.lm\.model: .*{name}, which .*lm\.json names: No such file"):
        lmplz.make(LanguageModel(model=str(tmp_path / "lm")), tmp_path / "other")


@needs_lmplz
def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "lm" / ".work-old").mkdir(parents=True)
    lmplz.make(LanguageModel(estimate_from=str(clean_file(tmp_path)), order=2), tmp_path / "lm")
    assert not list((tmp_path / "lm").glob(".work-*"))


@needs_lmplz
def test_lmplz_that_fails_says_why(tmp_path):
    settings = LanguageModel(estimate_from=str(clean_file(tmp_path)), order=2, prune=(0, 5, 3))
    with pytest.raises(InputError, match=r"lmplz failed: .*[Pp]run"):
        lmplz.make(settings, tmp_path / "lm")


@pytest.mark.parametrize(
    ("lines", "message"),
    [(["nothing"], "no line of JSON .* row 0: not_json"), ([], "no line of JSON"), (None, "no file")],
)
def test_a_clean_corpus_that_is_none(tmp_path, lines, message):
    source = tmp_path / "none" if lines is None else clean_file(tmp_path, lines)
    with pytest.raises(InputError, match=rf"filter\.lm\.estimate_from: .*{message}"):
        list(lmplz.clean_texts(source))


def test_without_lmplz_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUN_LMPLZ", raising=False)
    with pytest.raises(InputError, match=r"estimate_from: lmplz.*make setup.*apt-get install.*libboost"):
        lmplz.make(LanguageModel(estimate_from=str(clean_file(tmp_path))), tmp_path / "lm")
    model = write_arpa(tmp_path)
    info = lmplz.make(LanguageModel(model=str(model)), tmp_path / "given")  # slow to load, but it works
    assert info.model.path == str(model)
    assert lm.open_lm(tmp_path / "given")("好") == lm.open_given(model, None, "kun")("好")


def test_a_program_is_found_where_the_user_says(tmp_path, monkeypatch):
    for name in ("lmplz", "build_binary"):
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    for value in (tmp_path, tmp_path / "lmplz"):
        monkeypatch.setenv("KUN_LMPLZ", str(value))
        assert lmplz.find_program("build_binary") == tmp_path / "build_binary"


@needs_lmplz
def test_a_given_arpa_file_is_converted(tmp_path):
    model = write_arpa(tmp_path)
    lmplz.make(LanguageModel(model=str(model), structure="probing"), tmp_path / "lm")
    assert lm.is_binary(tmp_path / "lm" / "lm.binary")
    assert lm.open_lm(tmp_path / "lm")("好的") == pytest.approx(lm.open_given(model, None, "kun")("好的"), rel=1e-4)


@needs_lmplz
def test_a_given_binary_or_artefact_stays_where_it_is(tmp_path):
    lmplz.make(LanguageModel(estimate_from=str(clean_file(tmp_path)), order=3), tmp_path / "lm")
    expected = lm.open_lm(tmp_path / "lm")("今天")
    for source in (tmp_path / "lm" / "lm.binary", tmp_path / "lm"):
        folder = tmp_path / f"from-{source.name}"
        info = lmplz.make(LanguageModel(model=str(source)), folder)
        assert info.model.path == str(tmp_path / "lm" / "lm.binary")
        assert [path.name for path in folder.iterdir()] == ["lm.json"]
        assert lm.open_lm(folder)("今天") == expected


@needs_lmplz
def test_a_model_of_sentencepieces_scores_as_cc_net_does(tmp_path):
    import io

    import kenlm
    import sentencepiece

    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CLEAN), model_writer=stream, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    (tmp_path / "zh.sp.model").write_bytes(stream.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())
    lines = [json.dumps({"text": " ".join(processor.encode(cc_net(text), out_type=str))}) for text in CLEAN]
    # A model of pieces: lmplz on text that is tokenised already.
    source = tmp_path / "pieces.txt"
    source.write_text("\n".join(json.loads(line)["text"] for line in lines) + "\n", encoding="utf-8")
    import subprocess

    arpa = tmp_path / "zh.arpa"
    command = [str(lmplz.find_program("lmplz")), "-o", "3", "--discount_fallback", "-S", "100M"]
    subprocess.run([*command, "--text", str(source), "--arpa", str(arpa)], check=True, capture_output=True)

    settings = LanguageModel(
        model=str(arpa), sentencepiece=str(tmp_path / "zh.sp.model"), normalisation="cc_net", structure="probing"
    )
    lmplz.make(settings, tmp_path / "lm")
    text = "今天，他去公园喝茶！"
    line = " ".join(processor.encode(cc_net(text), out_type=str))
    expected = 10.0 ** (-kenlm.Model(str(tmp_path / "lm" / "lm.binary")).score(line) / (len(line.split()) + 1))
    assert lm.open_lm(tmp_path / "lm")(text) == pytest.approx(expected, rel=1e-6)

    with pytest.raises(InputError, match=r"filter\.lm\.sentencepiece"):
        lmplz.make(LanguageModel(model=str(arpa), sentencepiece="none"), tmp_path / "other")
    with pytest.raises(InputError, match=r"filter\.lm\.sentencepiece: .* is not a SentencePiece model"):
        lm.open_given(arpa, arpa, "cc_net")


def test_the_description_travels(tmp_path):
    info = lmplz.make(LanguageModel(model=str(write_arpa(tmp_path))), tmp_path / "lm")
    assert lm.read_info(tmp_path / "lm") == info
    assert pickle.loads(pickle.dumps(info)) == info


def test_no_language_model_at_all(tmp_path):
    with pytest.raises(InputError, match=r"filter\.lm: neither model nor estimate_from is set"):
        lmplz.make(LanguageModel(), tmp_path / "lm")


def test_build_binary_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "build_binary").write_text("#!/bin/sh\necho the disk is full >&2; exit 1\n", encoding="utf-8")
    (tmp_path / "build_binary").chmod(0o755)
    monkeypatch.setenv("KUN_LMPLZ", str(tmp_path))
    with pytest.raises(InputError, match=r"filter\.lm\.model: build_binary failed on .*\.arpa: the disk is full"):
        lmplz.make(LanguageModel(model=str(write_arpa(tmp_path))), tmp_path / "lm")
