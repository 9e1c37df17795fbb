"""Every kind of damage to a run is found and named, and the remedy makes again that shard and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from kun.errors import InputError
from kun.pipeline.run_folder import read_manifest
from kun.pipeline.runner import run_stage
from kun.store import atomic, markers, shards
from kun.store.digests import of_file
from kun.verify.leftovers import unused
from kun.verify.run import Finding, verify
from kun.verify.steps import find, outdated
from tests.small_pipeline import CountingEngine, Small

TEXTS = {
    "wudao": [
        "四个字符",
        "三字符",
        "两字",
        "",
        "六个字符的文",
        "行\u2028分隔",
        "繁體🙂字",
        "八个字符的一段文字",
        "两字",
    ],
    "skypile": ["天空", "一", "十个字符的一段文字啊"],
}
INGEST, KEPT, LABEL = "documents/wudao", "even_lengths/wudao", "questions/wudao"


def findings(small: Small, workers: int = 1) -> dict[str, Finding]:
    return {finding.step: finding for finding in verify(small.path, workers)}


def bad(small: Small) -> dict[str, list[str]]:
    """`file: what` of all problems, by step."""
    return {
        step: [f"{problem.file}: {problem.what}" for problem in finding.problems]
        for step, finding in findings(small).items()
        if finding.state == "bad"
    }


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run, without the seconds in its markers."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, data in files.items():
        if name.endswith("done.json"):
            files[name] = msgspec.json.encode({**msgspec.json.decode(data), "seconds": 0, "check": ""})
    return files


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def change(folder: Path, **fields: object) -> None:
    markers.write_marker(folder / "done.json", msgspec.structs.replace(read_manifest(folder), **fields))


def break_disk(path: Path) -> None:
    """Every read of the file is an error of input/output, as where the disk is broken."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.fixture
def small(tmp_path: Path) -> Small:
    small = Small(tmp_path / "run", TEXTS)
    small.go()
    return small


def test_a_run_that_is_what_it_was(small):
    found = findings(small)
    assert list(found) == [
        "documents/skypile", INGEST, "even_lengths/skypile", KEPT, "questions/skypile", LABEL,
    ]  # fmt: skip
    assert {finding.state for finding in found.values()} == {"ok"}
    assert (found[KEPT].counts.rows, found[KEPT].counts.kept, len(found[KEPT].counts.shards)) == (8, 6, 3)
    assert not any(finding.problems or finding.notes or finding.discard for finding in found.values())


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("kun.verify.run.WORTH_PROCESSES", 2)
    small = Small(tmp_path, {"wudao": [f"第{n}个字符" for n in range(150)]})
    small.go()
    (small.path / KEPT / "part-00041.jsonl").unlink()
    alone, together = findings(small, workers=1), findings(small, workers=2)
    assert alone == together and alone[KEPT].state == "bad"


LINE = "line 1 is no row (JSON is malformed: invalid character (byte 0))"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("part-00000.jsonl", lambda path: edit(path, '"tokens":4', '"tokens":5'), ["is not what was published"]),
        ("part-00000.jsonl", lambda path: edit(path, "{", "x"), ["is not what was published", LINE, "1 rows, and 2"]),
        ("part-00000.jsonl", lambda path: os.truncate(path, 9), ["published", "its last line has no end", "0 rows"]),
        ("part-00000.jsonl", Path.unlink, ["is gone"]),
        ("part-00000.rejects.jsonl", Path.unlink, ["is gone"]),
        ("part-00000.rejects.jsonl", lambda path: edit(path, '"odd"', '"even"'), ["published", "{'even': 1} in the"]),
        ("part-00000.failed.jsonl", lambda path: path.write_text("x"), ["the marker has no digest of it, and 0 rows"]),
        ("part-00000.jsonl", break_disk, ["cannot be read (Input/output error)"]),
        ("part-00000.done.json", break_disk, ["the marker cannot be read (Input/output error)"]),
        ("part-00000.done.json", lambda path: path.write_text("{"), ["the marker is damaged"]),
        ("part-00000.done.json", Path.unlink, ["the shard, or its marker, is gone"]),
        ("part-00000.done.json", lambda path: edit(path, '"kept":2', '"kept":3'), ["the marker is damaged"]),
    ],
)  # fmt: skip
def test_damage_is_named_and_only_that_shard_is_made_again(small, name, damage, said):
    before, folder = contents(small.path), (small.path / KEPT).resolve()
    damage(folder / name)
    problems = bad(small)
    assert list(problems) == [KEPT]  # neither the steps above nor those below are blamed
    for words in said:
        assert any(line.startswith("part-00000") and words in line for line in problems[KEPT]), problems
    assert findings(small)[KEPT].discard == ["part-00000.done.json", "done.json"]
    untouched = stamps(small.path)
    for file in findings(small)[KEPT].discard:
        (folder / file).unlink(missing_ok=True)
    assert small.go() == [False, True, False]
    if name == "part-00000.failed.jsonl":
        assert not (folder / name).exists()
    assert contents(small.path) == before
    assert not bad(small)
    remade = {path for path, stamp in stamps(small.path).items() if untouched.get(path) != stamp}
    own = {"part-00000.jsonl", "part-00000.rejects.jsonl", "part-00000.done.json", "done.json", "fingerprint.json"}
    assert {Path(path).parent for path in remade} == {folder} and {Path(path).name for path in remade} <= own


def forge(small: Small, step: str, index: str, old: str, new: str) -> None:
    """Change a kept row of a shard together with its marker."""
    folder = small.path / step
    edit(shards.part(folder, index), old, new)
    done = shards.marker(folder, index)
    digests = {**done.digests, "kept": of_file(shards.part(folder, index))}
    markers.write_marker(shards.part(folder, index, "done"), msgspec.structs.replace(done, digests=digests))


def test_counts_that_a_marker_has_wrong(small):
    path = small.path / KEPT / "part-00000.done.json"
    markers.write_marker(path, msgspec.structs.replace(shards.marker(path.parent, "00000"), kept=3))
    said = bad(small)[KEPT]
    assert said[0] == "part-00000.jsonl: 2 rows, and 3 by the marker" and "are not the sum" in said[1]


def test_a_row_that_was_changed_with_its_marker(small):
    """It does not fit the digest of all that is known of the rows."""
    before = contents(small.path)
    forge(small, KEPT, "00001", '"tokens":6', '"tokens":7')
    problems = bad(small)
    assert list(problems) == [KEPT]
    assert problems[KEPT] == ["part-00001.done.json: its rows, joined with those above, are not what was published"]
    folder = small.path / KEPT
    for pattern in findings(small)[KEPT].discard:
        for path in folder.glob(pattern):
            path.unlink()
    assert small.go() == [False, True, False]
    assert contents(small.path) == before


def test_ids_that_are_lost_or_come_twice(small):
    """With digests that fit: an error of Kun, not of a disk."""
    forge(small, INGEST, "00001", '"id":"wudao-4"', '"id":"wudao-0"')
    said = bad(small)
    assert any("part-00001.jsonl: the id wudao-0 came before" in line for line in said[INGEST])
    assert any("record wudao-0 of the shard above is not accounted for" in line for line in said[KEPT])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: edit(folder / "fingerprint.json", '"filter.min":1', '"filter.min":2'),
            "its digest is not that of what it says",
        ),
        (
            lambda folder: (folder / "fingerprint.json").write_text("{"),
            "fingerprint.json: is damaged: it is not the JSON",
        ),
        (lambda folder: (folder / "fingerprint.json").unlink(), "fingerprint.json: is gone"),
        (
            lambda folder: break_disk(folder / "fingerprint.json"),
            "fingerprint.json: cannot be read (Input/output",
        ),
        (lambda folder: (folder / "done.json").write_text("{"), "done.json: the marker is damaged"),
        (lambda folder: break_disk(folder / "done.json"), "done.json: the marker cannot be read (Input/output error)"),
        (lambda folder: edit(folder / "done.json", '"rows":8', '"rows":9'), "done.json: the marker is damaged"),
        (lambda folder: change(folder, rows=9), "done.json: rows 9 is not what the"),
        (lambda folder: change(folder, source={"documents/wudao": "0"}), "done.json: was made from other"),
        (lambda folder: (folder / "done.json").unlink(), "done.json: is not there: the step is not finished"),
    ],
)
def test_damage_to_the_markers_of_a_step(small, damage, said):
    before, folder = contents(small.path), (small.path / KEPT).resolve()
    damage(folder)
    problems = bad(small)
    assert KEPT in problems and said in problems[KEPT][0]
    if said.startswith("fingerprint"):  # it is written anew; nothing else is blamed, or made again
        assert len(problems) == len(problems[KEPT]) == 1 and findings(small)[KEPT].discard == []
    for pattern in findings(small)[KEPT].discard:
        for path in folder.glob(pattern):
            path.unlink()
    small.go()
    assert contents(small.path) == before and not bad(small)


def test_a_step_that_was_stopped_half_way(tmp_path):
    small = Small(tmp_path, TEXTS, CountingEngine(dies_after=2))
    with pytest.raises(KeyboardInterrupt):
        small.go()
    half = [finding for finding in findings(small).values() if finding.state == "bad"]
    assert {finding.step for finding in half} == {LABEL, "questions/skypile"}
    assert [problem.what for problem in half[1].problems] == ["is not there: the step is not finished"]
    assert half[1].notes == ["1 of 3 shards are there"] and half[1].discard == []


def test_failed_records_are_no_damage(tmp_path):
    small = Small(tmp_path, TEXTS, CountingEngine(breaks={2}))
    small.go()
    found = findings(small)[LABEL]
    assert found.state == "ok" and found.notes == ["2 failed records, which the next run tries again"]
    (small.path / LABEL / "part-00000.failed.jsonl").unlink()
    assert bad(small)[LABEL] == ["part-00000.failed.jsonl: is gone"]


def test_a_copy_without_links_and_without_store(small, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small.path, copy, ignore=shutil.ignore_patterns("store"))  # links become folders
    received = Small(copy, TEXTS)
    assert not any((copy / step).is_symlink() for step in findings(received)) and not bad(received)
    edit(copy / LABEL / "part-00000.jsonl", "characters", "letters")
    assert list(bad(received)) == [LABEL]


def test_a_step_whose_source_was_left_out(small):
    shutil.rmtree((small.path / KEPT).resolve())
    found = findings(small)
    assert found[KEPT].state == "bad" and found[LABEL].state == "ok"
    assert found[LABEL].notes == [f"not checked against {KEPT}: not here, or not finished"]
    (small.path / KEPT).unlink()
    assert bad(small) == {KEPT: [f".: is not here, and {LABEL} was made from it"]}


def test_what_is_left_over_is_listed(small):
    small.settings["label.max"] = 2
    small.go()
    folder = (small.path / KEPT).resolve()
    atomic.temporary_of(folder / "part-00000.jsonl").write_text("half", encoding="utf-8")
    assert [(one.path.name.rpartition("-")[0], one.why) for one in unused(small.path, *find(small.path))] == [
        (".part", "left by a killed process"),
        ("questions-skypile", "of older settings; going back to them makes it again"),
        ("questions-wudao", "of older settings; going back to them makes it again"),
    ]
    assert not bad(small) and read_manifest(folder)


def test_what_a_step_of_older_settings_was_made_from_is_not_left_over(small):
    before = {step.name: step.folder for step in find(small.path)[0]}
    small.settings["filter.min"] = 2
    for stage in small.stages()[:2]:
        run_stage(stage, small.run)
    steps, _ = find(small.path)
    assert outdated(steps) == {LABEL: [KEPT], "questions/skypile": ["even_lengths/skypile"]}
    assert before[KEPT] not in {step.folder for step in steps}
    assert unused(small.path, *find(small.path)) == []
    small.go()
    assert outdated(find(small.path)[0]) == {}
    assert {before[KEPT], before["even_lengths/skypile"]} <= {one.path for one in unused(small.path, *find(small.path))}


def test_any_damage_to_a_fingerprint_is_one_problem(small):
    path = small.path / LABEL / "fingerprint.json"
    data = path.read_bytes()
    flipped = [data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :] for place in range(0, len(data), 3)]
    for damaged in [*flipped, data[:-1], b""]:
        path.write_bytes(damaged)
        ((step, (said,)),) = bad(small).items()
        assert step == LABEL and said.startswith("fingerprint.json: is damaged: "), damaged
    assert small.go() == [False] * 3 and path.read_bytes() == data and not bad(small)


def test_a_plain_name_that_leads_to_another_step_is_a_problem_of_that_step(small):
    (small.path / KEPT).unlink()
    (small.path / KEPT).symlink_to((small.path / "even_lengths/skypile").resolve())
    edit(small.path / LABEL / "part-00000.jsonl", "characters", "letters")
    problems = bad(small)
    assert list(problems) == [KEPT, LABEL]  # the rest is verified, against the step's own folder
    assert "leads to even_lengths-skypile-" in problems[KEPT][0] and len(problems[LABEL]) == 1
    assert findings(small)[LABEL].notes == []
    small.go()  # points it right
    assert list(bad(small)) == [LABEL]


@pytest.mark.parametrize("target", ["/", "elsewhere", "run/store"])
def test_a_plain_name_that_leads_out_of_the_run_is_not_followed(small, tmp_path, target):
    (tmp_path / "elsewhere").mkdir()
    (small.path / KEPT).unlink()
    (small.path / KEPT).symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="which is not of this run; nothing is read there"):
        findings(small)


def test_a_store_on_another_disk_is_of_the_run(small, tmp_path):
    (small.path / "store").rename(tmp_path / "disk")
    (small.path / "store").symlink_to(tmp_path / "disk")
    assert not bad(small)
