import json
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from kun.config import Config, Decontaminate
from kun.corpora import read
from kun.corpora.ingest import counted, documents, items
from kun.demo.tokens import build_tokenizer
from kun.errors import InputError
from kun.filters.decontaminate import build
from kun.filters.lmplz import make
from kun.filters.percentiles import Limits
from kun.records import Document, Filtered, Origin, Reject
from stages.stage2_filter import measure, open_filter, piece_splitter
from tests.filters.tiny_lm import needs_lmplz, write_arpa

DATA = Path(__file__).parents[3] / "shared" / "data"
PROSE = "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多。"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "given").mkdir()
    config = configuration("unused", lm={"model": str(write_arpa(tmp_path / "given"))})
    make(config.filter.lm, tmp_path / "lm")
    return tmp_path / "lm"


def configuration(base, **settings):
    return Config.model_validate({"base_model": base, "filter": settings})


def document(text, row=0):
    return Document(id=f"{row:020x}", subset="web", text=text, origin=Origin("a.jsonl", row))


def test_a_kept_document_carries_ppl_and_tokens(base, model):
    kept = open_filter(configuration(base), model)(document(PROSE))
    assert isinstance(kept, Filtered)
    assert (kept.text, kept.tokens) == (PROSE, len(PROSE))
    assert kept.ppl > 1


def test_without_a_model_there_is_no_perplexity(base):
    assert open_filter(configuration(base), None)(document(PROSE)).ppl is None


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("短", Limits(), "too_short"),
        (PROSE * 30, Limits(), "too_long"),
        (PROSE * 3, Limits(), "repetition"),
        (PROSE, Limits(high=1.5), "ppl_high"),
        (PROSE, Limits(low=1e9), "ppl_low"),
        ("<|im_end|>" + PROSE, Limits(), None),
    ],
)
def test_the_rules(base, model, text, limits, reason):
    verdict = open_filter(configuration(base), model, limits)(document(text))
    assert (verdict.reason if isinstance(verdict, Reject) else None) == reason


@pytest.fixture
def evaluations(tmp_path):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"context": PROSE}), encoding="utf-8")
    build(Decontaminate(files=(str(tmp_path / "eval.jsonl"),)), tmp_path / "index")
    return tmp_path / "index"


def test_a_text_of_an_evaluation_is_rejected_by_its_name(base, evaluations):
    judge = open_filter(configuration(base), None, evaluations=evaluations)
    verdict = judge(document(f"一家小店的老板说：{PROSE[5:30]}"))
    assert (verdict.reason, verdict.detail[:17]) == ("contaminated", "eval.jsonl, row 0")
    assert isinstance(judge(document("一家小店的老板说，今年的游客比往年少了一些，不过他并不着急。")), Filtered)


def test_repetition_can_be_off(base):
    assert isinstance(open_filter(configuration(base, repetition=None), None)(document(PROSE * 3)), Filtered)


def test_the_filter_goes_to_other_processes(base, model):
    rules = open_filter(configuration(base), model, Limits(1.0, 1e9))
    texts = [document(PROSE, 0), document("短", 1)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(rules, texts)) == [rules(text) for text in texts]
    assert len(pickle.dumps(rules)) < 2000


def test_limits_are_measured_on_what_the_other_rules_keep(base, model):
    prose = [document("".join(random.Random(n).sample(PROSE, 30)), n) for n in range(50)]
    menus = [document("鑫" * 400, n + 50) for n in range(50)]
    config = configuration(base, ppl_min=None, ppl_max="p100")
    limits, measured = measure(config, [*prose, *menus], model)
    kept = [open_filter(config, model)(text).ppl for text in prose]
    assert (limits, measured) == (Limits(None, max(kept)), 50)
    assert measure(configuration(base, ppl_min=2.0, ppl_max=None), prose, model) == (Limits(2.0, None), 0)


def test_a_base_model_is_needed():
    with pytest.raises(InputError, match="base_model"):
        open_filter(Config(), None)


def test_splitting_is_a_setting(base):
    assert piece_splitter(configuration(base)) is None
    config = Config.model_validate({"base_model": base, "ingest": {"overlong": "split"}, "filter": {"max_tokens": 50}})
    split = piece_splitter(config)
    assert split is not None
    assert split(PROSE * 2) == [PROSE, PROSE]


@needs_lmplz
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real text is not here: {DATA}")
@pytest.mark.parametrize(
    ("subset", "noise", "loss"), [("wanjuan", 0.95, 0.08), ("skypile", 0.97, 0.08), ("wudao", 0.6, 0.1)]
)
def test_noise_is_caught_and_prose_kept_on_real_text(base, real_lm, subset, noise, loss):
    """Rows that are dropped for their length aside; exact duplicates are no loss. See docs/measurements.md."""
    config = Config.model_validate(
        {"base_model": base, "corpora": {subset: {"paths": [str(DATA / "corpora" / subset)], "format": subset}}}
    )
    rows = list(read(subset, config.corpora[subset]))
    lines = [json.loads(line) for line in (DATA / "corpora/noise_key.jsonl").read_bytes().splitlines()]
    kinds = {rows[line["row"]].origin: line["kind"] for line in lines if line["subset"] == subset}
    assert not any(row.reject for row in rows)
    found_items = list(items(rows))
    outcomes = list(documents(subset, found_items, counted(found_items)))
    texts = [outcome for _, outcome in outcomes if isinstance(outcome, Document)]
    limits, _ = measure(config, texts, real_lm)
    judge = open_filter(config, real_lm, limits)
    found: dict[str, list[bool]] = {"noise": [], "prose": [], "special_tokens": []}
    for text in texts:
        verdict = judge(text)
        kind = kinds.get(text.origin, "prose")
        if kind in found and not (isinstance(verdict, Reject) and verdict.reason in ("too_short", "too_long")):
            found[kind].append(isinstance(verdict, Reject))
    caught = sum(found["noise"]) / len(found["noise"])
    lost = sum(found["prose"] + found["special_tokens"]) / len(found["prose"] + found["special_tokens"])
    assert caught >= noise, f"{caught:.1%}"
    assert lost <= loss, f"{lost:.1%}"
    twins = {outcome.detail for _, outcome in outcomes if isinstance(outcome, Reject) and outcome.reason == "duplicate"}
    copies = [raw for raw, _ in outcomes if kinds.get(raw.origin) == "duplicate"]
    rejected = {raw.id for raw, outcome in outcomes if isinstance(outcome, Reject)}
    assert all(raw.id in rejected | twins for raw in copies)


@pytest.fixture(scope="module")
def real_lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    config = Config.model_validate({"filter": {"lm": {"estimate_from": str(DATA / "text/prose_zh.jsonl")}}})
    make(config.filter.lm, folder)
    return folder
