"""`kun filter-preview` on small corpora: its counts are those of the stage, its page is safe to open."""

import json
from html.parser import HTMLParser

import msgspec
import pytest

from kun.config.schema import Config
from kun.engines.cache import EngineCache
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.planning.sample import preview_corpora
from kun.records import Filtered
from kun.report import filter_preview as preview
from kun.report.filter_page import page
from kun.store.digests import Digests
from kun.store.shards import read_all
from stages import pipeline
from tests.runs import REPOSITORY, kun

PROSE = "周末我和几个老朋友去了城外的山里，走了大约三个小时才到山顶。天气比预报的好得多，第{}处湖面在阳光下闪着光。"
MENU = "首页 | 登录 | 注册 | 联系我们 | 友情链接 | 返回顶部 | 首页 | 登录 | 注册"
SCRIPT = '<script>alert("x")</script>\u202e<b>老朋友</b>去了城外的山里，走了大约三个小时。&lt;'


def configuration(tmp_path, texts, **settings):
    path = tmp_path / "web.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return Config.model_validate(
        {
            "run": str(tmp_path / "run"),
            "base_model": str(REPOSITORY / "kun/demo/base"),
            "corpora": {"web": {"paths": [str(path)], "format": "jsonl"}},
            "filter": {"lm": {"model": str(REPOSITORY / "kun/demo/lm")}, "near_duplicates": None, **settings},
        }
    )


def texts():
    return [*(PROSE.format(number) for number in range(30)), MENU, "短", "好" * 900, "3+3/;%DBAB__D44#x/9" * 3]


def test_the_preview_says_what_the_stage_then_does(tmp_path):
    config = configuration(tmp_path, texts(), ppl_max=1e6, ppl_min=None)
    (seen,) = preview_corpora(config, None, 1000)
    run = RunFolder(tmp_path / "other")
    run.store.mkdir(parents=True)
    for stage in pipeline(config, Digests(tmp_path / "digests.json"), EngineCache(config)):
        if stage.command == "stage2":
            run_stage(stage, run)
            last = stage
    whole = run.current(last.steps[0])
    kept = {record.id for record in read_all(run.folder(last.steps[0]), Filtered)}
    assert {one.document.id for one in seen.judged if one.reason is None} == kept
    assert {line.reason: line.dropped for line in preview.funnel(seen) if line.dropped} == whole.rejected
    assert preview.funnel(seen)[-1].left == whole.kept
    assert {"too_short", "random_codes", "boilerplate"} <= set(whole.rejected)


def test_alone_are_those_that_come_back_when_the_rule_is_off(tmp_path):
    (seen,) = preview_corpora(configuration(tmp_path, texts()), None, 1000)
    line = next(line for line in preview.funnel(seen) if line.reason == "random_codes")
    assert line.alone > 0 or line.breaks > 0
    (without,) = preview_corpora(configuration(tmp_path, texts(), quality={"random_codes": None}), None, 1000)
    kept = [sum(one.reason is None for one in each.judged) for each in (seen, without)]
    assert kept[1] - kept[0] == line.alone


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def test_text_of_a_corpus_is_escaped_on_the_page(tmp_path):
    seen = list(preview_corpora(configuration(tmp_path, [SCRIPT, *texts()]), None, 1000))
    shown = page("Preview of <my> config", seen)
    assert "script" not in Tags(shown).tags
    assert "<bdi>&lt;script&gt;alert(&#34;x&#34;)" in shown  # bdi: what turns the writing round ends with it


def test_a_cleaned_text_is_shown_as_it_is_judged(tmp_path):
    (seen,) = preview_corpora(configuration(tmp_path, [f"首页 | 登录 | 注册\n{PROSE}"]), None, 10)
    assert seen.judged[0].document.text == PROSE and seen.judged[0].cleaned == ("page_lines",)
    assert "cleaning changed 1 documents (page_lines 1)" in preview.summary(seen)


@pytest.mark.parametrize("content", [[], [""], ["短"]])
def test_a_corpus_with_next_to_nothing(tmp_path, content):
    seen = list(preview_corpora(configuration(tmp_path, content), None, 10))
    assert "web" in page("Preview", seen)
    assert "kept 0 of" in preview.summary(seen[0])
    assert msgspec.json.encode(preview.as_json(seen[0]))


def test_from_the_command_line(tmp_path):
    config = configuration(tmp_path, texts())
    (tmp_path / "my.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    done = kun(tmp_path, "filter-preview", "--config", "my.yaml", "--sample", "20", "--out", "seen")
    assert done.returncode == 0, done.stderr
    assert "web: 20 of 34 rows, drawn at random" in done.stdout and "wrote seen/filter.html" in done.stdout
    assert (tmp_path / "seen/filter.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    done = kun(tmp_path, "filter-preview", "--config", "my.yaml", "--json")
    assert json.loads(done.stdout)[0]["sample"]["documents"] == 34
    done = kun(tmp_path, "filter-preview", "--config", "my.yaml", "--sample", "0")
    assert done.returncode == 2 and "--sample 0: at least one row" in done.stderr


def test_personal_data_is_a_rule_where_it_drops_and_cleaning_where_it_is_masked(tmp_path):
    found = [f"{PROSE.format(1)}电话13812345678", f"{PROSE.format(2)}身份证110101199003071233"]
    privacy = {"phone": "mask", "identity_number": "drop"}
    (seen,) = preview_corpora(configuration(tmp_path, found, privacy=privacy), None, 1000)
    assert preview.cleaning(seen) == "cleaning changed 1 documents (phone 1)"
    (line,) = (line for line in preview.funnel(seen) if line.reason == "identity_number")
    assert (line.breaks, line.dropped) == (1, 1)
    (allowed, beyond) = preview.near(seen, line.bound)
    assert [one.document.text for one in beyond] == found[1:] and "电话[电话]" in allowed[0].document.text
    assert {"email", "qq"} <= {reason for one in preview.measures(seen) for reason in one.reasons}
