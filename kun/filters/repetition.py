"""Repetition: `repetitive(text, 0.5)` rejects menus, doubled pages and one unit repeated to the end."""

from __future__ import annotations

from kun.records import Reject

# Characters of a stretch that counts as repeated. Measured on real text (docs/measurements.md): with 5, menus of
# shuffled entries stand at 0.46 to 0.84 and repeated units at 0.9 and more, and 99 % of web, technical and legal prose
# below 0.5; 8 and more lose the menus, 4 reaches into legal prose.
LENGTH = 5


def repetitive(text: str, limit: float) -> Reject | None:
    """Reject a text of which `limit` or more repeats itself: 0.5 is a text that says everything twice."""
    share = repeated_share(text)
    return Reject("repetition", f"{share:.0%} of the text repeats itself") if share >= limit else None


def repeated_share(text: str) -> float:
    """Share of the characters, white space aside, that lie in a stretch of `LENGTH` that the text had before.

    A unit of any length that comes n times gives 1 - 1/n, for n characters on end as for n pages. Linear time.
    """
    text = "".join(text.split())
    size = len(text)
    grams = [text[start : start + LENGTH] for start in range(size - LENGTH + 1)]
    seen: set[str] = set()
    covered = end = 0
    for start, gram in enumerate(grams):
        if gram in seen:
            covered += start + LENGTH - max(start, end)
            end = start + LENGTH
        else:
            seen.add(gram)
    return covered / size if size else 0.0
