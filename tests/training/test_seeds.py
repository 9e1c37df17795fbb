"""Every bad seed is named and counted; nothing usable is an error; a seed's side of the split is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.errors import InputError
from kun.models.chat import Chat, Message, load_chat
from kun.training import seeds
from kun.training.seeds import BadSeed, JudgedInstruction, SeedPair, Task
from tests.tiny_models import qwen
from tests.training.settings import pairs, write_lines


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return load_chat(qwen(tmp_path_factory.mktemp("qwen")))


def tasks(rows: list[seeds.Seed[SeedPair]]) -> list[Task]:
    return [Task(seed, [Message("user", seed.row.output)], seed.row.instruction) for seed in rows]


def test_bad_lines_are_named_with_their_reason(tmp_path: Path) -> None:
    good = {"instruction": "问", "output": "答"}
    rows = [
        good,
        "{broken",
        {"instruction": "问"},
        {"instruction": 3, "output": "答"},
        {"instruction": " ", "output": "答"},
    ]
    rows += ["", good, ["list"], {**good, "output": "另一个\u2028答"}, '{"instruction": "\\ud800", "output": "x"}']
    path = write_lines(tmp_path / "pairs.jsonl", rows)
    bad: list[BadSeed] = []
    usable = seeds.read_seeds(path, SeedPair, "seeds.pairs", bad)
    assert [seed.line for seed in usable] == [1, 9]
    assert [(seed.line, seed.reason) for seed in bad] == [
        (2, "not_json"),
        (3, "missing_field"),
        (4, "wrong_type"),
        (5, "empty_field"),
        (7, "duplicate"),
        (8, "wrong_type"),
        (10, "not_json"),
    ]
    assert all(seed.file == path and seed.detail for seed in bad)


def test_an_unknown_verdict_is_a_wrong_type(tmp_path: Path) -> None:
    rows = [{"instruction": "问", "verdict": "good"}, {"instruction": "问", "verdict": "maybe"}]
    bad: list[BadSeed] = []
    seeds.read_seeds(write_lines(tmp_path / "judge.jsonl", rows), JudgedInstruction, "seeds.judge", bad)
    assert [(seed.line, seed.reason) for seed in bad] == [(2, "wrong_type")]


def test_over_long_seeds_are_named(tmp_path: Path, chat: Chat) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [*pairs(2), {"instruction": "长", "output": "长文。" * 200}])
    bad: list[BadSeed] = []
    examples = seeds.encode(tasks(seeds.read_seeds(path, SeedPair, "seeds.pairs", bad)), chat, 200, "seeds.pairs", bad)
    assert len(examples) == 2
    assert [(seed.line, seed.reason) for seed in bad] == [(3, "over_long")]
    assert "train.max_length is 200" in bad[0].detail


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("\n\n", "is empty"), ('{broken\n{"instruction": "x"}\n', "1 not_json, 1 missing_field")],
)
def test_nothing_usable_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        seeds.read_seeds(str(path), SeedPair, "seeds.pairs", [])
    assert str(caught.value).startswith(f"seeds.pairs: {path}")


def test_only_over_long_seeds_are_an_error(tmp_path: Path, chat: Chat) -> None:
    rows = seeds.read_seeds(write_lines(tmp_path / "pairs.jsonl", pairs(2)), SeedPair, "seeds.pairs", [])
    with pytest.raises(InputError, match="2 over_long"):
        seeds.encode(tasks(rows), chat, 5, "seeds.pairs", [])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"seeds\.pairs: nowhere\.jsonl: no such file"):
        seeds.read_seeds("nowhere.jsonl", SeedPair, "seeds.pairs", [])


def test_the_split_depends_on_each_seed_alone(tmp_path: Path, chat: Chat) -> None:
    rows = seeds.read_seeds(write_lines(tmp_path / "pairs.jsonl", pairs(300)), SeedPair, "seeds.pairs", [])
    other = seeds.read_seeds(write_lines(tmp_path / "other.jsonl", pairs(300)[::-2]), SeedPair, "seeds.pairs", [])
    training, held_out = seeds.split(seeds.encode(tasks(rows), chat, 500, "", []), 0.2)
    assert len(training) + len(held_out) == 300 and 35 < len(held_out) < 85
    again = seeds.split(seeds.encode(tasks(other), chat, 500, "", []), 0.2)[1]
    keys = {example.task.seed.key for example in held_out}
    assert {example.task.seed.key for example in again} == keys & {seed.key for seed in other}


def test_training_never_goes_empty(tmp_path: Path, chat: Chat) -> None:
    rows = seeds.read_seeds(write_lines(tmp_path / "pairs.jsonl", pairs(1)), SeedPair, "seeds.pairs", [])
    training, held_out = seeds.split(seeds.encode(tasks(rows), chat, 500, "", []), 0.999)
    assert (len(training), len(held_out)) == (1, 0)


def test_nesting_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    bad: list[BadSeed] = []
    path.write_bytes(b'\xef\xbb\xbf{"instruction": "a", "output": "b"}\n' + b"[" * 100_000)
    assert [seed.row for seed in seeds.read_seeds(str(path), SeedPair, "seeds.pairs", bad)] == [SeedPair("a", "b")]
    assert [(seed.line, seed.reason) for seed in bad] == [(2, "not_json")]
