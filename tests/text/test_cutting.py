"""The longest opening that fits ends at a sentence, and is found in few attempts."""

from __future__ import annotations

import random

from kun.text.cutting import longest_opening


def within(limit: int, attempts: list[int] | None = None):
    def attempt(text: str) -> str | None:
        if attempts is not None:
            attempts.append(len(text))
        return text if len(text) <= limit else None

    return attempt


def test_a_text_that_fits_is_left_alone() -> None:
    assert longest_opening("一。二。 ", within(5)) == "一。二。 "


def test_the_cut_is_at_the_last_sentence_that_fits() -> None:
    assert longest_opening("第一句。第二句！\n\n第三句", within(10)) == "第一句。第二句！"
    assert longest_opening("第一句。第二句", within(3)) is None


def test_no_longer_opening_would_fit() -> None:
    rng = random.Random(3)
    for _ in range(50):
        sentences = ["字" * rng.randrange(1, 30) + "。" for _ in range(rng.randrange(1, 40))]
        text, limit, attempts = "".join(sentences), rng.randrange(1, 300), list[int]()
        openings = ["".join(sentences[:number]) for number in range(1, len(sentences) + 1)]
        fitting = [opening for opening in openings if len(opening) <= limit]
        assert longest_opening(text, within(limit, attempts)) == (fitting[-1] if fitting else None)
        assert len(attempts) <= 8
