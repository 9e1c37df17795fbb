"""Stage 2 with near-duplicates, as a user runs it: three corpora, copies within and across them."""

import json
import random
import shutil
from pathlib import Path

import pytest

from kun.text.characters import common_han
from tests.runs import REPOSITORY, kun

RUN = ["run", "stage2", "--config", "my.yaml"]
CHARACTERS = common_han()  # uncommon ones are rejected


def prose(seed: int) -> str:
    return "".join(random.Random(seed).choices(CHARACTERS, k=200))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`folder` with its stage 2 in runs/my, for tests to copy, and what that run printed."""
    folder = write_folder(tmp_path_factory.mktemp("filtered"))
    done = kun(folder, *RUN)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def filtered(first: tuple[Path, str], tmp_path: Path) -> Path:
    return shutil.copytree(first[0], tmp_path, symlinks=True, dirs_exist_ok=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


def write_folder(tmp_path: Path) -> Path:
    write(tmp_path / "a.jsonl", [prose(1), prose(2), prose(1) + "（完）"])
    write(tmp_path / "b.jsonl", [prose(3), prose(2) + "（转载）", prose(4)])
    write(tmp_path / "c.jsonl", [prose(4) + "。" + prose(5)[:9], prose(6)])
    (tmp_path / "my.yaml").write_text(
        f"run: runs/my\nbase_model: {REPOSITORY}/kun/demo/base\nprompts: demo\nworkers: 2\n"
        "corpora:\n"
        "  a: {paths: [a.jsonl], format: jsonl}\n"
        "  b: {paths: [b.jsonl], format: jsonl}\n"
        "  c: {paths: [c.jsonl], format: jsonl}\n"
        "filter: {max_tokens: 1000}\n"
    )
    return tmp_path


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")


def shown(folder: Path, subset: str, *options: str) -> list[dict]:
    done = kun(folder, "show", "runs/my", f"stage2_filter/{subset}", *options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def rejects(folder: Path, subset: str) -> dict[int, tuple[str, str]]:
    """Row of the corpus -> reason, detail."""
    return {row["origin"]["row"]: (row["reason"], row["detail"]) for row in shown(folder, subset, "--rejects")}


def kept(folder: Path, subset: str) -> dict[int, str]:
    """Row of the corpus -> id."""
    return {row["origin"]["row"]: row["id"] for row in shown(folder, subset)}


def test_copies_are_dropped_within_and_across_subsets_and_name_what_is_kept(first):
    folder, printed = first
    assert "stage2_duplicates/c: documents 2, near_duplicates 1, of_other_subsets 1" in printed
    assert "stage2_filter/b: 3 in, 2 kept, 1 rejected (near_duplicate 1)" in printed
    for subset, row, (other, kept_row) in (("a", 2, ("a", 0)), ("b", 1, ("a", 1)), ("c", 0, ("b", 2))):
        [(dropped, (reason, detail))] = rejects(folder, subset).items()
        assert (dropped, reason) == (row, "near_duplicate")
        assert detail.startswith(f"{kept(folder, other)[kept_row]} ({other}), similarity ")


def test_funnel_and_trace(filtered):
    assert "near_duplicate 1" in kun(filtered, "status", "runs/my", "--verbose").stdout
    (dropped,) = shown(filtered, "b", "--rejects", "--fields", "id")
    name = dropped["id"]
    life = json.loads(kun(filtered, "trace", "runs/my", name, "--json").stdout)["life"]
    assert [(event["stage"], event["outcome"]) for event in life] == [
        ("stage2_ingest", "kept"),
        ("stage2_quality", "kept"),
        ("stage2_filter", "rejected"),
    ]
    assert life[-1]["reason"] == "near_duplicate"
    assert life[-1]["detail"].startswith(f"{kept(filtered, 'a')[1]} (a), ")


def test_each_subset_by_itself_and_off(filtered):
    alone = kun(filtered, *RUN, "--filter.no-near-duplicates-across")
    assert "stage2_quality/c: nothing to do" in alone.stdout and "stage2_filter/c: 2 in, 2 kept" in alone.stdout
    assert set(rejects(filtered, "a")) == {2} and not rejects(filtered, "b")
    off = kun(filtered, *RUN, "--filter.near-duplicates", "None")
    assert "stage2_duplicates" not in off.stdout and "stage2_filter/a: 3 in, 3 kept" in off.stdout


def test_a_changed_setting_makes_what_depends_on_it(filtered):
    changed = kun(filtered, *RUN, "--filter.near-duplicates", "0.99")
    assert "stage2_quality/a: nothing to do" in changed.stdout
    assert "stage2_duplicates/a: documents 3, near_duplicates 1" in changed.stdout
    assert "stage2_filter/c: 2 in, 2 kept" in changed.stdout
    again = kun(filtered, *RUN)
    assert again.stdout.count("nothing to do") == again.stdout.count("stage2_")


def test_a_corpus_added_at_the_end_leaves_the_others_alone(filtered):
    markers = {path: path.stat().st_mtime_ns for path in (filtered / "runs/my/store").glob("*/done.json")}
    write(filtered / "d.jsonl", [prose(6) + "。尾", prose(7)])
    text = (filtered / "my.yaml").read_text().replace("filter:", "  d: {paths: [d.jsonl], format: jsonl}\nfilter:")
    (filtered / "my.yaml").write_text(text)
    done = kun(filtered, *RUN)
    assert len(markers) == 5 * 3 and all(path.stat().st_mtime_ns == time for path, time in markers.items())
    assert "stage2_filter/d: 2 in, 1 kept, 1 rejected (near_duplicate 1)" in done.stdout


def test_one_subset_brings_those_before_it_as_far_as_it_needs_them(folder):
    done = kun(folder, *RUN, "--subset", "b")
    assert done.returncode == 0, done.stderr
    made = {line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("stage2_")}
    steps = {f"stage2_{stage}/{subset}" for stage in ("ingest", "quality", "duplicates") for subset in "ab"}
    assert made >= steps | {"stage2_filter/b"}
    assert "stage2_filter/a" not in done.stdout and "/c" not in done.stdout
    assert set(rejects(folder, "b")) == {1}
    forced = kun(folder, *RUN, "--subset", "b", "--force").stdout
    assert "stage2_quality/a: nothing to do" in forced and "stage2_quality/b: 3 in" in forced
    alone = kun(folder, *RUN, "--subset", "c", "--filter.no-near-duplicates-across")
    assert "/a" not in alone.stdout and "stage2_filter/c: 2 in, 2 kept" in alone.stdout
