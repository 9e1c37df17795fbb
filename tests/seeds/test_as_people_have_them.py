"""The 22 files of ../shared: each is used in full, or refused with the reason and a remedy that works."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from kun.config.schema import Seeds
from kun.errors import InputError
from kun.training.seeds import BadSeed, Overview, SeedPair, read_seeds
from tests.runs import REPOSITORY

FOLDER = next((p for p in REPOSITORY.parents if (p / "shared/data").is_dir()), REPOSITORY) / "shared/data"
FOLDER = FOLDER / "seeds_as_people_have_them"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/seeds_as_people_have_them is not here")

# Rows, pairs, pairs with an input, and what is not used.
USED: dict[str, tuple[int, int, int, dict[str, int]]] = {
    "01": (120, 120, 43, {}),
    "02": (100, 100, 46, {}),
    "03": (2, 2, 0, {}),
    "04": (2, 6, 0, {}),
    "05": (10, 10, 0, {}),
    "06": (100, 100, 68, {}),
    "07": (60, 101, 0, {"duplicate": 19}),
    "08": (60, 60, 0, {}),
    "09": (40, 42, 0, {"tools": 29}),
    "10": (15, 68, 0, {}),
    "16": (48, 48, 0, {}),
    "17": (100, 126, 0, {"duplicate": 16}),
    "18": (120, 120, 0, {}),
    "19": (60, 60, 0, {}),
    "20": (30, 298, 0, {}),
    "21": (120, 120, 0, {}),
    "22": (60, 250, 0, {}),
}
ODD = {  # what the reader is asked to look at
    "16": {"a backslash and n in place of all line breaks": 2},
    "19": {"placeholders such as {{name}}, to be filled in first": 50},
}
# Words of the refusal, the settings that it names, and the pairs that these give; none where nothing helps.
REFUSED: dict[str, tuple[str, dict[str, Any], int]] = {
    "11": ("a prompt without an answer", {}, 0),
    "12": (
        "set seeds.header: false and number the columns",
        {"header": False, "fields": {"instruction": 1, "output": 2}},
        120,
    ),
    "14": ("to learn the chosen replies set seeds.fields.output: chosen", {"fields": {"output": "chosen"}}, 25),
    "15": (
        "its fields are department, title, ask, answer",
        {"fields": {"instruction": "title", "input": "ask", "output": "answer"}},
        60,
    ),
    "23": (
        r"seeds.fields.messages: history, seeds.speakers.user: \[客户\] and .assistant: \[律师\]",
        {"fields": {"messages": "history"}, "speakers": {"user": ["客户"], "assistant": ["律师"]}},
        173,
    ),
}


def source(number: str) -> str:
    (path,) = FOLDER.glob(f"{number}_*")
    return str(path)


@pytest.mark.parametrize("number", USED)
def test_used_in_full(number: str) -> None:
    rows, pairs, with_input, not_used = USED[number]
    bad: list[BadSeed] = []
    overview = Overview()
    found = read_seeds(source(number), SeedPair, "seeds.pairs", bad, Seeds(), overview)
    assert (overview.rows, len(found)) == (rows, pairs)
    assert sum(bool(seed.row.input) for seed in found) == with_input
    assert Counter(seed.reason for seed in bad) == not_used
    assert dict(overview.odd) == ODD.get(number, {})


@pytest.mark.parametrize("number", REFUSED)
def test_refused_with_a_remedy_that_works(number: str) -> None:
    words, settings, pairs = REFUSED[number]
    with pytest.raises(InputError, match=words):
        read_seeds(source(number), SeedPair, "seeds.pairs", [])
    if settings:
        found = read_seeds(source(number), SeedPair, "seeds.pairs", [], Seeds.model_validate(settings))
        assert len(found) == pairs


def test_none_is_left_out() -> None:
    assert len(USED) + len(REFUSED) == 22 == len([path for path in FOLDER.iterdir() if path.suffix != ".md"])
