import pytest

from kun.errors import InputError
from kun.pipeline import run_folder
from kun.pipeline.run_folder import StepManifest, read_manifest
from kun.pipeline.status import Final, State, as_json, next_command, render, survey
from tests.small_pipeline import CountingEngine, Small

MISSING, CURRENT = Final("pairs", "ask", "missing"), Final("pairs", "ask", "current", 2)
TEXTS = {"wudao": ["四个字符", "三字符", "两字"]}


def states(small):
    return survey(small.stages(), small.run)


def test_before_anything_ran(tmp_path):
    small = Small(tmp_path, TEXTS)
    assert [state.condition for state in states(small)] == ["waiting"] * 3
    assert next_command(states(small), [MISSING]) == "read"


def test_the_funnel_of_a_finished_run(tmp_path):
    small = Small(tmp_path, TEXTS)
    small.go()
    assert as_json(states(small), small.run, [MISSING])["next"] == "ask"  # the final files are still to be written
    report = as_json(states(small), small.run, [CURRENT])
    assert report["next"] is None and report["outputs"] == {"pairs": {"state": "current", "rows": 2}}
    label = report["stages"][-1]
    assert (label["stage"], label["subset"], label["state"]) == ("questions", "wudao", "complete")
    assert (label["in"], label["kept"], label["rejected"], label["failed"]) == (2, 2, {}, 0)
    assert report["stages"][1]["rejected"] == {"odd": 1}
    shown = render(states(small), small.run, [Final("pairs", "ask", "stale", 2)])
    assert shown.splitlines()[1:] == [
        "kept   documents  even lengths  questions",
        "wudao          3             2          2",
        "pairs: stale, 2 rows",
    ]
    assert "odd 1" in render(states(small), small.run, [CURRENT], verbose=True)
    assert render(states(small), small.run, [MISSING]).endswith("missing")


def test_stale_says_why_and_what_lies_below_is_stale_with_it(tmp_path):
    Small(tmp_path, TEXTS).go()
    changed = Small(tmp_path, TEXTS, settings={"filter.min": 2, "label.max": 1})
    ingest, kept, label = states(changed)
    assert ingest.condition == "complete"
    assert (kept.condition, kept.why) == ("stale", ("filter.min changed",))
    assert (label.condition, label.why) == ("stale", ("even_lengths/wudao changed",))
    assert next_command(states(changed), [CURRENT]) == "read"


def test_failures_are_what_comes_next(tmp_path):
    small = Small(tmp_path, TEXTS, CountingEngine(breaks={2}))
    small.go()
    assert states(small)[-1].condition == "failures"
    assert next_command(states(small), [MISSING]) == "ask"


def test_half_done(tmp_path):
    texts = {"wudao": ["一" * n for n in range(2, 20, 2)]}
    small = Small(tmp_path, texts, CountingEngine(dies_after=3))
    with pytest.raises(KeyboardInterrupt):
        small.go()
    state = states(small)[-1]
    assert (state.condition, state.counts.shards, state.counts.kept) == ("partial", ["00000"], 3)


def test_the_counts_are_those_of_the_settings_asked_for(tmp_path):
    small = Small(tmp_path, TEXTS)
    small.go()
    first = states(small)
    Small(tmp_path, TEXTS, settings={"filter.min": 2, "label.max": 2}).go()
    assert states(small) == first
    small.run.link(small.stages()[2].steps[0]).unlink()
    assert states(small) == first


@pytest.mark.parametrize("damage", [b"{", b'{"content":"\xff"}'])
def test_a_damaged_marker_is_none(tmp_path, damage):
    small = Small(tmp_path, TEXTS)
    small.go()
    (small.run.folder(small.stages()[2].steps[0]) / "done.json").write_bytes(damage)
    state = states(small)[-1]
    assert state.condition == "partial" and not state.why


def test_a_damaged_fingerprint_is_nothing_to_compare_with(tmp_path):
    Small(tmp_path, TEXTS).go()
    changed = Small(tmp_path, TEXTS, settings={"filter.min": 1, "label.max": 2})
    step = changed.stages()[2].steps[0]
    (changed.run.link(step) / "fingerprint.json").write_bytes(b"{")
    assert states(changed)[-1].condition == "waiting"
    changed.go()


def test_a_file_that_is_gone_is_shown_not_thrown(tmp_path):
    small = Small(tmp_path, TEXTS)
    stages = small.stages()

    def gone():
        raise InputError("a.jsonl: No such file or directory; it is named by the setting corpora.wudao.paths")

    object.__setattr__(stages[0].steps[0], "settings", gone)
    state = survey(stages, small.run)[0]
    assert state.condition == "blocked" and "corpora.wudao.paths" in state.why[0]


def test_a_long_name_does_not_run_into_the_state(tmp_path):
    small = Small(tmp_path, {"a_subset_of_a_rather_long_name": ["四个字符"]})
    small.go()
    heading, *rows = render(states(small), small.run, [], verbose=True).splitlines()[1:]
    assert {row[heading.index("state") :].split()[0] for row in rows} == {"complete"}
    assert {row[heading.index("state") - 1] for row in rows} == {" "}


def test_twelve_subsets_fit_a_screen(tmp_path):
    texts = {f"语料{number}": ["四个字符", "一"] for number in range(12)}
    Small(tmp_path, texts).go()
    changed = Small(tmp_path, texts, settings={"filter.min": 2, "label.max": 1})
    shown = render(states(changed), changed.run, [MISSING]).splitlines()
    assert len(shown) <= 24
    assert shown[2].split() == ["语料0", "2", "1", "stale", "1", "stale"]
    assert shown[14] == "even_lengths/语料0 and 11 more: stale: filter.min changed"
    assert shown[-2] == "and 8 other reasons and warnings: --verbose"


def test_a_warning_of_a_step_is_told_in_a_line_of_its_own(tmp_path):
    counts = StepManifest(report={"AUC": 0.51234, "warning": "chance is 0.50; train the judge"})
    state = State("judge", "trial", "copies", "complete", (), counts, records=False)
    shown = render([state], Small(tmp_path, TEXTS).run, []).splitlines()
    assert shown[-1].endswith("chance is 0.50; train the judge")


def test_each_manifest_is_read_once(tmp_path, monkeypatch):
    small = Small(tmp_path, {f"web{number}": ["四个字符"] for number in range(40)})
    small.go()
    read: list[str] = []
    monkeypatch.setattr(run_folder, "read_manifest", lambda folder: read.append(folder) or read_manifest(folder))
    assert [state.condition for state in states(small)] == ["complete"] * 120
    assert len(read) == len(set(read)) == 120
