import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import psutil
import pytest

from kun.errors import ConfigError, InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import _ingest_unit, run_stage, with_repair
from kun.pipeline.stage import Build, Map, Slice, Stage, StageSpec, Step, StepSettings
from kun.records import Document, Filtered, Labelled, Origin, Reject, extend
from kun.store import atomic, shards
from tests.runs import REPOSITORY, environment
from tests.small_pipeline import CountingEngine, Small, nothing

MODEL = StageSpec("train", "model", "model", per_subset=False)
TEXTS = {"wudao": ["四个字符", "三字符", "", "六个字符的文", "bug!", "两字", "长" * 60], "skypile": ["繁體"]}


def labels(small: Small) -> dict[str, str]:
    folder = small.path / "questions"
    found = {}
    for subset in small.texts:
        for marker in sorted((folder / subset).glob("part-*.done.json")):
            key = marker.name[5:10]
            found |= {record.id: record.instruction for record in shards.read_kept(folder / subset, key, Labelled)}
    return found


def whole(small: Small, stage: int, part: str = "wudao"):
    step = next(step for step in small.stages()[stage].steps if step.part == part)
    return small.run.current(step)


def test_every_record_ends_kept_rejected_or_failed(tmp_path):
    small = Small(tmp_path, TEXTS)
    assert small.go() == [True, True, True]
    ingest, filtered, labelled = (whole(small, stage) for stage in range(3))
    assert (ingest.rows, ingest.kept, ingest.rejected) == (7, 6, {"empty": 1})
    assert (filtered.rows, filtered.kept, filtered.rejected) == (6, 5, {"odd": 1})
    assert (labelled.rows, labelled.kept, labelled.rejected, labelled.failed) == (5, 3, {"over_window": 1}, 1)
    assert set(labels(small)) == {"wudao-0", "wudao-3", "wudao-5", "skypile-0"}


def test_a_finished_stage_has_nothing_to_do(tmp_path):
    texts = {"wudao": ["四个字符", "两字"]}
    small = Small(tmp_path, texts)
    small.go()
    again = Small(tmp_path, texts)
    assert again.go() == [False, False, False]
    assert again.engine.asked == []


def test_only_failed_records_are_asked_again(tmp_path):
    texts = {"wudao": ["一" * n for n in (2, 4, 6, 8)]}
    Small(tmp_path, texts, CountingEngine(breaks={4})).go()
    again = Small(tmp_path, texts)
    assert again.go() == [False, False, True]
    assert again.engine.asked == [4]
    assert list(labels(again)) == ["wudao-0", "wudao-1", "wudao-2", "wudao-3"]
    assert whole(again, 2).failed == 0


def test_the_bar_of_a_retry_ends_at_its_total(tmp_path, monkeypatch):
    texts = {"wudao": ["一" * n for n in (2, 4, 6, 8)]}
    Small(tmp_path, texts, CountingEngine(breaks={4})).go()
    reached = []
    monkeypatch.setattr(
        "kun.pipeline.runner.bar", lambda *_: nullcontext(lambda done, total: reached.append((done, total)))
    )
    Small(tmp_path, texts).go()
    assert reached[0] == (1, 4) and reached[-1] == (4, 4)


def test_an_interrupted_run_asks_only_for_the_shards_that_are_missing(tmp_path):
    texts = {"wudao": ["一" * n for n in range(2, 20, 2)]}
    with pytest.raises(KeyboardInterrupt):
        Small(tmp_path, texts, CountingEngine(dies_after=3)).go()
    again = Small(tmp_path, texts)
    again.go()
    assert again.engine.asked == [8, 10, 12, 14, 16, 18]
    assert len(labels(again)) == 9


def test_a_changed_setting_never_mixes_and_going_back_costs_nothing(tmp_path):
    texts = {"wudao": ["四个字符"]}
    Small(tmp_path, texts).go()
    changed = Small(tmp_path, texts, settings={"filter.min": 1, "label.max": 2})
    assert changed.go() == [False, False, True]
    back = Small(tmp_path, texts)
    assert back.go() == [False, False, False]
    step = back.stages()[2].steps[0]
    assert back.run.link(step).resolve() == back.run.folder(step).resolve()


def test_another_corpus_leaves_the_first_alone(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符"]})
    small.go()
    more = Small(tmp_path, {"wudao": ["四个字符"], "skypile": ["两字"]})
    more.go()
    assert more.engine.asked == [2]


def test_worker_processes_give_the_same_files_as_one(tmp_path):
    texts = {"wudao": [f"第{n}篇文字" for n in range(100)]}
    one, two = Small(tmp_path / "one", texts), Small(tmp_path / "two", texts)
    one.go(workers=1)
    two.go(workers=2)
    folders = [small.path / "even_lengths" / "wudao" for small in (one, two)]
    names = [sorted(p.name for p in folder.glob("part-*.jsonl")) for folder in folders]
    assert names[0] == names[1] and len(names[0]) == 38  # files of rejects only where there are any
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names[0])


def test_a_stage_refuses_input_that_is_not_complete(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符"]})
    with pytest.raises(InputError, match=r"questions/wudao reads even_lengths/wudao, which is not complete"):
        run_stage(small.stages()[2], small.run)


def test_a_stage_refuses_stale_input_and_says_why(tmp_path):
    Small(tmp_path, {"wudao": ["四个字符"]}).go()
    changed = Small(tmp_path, {"wudao": ["四个字符"]}, settings={"filter.min": 2, "label.max": 1})
    with pytest.raises(InputError, match=r"even_lengths/wudao, which is stale \(filter.min changed\); run read first"):
        run_stage(changed.stages()[2], changed.run)


def test_force_makes_it_again(tmp_path):
    texts = {"wudao": ["四个字符"]}
    Small(tmp_path, texts).go()
    again = Small(tmp_path, texts)
    assert run_stage(again.stages()[2], again.run, force=True)
    assert again.engine.asked == [4]


def test_rows_mended_upstream_flow_down(tmp_path):
    """A record that a later run decides otherwise changes the shards that were made from the one it is in, and no
    others; of those the other records are not asked about again."""
    texts = {"wudao": ["一" * n for n in (2, 4, 6, 8)]}
    small = Small(tmp_path, texts)
    small.go()
    step = small.stages()[1].steps[0]
    folder = small.run.folder(step)
    records = shards.read_kept(folder, "00000", Filtered)
    done = shards.marker(folder, "00000")
    mended = [(r, r) for r in records[:2]] + [(records[2], Reject("odd"))]
    shards.publish(folder, "00000", mended, rows=3, source=done.source)
    (folder / "done.json").unlink()
    again = Small(tmp_path, texts)
    again.go()
    assert again.engine.asked == [] and set(labels(again)) == {"wudao-0", "wudao-1", "wudao-3"}


def test_a_cut_that_rests_on_all_rows_makes_all_shards_again_when_one_changes(tmp_path):
    """Or else some rows would be selected by the old cut, and some by the new one."""

    def shorter(documents, than):
        return [
            extend(document, Filtered, ppl=None, tokens=0) if len(document.text) < than else Reject("longest")
            for document in documents
        ]

    def longest(context):
        return max(len(record.text) for record in shards.read_all(context.need(0), Document))

    def open_cut(context, decided):
        return partial(shorter, than=decided)

    small = Small(tmp_path, {"wudao": ["一" * n for n in (1, 9, 2, 3, 4, 5)]})
    ingest, selection = (
        replace(stage, work=work)
        for stage, work in zip(small.stages(), (small.stages()[0].work, Map(open_cut, longest)), strict=False)
    )
    for stage in (ingest, selection):
        run_stage(stage, small.run)
    folder = small.run.folder(ingest.steps[0])
    records = shards.read_kept(folder, "00000", Document)
    outcomes = [(r, Reject("gone") if len(r.text) == 9 else r) for r in records]
    shards.publish(folder, "00000", outcomes, rows=3, source=shards.marker(folder, "00000").source)
    (folder / "done.json").unlink()
    for stage in (ingest, selection):
        run_stage(stage, small.run)
    kept = shards.read_all(small.run.folder(selection.steps[0]), Filtered)
    assert [len(record.text) for record in kept] == [1, 2, 3, 4]


def test_one_bad_record_of_a_shard_is_one_failure(tmp_path):
    def keep(documents):
        if any(document.text == "坏" for document in documents):
            raise ValueError("坏")
        return [extend(document, Filtered, ppl=None, tokens=0) for document in documents]

    small = Small(tmp_path, {"wudao": ["好", "坏", "很好", "也好"]})
    ingest, kept, _ = small.stages()
    run_stage(ingest, small.run)
    run_stage(replace(kept, work=Map(lambda *_: keep)), small.run)
    done = whole(small, 1)
    assert (done.kept, done.failed) == (3, 1)
    assert [record.text for record in shards.read_all(small.run.folder(kept.steps[0]), Filtered)] == [
        "好",
        "很好",
        "也好",
    ]


def everything(small: Small) -> dict[str, bytes]:
    """All that the run holds, but the times, which markers have and their checks are of."""
    files = [path for path in small.run.store.rglob("*") if path.is_file()]
    return {str(path): re.sub(rb'"(seconds|check)":[^,}]*', b"", path.read_bytes()) for path in files}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["", "done"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data.replace(b"1", b"2"), None])
def test_a_damaged_shard_is_named_and_made_again_when_it_is_read(tmp_path, caplog, workers, kind, damage):
    texts = {"wudao": ["一" * n for n in (2, 4, 6, 8, 10)]}
    small = Small(tmp_path, texts)
    small.go()
    expected = everything(small)
    ingest, kept, label = small.stages()
    path = shards.part(small.run.folder(ingest.steps[0]), "00000", kind)
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    atomic.discard(small.run.folder(kept.steps[0]))
    if kind == "":
        with pytest.raises(shards.DamagedError, match=r"part-00000\.jsonl: .*`kun verify .*` tells how"):
            run_stage(kept, small.run, workers)
    for stage in (ingest, kept, label):
        with_repair(lambda stage=stage: run_stage(stage, small.run, workers), small.stages(), small.run, workers)
    assert everything(small) == expected
    if kind == "":
        assert "it is made again" in caplog.text


def test_a_damaged_shard_that_was_read_by_its_plain_name_is_made_again(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符", "两字"]})
    small.go()
    expected = everything(small)
    plain = small.run.link(small.stages()[1].steps[0])
    shards.part(plain, "00000").unlink()
    with pytest.raises(shards.DamagedError, match=r"`kun verify .*` tells how"):
        shards.read_kept(plain, "00000", Filtered)
    assert len(with_repair(lambda: shards.read_kept(plain, "00000", Filtered), small.stages(), small.run)) == 2
    assert everything(small) == expected


def test_a_repair_needs_no_settings_of_other_stages(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符", "两字"]})
    small.go()
    ingest, kept, label = small.stages()

    def missing() -> StepSettings:
        raise ConfigError("seeds.pairs: training needs it")

    blocked = replace(label, steps=tuple(replace(step, settings=missing) for step in label.steps))
    folder = small.run.folder(kept.steps[0])
    shards.part(folder, "00000").unlink()
    run = RunFolder(small.run.path)
    with_repair(lambda: shards.read_kept(folder, "00000", Filtered), [blocked, ingest, kept], run)
    assert [record.text for record in shards.read_kept(folder, "00000", Filtered)] == ["四个字符", "两字"]


def test_a_marker_that_went_away_is_made_again_though_all_is_finished(tmp_path):
    texts = {"wudao": ["一" * n for n in (2, 4, 6, 8, 10)]}
    small = Small(tmp_path, texts)
    small.go()
    expected = everything(small)
    folder = small.run.folder(small.stages()[1].steps[0])
    shards.part(folder, "00001", "done").unlink()
    assert Small(tmp_path, texts).go() == [False, True, False]
    assert everything(small) == expected
    (folder / "done.json").write_bytes(b'{"shards"')
    assert Small(tmp_path, texts).go() == [False, True, False]
    assert everything(small) == expected


def test_a_shard_that_is_damaged_as_soon_as_it_is_made_ends_the_run(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符"]})
    ingest, kept, _ = small.stages()
    run_stage(ingest, small.run)

    def read():
        shards.part(small.run.folder(ingest.steps[0]), "00000").write_bytes(b"{}")
        run_stage(kept, small.run)

    with pytest.raises(shards.DamagedError):
        with_repair(read, small.stages(), small.run)


def test_a_model_that_is_not_what_was_written_is_not_used(tmp_path):
    model = Step(MODEL, "label", nothing)

    def build(context, progress):
        (context.folder / "weights").write_text("weights")
        return {}

    train = Stage(MODEL, Build(build), (model,))
    small = Small(tmp_path / "run", {"wudao": ["四个字符"]})
    *above, label = small.stages()
    label = replace(label, steps=(replace(label.steps[0], needs=(*label.steps[0].needs, model)),))
    run = small.run
    run.store.mkdir(parents=True)
    for stage in (train, *above):
        run_stage(stage, run)
    (run.folder(model) / "weights").write_text("w3ights")
    with pytest.raises(InputError, match=r"model/label is not what was written.*delete the folder.*kun run train"):
        run_stage(label, run)
    atomic.discard(run.folder(model))
    assert all(run_stage(stage, RunFolder(run.path)) for stage in (train, label))


def test_force_deletes_nothing_where_the_input_is_not_complete(tmp_path):
    texts = {"wudao": ["四个字符"], "skypile": ["两字"]}
    small = Small(tmp_path, texts)
    small.go()
    kept = small.stages()[1]
    (small.run.folder(kept.steps[1]) / "done.json").unlink()
    label = small.stages()[2]
    with pytest.raises(InputError, match="not complete"):
        run_stage(label, small.run, force=True)
    assert small.run.current(label.steps[0]) is not None


def test_force_deletes_nothing_where_the_engine_cannot_be_opened(tmp_path):
    small = Small(tmp_path, {"wudao": ["四个字符"]})
    small.go()
    label = small.stages()[2]

    def broken(folders):
        raise InputError("no such device")

    with pytest.raises(InputError, match="no such device"):
        run_stage(replace(label, work=replace(label.work, engine=broken)), small.run, force=True)
    assert small.run.current(label.steps[0]) is not None


def test_the_workers_of_a_killed_run_end_too(tmp_path):
    code = f"""
import time
from pathlib import Path
from kun.records import Document, Filtered
from tests.small_pipeline import Small, wait_for_ever
from dataclasses import replace
from kun.pipeline.runner import run_stage
from kun.pipeline.stage import Build, Map, Stage, Step
small = Small(Path({str(tmp_path)!r}), {{"wudao": ["四个字符"] * 20}})
run_stage(small.stages()[0], small.run)
waiting = Map(lambda *_: wait_for_ever)
run_stage(replace(small.stages()[1], work=waiting), small.run, workers=2)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # a worker is at work
    children = psutil.Process(process.pid).children()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert children and not alive


def test_a_model_that_was_made_again_makes_its_answers_again(tmp_path):
    """Training on a GPU gives other bytes each time: what the first model wrote is not the second one's."""
    model = Step(MODEL, "label", nothing)
    weights = tmp_path / "weights"
    weights.write_text("one")

    def build(context, progress):
        (context.folder / "weights").write_text(weights.read_text())
        return {}

    train = Stage(MODEL, Build(build), (model,))
    small = Small(tmp_path / "run", {"wudao": ["四个字符"]})
    *above, label = small.stages()
    (step,) = label.steps
    label = replace(label, steps=(replace(step, needs=(*step.needs, model)),))
    run = small.run
    run.store.mkdir(parents=True)
    assert all(run_stage(stage, run) for stage in (train, *above, label))
    assert not run_stage(label, run)
    run_stage(train, run, force=True)
    assert not run_stage(label, run)
    weights.write_text("two")
    run_stage(train, run, force=True)
    assert run_stage(label, run)
    assert small.engine.asked == [4, 4]


def test_a_corpus_that_shrinks_while_it_is_read_is_named(tmp_path):
    with pytest.raises(InputError, match="wudao: a file of the corpus changed while it was read; run the same command"):
        _ingest_unit(lambda unit: iter(()), tmp_path / "wudao", None, [Slice("0", 1, "")], {"0"}, {})


def test_a_corpus_that_grows_while_it_is_read_is_named(tmp_path):
    record = Document(id="wudao-0", subset="wudao", text="两字", origin=Origin("a.txt", 0))
    with pytest.raises(InputError, match="wudao: a file of the corpus changed while it was read; run the same command"):
        _ingest_unit(
            lambda unit: iter([(record, record)] * 2), tmp_path / "wudao", None, [Slice("0", 1, "")], {"0"}, {}
        )
