"""Lines that were deleted, put in, edited or moved, against a list kept whole."""

from __future__ import annotations

import random

import pytest

from kun.verify.differences import WINDOW, differences


def told(found: list[str], expected: list[str]) -> list[tuple[int, str]]:
    return list(differences(found, [(value, f"record {value}") for value in expected]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("abcdef", []),
        ("", [(1, f"record {name}, which should be here, is missing") for name in "abcdef"]),
        ("bcdef", [(1, "record a, which should be here, is missing")]),
        ("abef", [(3, f"record {name}, which should be here, is missing") for name in "cd"]),
        ("abcde", [(6, "record f, which should be here, is missing")]),
        ("abcxdef", [(4, "is of no record")]),
        ("abcdefx", [(7, "is of no record")]),
        ("abxdef", [(3, "is not what record c gives")]),
        ("bacdef", [(1, "changed places with line 2 (it should be record a)")]),
        ("fbcdea", [(1, "changed places with line 6 (it should be record a)")]),
        ("bcdef" + "x", [(1, "record a, which should be here, is missing"), (6, "is of no record")]),
    ],
)  # fmt: skip
def test_each_kind_of_damage(found, expected):
    assert told(list(found), list("abcdef")) == expected


def test_one_damage_in_a_long_file_is_one_line():
    rng = random.Random(5)
    lines = [f"{number:04d}" for number in range(1000)]
    for _ in range(200):
        place = rng.randrange(1000)
        other = min(place + rng.randrange(1, WINDOW - 1), 999)
        for damaged, line in (
            (lines[:place] + lines[place + 1 :], place + 1),
            ([*lines[:place], "x", *lines[place:]], place + 1),
            ([*lines[:place], "x", *lines[place + 1 :]], place + 1),
        ):
            assert [number for number, _ in told(damaged, lines)] == [line]
        swapped = lines.copy()
        swapped[place], swapped[other] = swapped[other], swapped[place]
        assert [number for number, _ in told(swapped, lines)] == ([place + 1] if place != other else [])


def test_any_damage_at_all_is_seen():
    rng = random.Random(6)
    for _ in range(500):
        lines = [rng.choice("abcd") for _ in range(rng.randrange(12))]  # lines that come again
        found = [rng.choice("abcd") for _ in range(rng.randrange(12))] if rng.random() < 0.7 else lines
        assert bool(told(found, lines)) == (found != lines)
