"""A corpus that grows, shrinks and changes costs what changed: what a model is asked, and what status says."""

from __future__ import annotations

import pytest

from kun.pipeline.status import survey
from kun.report.trace import find as trace
from kun.store import shards
from kun.verify.leftovers import unused
from kun.verify.run import verify
from kun.verify.steps import find
from tests.small_pipeline import CountingEngine, Small

TEXTS = ["一" * n for n in range(2, 20, 2)]  # nine texts in three shards; the id of each is its row


def after(small: Small, texts: list[str], **settings: object) -> Small:
    """The same run, with these texts in place of the others."""
    again = Small(small.path, {"wudao": texts}, **settings)
    again.go()
    return again


@pytest.fixture
def made(tmp_path):
    small = Small(tmp_path / "run", {"wudao": TEXTS})
    small.go()
    return small


def questions(small: Small) -> list[str]:
    from kun.records import Labelled

    folder = small.run.folder(small.stages()[2].steps[0])
    return [record.instruction for record in shards.read_all(folder, Labelled)]


def once(small: Small, texts: list[str]) -> list[str]:
    """What a run that is made at once has."""
    fresh = Small(small.path.with_name("fresh"), {"wudao": texts})
    fresh.go()
    return questions(fresh)


def test_appended_rows_are_asked_about_and_no_others(made):
    texts = [*TEXTS, "一" * 20, "一" * 22]
    again = after(made, texts)
    assert again.engine.asked == [20, 22]
    assert questions(again) == once(made, texts)
    assert {finding.state for finding in verify(made.path)} == {"ok"}


def test_new_rows_that_the_filter_drops_leave_what_lies_below_as_it_is(made):
    texts = [*TEXTS[:2], "一" * 3, *TEXTS[3:]]
    again = Small(made.path, {"wudao": [*TEXTS, "一" * 3]})
    label = again.stages()[2].steps[0]
    before = (again.run.folder(label) / "part-00002.jsonl").stat().st_ino
    assert again.go() == [True, True, True]  # a shard without rows
    assert again.engine.asked == []
    assert (again.run.folder(label) / "part-00002.jsonl").stat().st_ino == before
    changed = Small(made.path, {"wudao": [*TEXTS[:8], "一" * 18, "一" * 5]})
    assert changed.go() == [True, True, False] and not changed.engine.asked
    assert after(made, texts).engine.asked == []


def test_of_a_shard_with_a_corrected_row_the_row_is_asked_about(made):
    again = after(made, ["一" * 30, *TEXTS[1:]])
    assert again.engine.asked == [30]
    assert questions(again)[0] == "30 characters about what?"
    back = after(made, TEXTS)
    assert back.engine.asked == []  # the answer was set aside
    assert questions(back) == once(made, TEXTS)


def test_removed_rows_cost_nothing(made):
    assert after(made, TEXTS[:4]).engine.asked == []


def test_a_killed_growth_goes_on_where_it_stopped(made):
    texts = [*TEXTS, *["一" * n for n in range(20, 32, 2)]]
    with pytest.raises(KeyboardInterrupt):
        after(made, texts, engine=CountingEngine(dies_after=3))
    again = after(made, texts)
    assert again.engine.asked == [26, 28, 30]
    assert questions(again) == once(made, texts)


def test_rows_that_failed_are_asked_about_again_and_no_others(made):
    texts = [*TEXTS, "一" * 20]
    after(made, texts, engine=CountingEngine(breaks={20}))
    assert after(made, texts).engine.asked == [20]


def test_status_says_how_many_shards_and_why(made):
    texts = [*TEXTS[:8], "一" * 20]
    more = Small(made.path, {"wudao": texts})
    read, kept, label = survey(more.stages(), more.run)
    assert (read.condition, read.why) == ("stale", ("corpus wudao changed (a.txt changed)",))
    assert (label.condition, label.why) == ("stale", ("corpus wudao changed (a.txt changed)",))
    from kun.pipeline.runner import run_stage

    for stage in more.stages()[:2]:
        run_stage(stage, more.run)
    read, kept, label = survey(more.stages(), more.run)
    assert (read.condition, kept.condition) == ("complete", "complete")
    assert (label.condition, label.why) == ("stale", ("1 of 3 shards: even_lengths/wudao has other content",))


def test_what_a_corpus_no_longer_has_is_left_over_and_is_not_traced(made):
    after(made, TEXTS[:4])
    found = unused(made.path, *find(made.path))
    assert {one.path.name.partition("-")[0] for one in found} == {"documents", "even_lengths", "questions"}
    for one in found:
        one.remove()
    assert not unused(made.path, *find(made.path))
    assert {finding.state for finding in verify(made.path)} == {"ok"}
    life = trace(made.run, "wudao-3")
    assert [event["outcome"] for event in life["life"]] == ["kept"] * 3 and life["shard"] == "00001"
    assert life["life"][-1]["record"]["text"] == TEXTS[3]
