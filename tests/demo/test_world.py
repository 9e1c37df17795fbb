"""The demo world: same seed same bytes, the release schemas, and a gold key that fits the files."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from kun.demo import documents, genres, instructions, names
from kun.demo.world import NOISE_KINDS, SUBSETS, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    write_world(out, seed=11, documents=120, seeds=60)
    return out


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def files_of(world: Path) -> dict[str, bytes]:
    return {str(path.relative_to(world)): path.read_bytes() for path in sorted(world.rglob("*")) if path.is_file()}


def texts_of(corpora: Path, subset: str) -> dict[tuple[str, int], str]:
    """(file, row) -> text, read as a stranger would read the release."""
    texts = {}
    for path in sorted((corpora / subset).iterdir()):
        if path.suffix == ".json":
            rows = {path.name: json.loads(path.read_text(encoding="utf-8"))}
        elif path.suffix == ".gz":
            with tarfile.open(path) as archive:
                rows = {
                    f"{path.name}/{member.name}": [json.loads(line) for line in archive.extractfile(member).readlines()]
                    for member in archive.getmembers()
                }
        else:
            rows = {path.name: lines(path)}
        for file, content in rows.items():
            for number, row in enumerate(content):
                texts[file, number] = row["text"] if subset == "skypile" else row["content"]
    return texts


def test_same_seed_same_bytes_another_seed_other_names(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "again", seed=11, documents=120, seeds=60)
    write_world(tmp_path / "other", seed=12, documents=120, seeds=60)
    assert files_of(tmp_path / "again") == files_of(world)
    subjects = [
        {row["subject"] for row in lines(w / "gold/documents.jsonl")} - {""} for w in (world, tmp_path / "other")
    ]
    assert len(subjects[0] & subjects[1]) <= 1


def test_seed_files_have_their_fields(world: Path) -> None:
    assert all(set(row) == {"instruction", "output"} for row in lines(world / "seeds.jsonl"))
    assert all(set(row) == {"instruction", "text", "output"} for row in lines(world / "polish.jsonl"))
    assert {row["verdict"] for row in lines(world / "judge.jsonl")} == {"good", "bad"}
    wudao = json.loads((world / "corpora/wudao/part-000.json").read_text(encoding="utf-8"))
    assert list(wudao[0]) == ["id", "uniqueKey", "titleUkey", "dataType", "title", "content"]


@pytest.mark.parametrize("subset", SUBSETS)
def test_gold_key_fits_the_files(world: Path, subset: str) -> None:
    texts = texts_of(world / "corpora", subset)
    gold = [row for row in lines(world / "gold/documents.jsonl") if row["subset"] == subset]
    assert [(row["file"], row["row"]) for row in gold] == list(texts)
    assert {row["kind"] for row in gold} == {"prose", *NOISE_KINDS}
    seen = set()
    for row in gold:
        text = texts[row["file"], row["row"]]
        if row["kind"] in ("prose", "duplicate"):
            assert (row["kind"] == "duplicate") == (text in seen)
        seen.add(text)
        assert row["subject"] in text and row["subject"] in row["instruction"]
        assert all(fact in text for fact in row["facts"])
        assert bool(row["facts"]) == (row["kind"] in ("prose", "duplicate"))
        assert row["kind"] != "overlong" or len(text) > 512
        if row["control"]:
            assert any(token in text for token in documents.CONTROL_TOKENS)


def test_polished_replies_keep_the_words_of_the_page(world: Path) -> None:
    for row in lines(world / "polish.jsonl"):
        for sentence in filter(None, row["output"].replace("\n", "").split("。")):
            assert sentence in row["text"]


def test_spoiled_instructions_differ_and_no_kind_is_missing(world: Path) -> None:
    rows = lines(world / "gold/instructions.jsonl")
    assert {row["kind"] for row in rows} == {"good", *instructions.SPOILED_KINDS}
    good = {row["instruction"] for row in rows if row["good"]}
    assert good.isdisjoint(row["instruction"] for row in rows if not row["good"])
    assert all(row["good"] == (row["kind"] == "good") for row in rows)
    assert {r["instruction"] for r in rows}.isdisjoint(
        r["instruction"] for r in lines(world / "judge.jsonl") if r["verdict"] == "good"
    )


def test_a_name_is_made_of_characters_that_no_template_uses() -> None:
    templates = [w for g in genres.GENRES for a in g.aspects for w in a.wordings]
    templates += [w for g in genres.GENRES for w in (g.subject, g.channel, *g.leads, *g.instructions)]
    templates += [a.title for g in genres.GENRES for a in g.aspects]
    templates += [
        *documents.OPENINGS,
        *documents.ASIDES,
        *documents.CLOSINGS,
        *documents.SITES,
        *instructions.VAGUE_SUBJECTS,
    ]
    assert set(names.NAME_CHARS).isdisjoint("".join(templates))
    assert set(names.SURNAMES) <= set(names.NAME_CHARS)
    assert len(set(names.NAME_CHARS)) == len(names.NAME_CHARS)
