import json
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from kun.config.schema import Config, Decontaminate, Quality
from kun.corpora import read_corpus
from kun.corpora.ingest import counted, documents, items
from kun.demo.tokens import build_tokenizer
from kun.engines.cache import EngineCache
from kun.errors import InputError
from kun.filters.decontamination.ngrams import build
from kun.filters.perplexity.lmplz import make
from kun.filters.perplexity.percentiles import Limits
from kun.filters.rules import measure, open_filter
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.records import Document, Filtered, Origin, Reject
from kun.report.trace import find, render
from kun.store.digests import Digests
from kun.store.shards import read_all
from kun.text.characters import common_han
from stages import pipeline
from stages.stage2_ingest import piece_splitter
from tests.filters.perplexity.tiny_lm import needs_lmplz, write_arpa

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
    kept = open_filter(configuration(base), model)([document(PROSE)])[0]
    assert isinstance(kept, Filtered)
    assert (kept.text, kept.tokens) == (PROSE, len(PROSE))
    assert kept.ppl > 1


def test_without_a_model_there_is_no_perplexity(base):
    assert open_filter(configuration(base), None)([document(PROSE)])[0].ppl is None


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("短", Limits(), "too_short"),
        ("，".join(random.Random(0).sample(common_han(), 300)), Limits(), "too_long"),
        (PROSE * 3, Limits(), "repetition"),
        (PROSE, Limits(high=1.5), "ppl_high"),
        (PROSE, Limits(low=1e9), "ppl_low"),
        ("<|im_end|>" + PROSE, Limits(), None),
    ],
)
def test_the_rules(base, model, text, limits, reason):
    verdict = open_filter(configuration(base), model, limits)([document(text)])[0]
    assert (verdict.reason if isinstance(verdict, Reject) else None) == reason


@pytest.fixture
def evaluations(tmp_path):
    (tmp_path / "eval.jsonl").write_text(json.dumps({"context": PROSE}), encoding="utf-8")
    build(Decontaminate(files=(str(tmp_path / "eval.jsonl"),)), tmp_path / "index")
    return tmp_path / "index"


def test_a_text_of_an_evaluation_is_rejected_by_its_name(base, evaluations):
    judge = open_filter(configuration(base), None, evaluations=evaluations)
    (verdict,) = judge([document(f"一家小店的老板说：{PROSE[5:30]}")])
    assert (verdict.reason, verdict.detail[:17]) == ("contaminated", "eval.jsonl, row 0")
    (other,) = judge([document("一家小店的老板说，今年的游客比往年少了一些，不过他并不着急。")])
    assert isinstance(other, Filtered)
    assert (judge.broken(document(PROSE)), judge.broken(document("，".join(PROSE)))) == (["contaminated"],) * 2


def test_repetition_can_be_off(base):
    rules = open_filter(configuration(base, quality={"repetition": None}), None)
    assert isinstance(rules([document(PROSE * 3)])[0], Filtered)


def test_the_filter_goes_to_other_processes(base, model):
    rules = open_filter(configuration(base), model, Limits(1.0, 1e9))
    texts = [document(PROSE, 0), document("短", 1)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(rules, texts).result() == rules(texts)
    assert len(pickle.dumps(rules)) < 2000


def test_limits_are_measured_on_all_documents_whatever_the_other_rules_drop(base, model):
    prose = [document("".join(random.Random(n).sample(PROSE, 30)), n) for n in range(50)]
    menus = [document("鑫" * 400, n + 50) for n in range(50)]
    config = configuration(base, ppl_min=None, ppl_max="p100")
    limits, measured = measure(config, [*prose, *menus], model)
    values = [open_filter(config, model).values(text) for text in [*prose, *menus]]
    assert (limits, measured) == (Limits(None, max(value["ppl_high"] for value in values)), 100)
    fixed = configuration(base, ppl_min=2.0, ppl_max=None, lm={"model": "lm"})
    assert measure(fixed, prose, model) == (Limits(2.0, None), 0)


def test_a_base_model_is_needed():
    with pytest.raises(InputError, match="base_model"):
        open_filter(Config(), None)


def test_splitting_is_a_setting(base):
    assert piece_splitter(configuration(base)) is None
    config = Config.model_validate({"base_model": base, "ingest": {"overlong": "split"}, "filter": {"max_tokens": 50}})
    split = piece_splitter(config)
    assert split is not None
    assert split(PROSE * 2) == [PROSE, PROSE]


WEB = {
    "too_short": "短",
    "rare_characters": PROSE.encode().decode("gbk", "replace"),
    "random_codes": "好消息，"
    + "".join(random.Random(0).choices("0123456789abcdefABCDEF+-_/;%#&=", k=90))
    + "，"
    + PROSE,
    "digits": "办公室电话 010 88889999 88887777，传真 010 66665555，邮政编码 100080，热线 400 800 1234",
    "symbols": "★★★★欢迎光临本店●●●●▲▲▲▲新品上市◆◆◆◆全场八折■■■■数量有限",
    "ellipses": "然后…他…就…走…了…再…也…没…有…回…来…过…一…次…真…的…",
    "unique_characters": PROSE[:9] + "啊" * 12 + "、呀！嗯，" + "啊" * 300,
    "entropy": "好，不好，好不好，好好，不，好，不好不，好好不，不好。",
    "unbroken": "".join(random.Random(1).sample(common_han(), 210)),
    "boilerplate": "首页 登录 注册 返回顶部 联系我们。今天的天气真的很好，湖面在阳光下闪着光。",
    "duplicate_lines": "春风又绿江南岸\n" * 3 + PROSE,
    "bullet_lines": "1. 鸡蛋三个打散\n2. 西红柿两个切块\n3. 小葱一根切碎\n4. 盐少许调味",
    "repetition": PROSE * 3,
    "language": "The bridge was built in 1932 and has a length of four hundred metres.",
    "too_long": "".join(random.Random(2).choices(PROSE, k=150)),
}


def everything(base, **settings):
    quality = {"bullet_lines": 0.9, **settings.pop("quality", {})}
    defaults = {"max_tokens": 140, "ppl_min": "x0.6", "ppl_max": "x1.2"}
    return configuration(base, **{**defaults, **settings, "quality": quality})


def web():
    """Prose, every kind of bad text, and mixtures of two kinds."""
    prose = ["".join(random.Random(n).sample(PROSE, 38)) for n in range(40)]
    mixed = [f"{one}\n{other}" for one in WEB.values() for other in [*WEB.values(), PROSE]]
    return [document(text, row) for row, text in enumerate([*prose, *WEB.values(), *mixed])]


OFF = {reason: {"quality": {reason: None}} for reason in Quality.model_fields}
OFF |= {"too_short": {"min_chars": 0}, "too_long": {"max_tokens": 10**6}, "language": {"languages": []}}
OFF |= {"ppl_low": {"ppl_min": None}, "ppl_high": {"ppl_max": None}}


@pytest.mark.parametrize("reason", OFF)
def test_a_rule_switched_off_gives_back_exactly_what_it_alone_dropped(base, model, reason):
    def filtered(config):
        limits, _ = measure(config, web(), model)
        rules = open_filter(config, model, limits)
        return rules, {d.id for d, outcome in zip(web(), rules(web()), strict=True) if isinstance(outcome, Filtered)}

    rules, kept = filtered(everything(base))
    broken = {d.id: rules.broken(d) for d in web()}
    assert kept == {name for name, reasons in broken.items() if not reasons}
    alone = {name for name, reasons in broken.items() if reasons == [reason]}
    assert any(reason in reasons for reasons in broken.values())
    _, without = filtered(everything(base, **OFF[reason]))
    assert without - kept == alone and kept <= without


def test_the_first_broken_rule_is_the_reason_and_the_detail_says_how_far(base, model):
    rules = open_filter(everything(base), model, Limits(1.0, 9.0))
    for text, outcome in zip(web(), rules(web()), strict=True):
        reasons = rules.broken(text)
        assert (outcome.reason if isinstance(outcome, Reject) else None) == (reasons[0] if reasons else None)
    verdict = rules([document("短")])[0]
    assert verdict == Reject("too_short", "characters: 1, less than 20")


def test_a_document_is_judged_by_itself(base, model):
    rules = open_filter(everything(base), model, Limits(1.0, 40.0))
    assert rules(web()) == [rules([one])[0] for one in web()]


def test_a_cleaned_text_keeps_its_id_and_says_what_was_done(base):
    text = f"首页 | 登录 | 注册\n{PROSE}\n（责任编辑：张三）"
    kept = open_filter(configuration(base), None)([document(text, 7)])[0]
    assert (kept.text, kept.cleaned, kept.id) == (PROSE, ("page_lines",), document(text, 7).id)
    kept = open_filter(configuration(base, clean={"page_lines": False}), None)([document(text, 7)])[0]
    assert (kept.text, kept.cleaned) == (text, ())


def test_personal_data_is_masked_or_the_text_dropped(base):
    texts = [f"{PROSE}电话13812345678。", f"{PROSE}身份证110101199003071233，邮箱zs@qq.com。", PROSE]
    documents = [document(text, row) for row, text in enumerate(texts)]
    rules = open_filter(configuration(base, privacy={"phone": "mask", "identity_number": "drop"}), None)
    masked, dropped, plain = rules(documents)
    assert (masked.text, masked.cleaned) == (f"{PROSE}电话[电话]。", ("phone",))
    assert dropped == Reject("identity_number", "identity numbers: 1, more than 0")
    assert (plain.text, plain.cleaned) == (PROSE, ())
    assert rules.broken(documents[1]) == ["identity_number"] and rules.values(documents[1])["email"] == 1
    assert [one.text for one in open_filter(configuration(base), None)(documents)] == texts


def test_what_is_done_about_personal_data_decides_the_filter(base, tmp_path):
    def decided(**settings):
        config = configuration(base, near_duplicates=None, lm={}, **settings)
        corpora = {"web": {"paths": [str(tmp_path)], "format": "jsonl"}}
        config = Config.model_validate({**config.model_dump(), "corpora": corpora})
        stages = pipeline(config, Digests(tmp_path / "digests.json"), EngineCache(config))
        return next(stage for stage in stages if stage.name == "stage2_filter").steps[0].settings().parts

    assert decided()["filter.privacy.qq"] is None
    assert decided(privacy={"qq": "mask"})["filter.privacy.qq"] == "mask"


def test_trace_shows_the_text_before_and_after(tmp_path, base):
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": f"{PROSE}\n责任编辑：张三"}), encoding="utf-8")
    corpora = {"web": {"paths": [str(tmp_path / "web.jsonl")], "format": "jsonl"}}
    config = Config.model_validate({"base_model": base, "corpora": corpora})
    run = RunFolder(tmp_path / "run")
    run.store.mkdir(parents=True)
    chain = [
        stage
        for stage in pipeline(config, Digests(tmp_path / "digests.json"), EngineCache(config))
        if stage.command == "stage2"
    ]
    for stage in chain:
        run_stage(stage, run)
    (kept,) = read_all(run.folder(chain[-1].steps[0]), Filtered)
    shown = render(find(run, kept.id))
    before, after = shown.split("stage2_quality: kept")
    assert "责任编辑" in before and f"text: {PROSE}" in after and '["page_lines"]' in after and "责任编辑" not in after


def test_settings_of_one_corpus(base, tmp_path):
    corpora = {
        "wudao": {"paths": ["a"], "format": "wudao", "filter": {"ppl_max": "x4", "quality": {"digits": None}}},
        "skypile": {"paths": ["b"], "format": "skypile"},
    }
    config = Config.model_validate({"base_model": base, "corpora": corpora, "filter": {"quality": {"symbols": 0.1}}})
    own = config.of_subset("wudao").filter
    assert (own.ppl_max, own.quality.digits, own.quality.symbols) == ("x4", None, 0.1)
    assert config.of_subset("skypile").filter == config.filter
    (rules,) = [
        stage
        for stage in pipeline(config, Digests(tmp_path / "d.json"), EngineCache(config))
        if stage.name == "stage2_quality"
    ]
    wudao, skypile = (step.settings().parts for step in rules.steps)
    assert {key for key in wudao if wudao[key] != skypile[key]} == {
        "filter.quality.digits"
    }  # relative limits are of another step


@needs_lmplz
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"real text is not here: {DATA}")
@pytest.mark.parametrize(
    ("subset", "noise", "loss"), [("wanjuan", 0.99, 0.02), ("skypile", 0.99, 0.02), ("wudao", 0.97, 0.08)]
)
def test_noise_is_caught_and_prose_kept_on_real_text(base, real_lm, subset, noise, loss):
    """Rows that are dropped for their length aside; exact duplicates are no loss. See docs/measurements.md."""
    config = Config.model_validate(
        {"base_model": base, "corpora": {subset: {"paths": [str(DATA / "corpora" / subset)], "format": subset}}}
    )
    rows = list(read_corpus(subset, config.corpora[subset]))
    lines = [json.loads(line) for line in (DATA / "corpora/noise_key.jsonl").read_bytes().splitlines()]
    kinds = {rows[line["row"]].origin: line["kind"] for line in lines if line["subset"] == subset}
    assert not any(row.reject for row in rows)
    found_items = list(items(rows))
    outcomes = list(documents(subset, found_items, counted(found_items)))
    texts = [outcome for _, outcome in outcomes if isinstance(outcome, Document)]
    limits, _ = measure(config, texts, real_lm)
    judge = open_filter(config, real_lm, limits)
    found: dict[str, list[bool]] = {"noise": [], "prose": [], "special_tokens": []}
    for text, verdict in zip(texts, judge(texts), strict=True):
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
