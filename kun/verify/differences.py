"""Lines that were deleted, inserted, edited or moved: `for line, what in differences(lines, expected): ...`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
WINDOW = 200  # lines in which a line that is not in its place is looked for


def differences(found: Iterable[T], expected: Iterable[tuple[T, str]]) -> Iterator[tuple[int, str]]:
    """Yields each wrong line (from 1) and what is wrong with it. `expected` are the values that should be there, each
    with the name of its record. Memory is constant; more than `WINDOW` lines missing in one place show as edited."""
    left, right = iter(found), iter(expected)
    have, want = deque(islice(left, WINDOW)), deque(islice(right, WINDOW))
    line = 1
    while have or want:
        if have and want and have[0] == want[0][0]:
            taken, due = 1, 1
        else:
            there = next((place for place, (value, _) in enumerate(want) if have and value == have[0]), None)
            here = next((place for place, value in enumerate(have) if want and value == want[0][0]), None)
            taken, due = 1, 1
            if not want or (have and there is None and here is not None):
                yield line, "is of no record"
                due = 0
            elif there is not None and here is not None:
                yield line, f"changed places with line {line + here} (it should be {want[0][1]})"
                have[here] = have[0]
            elif there is not None or not have:
                yield line, f"{want[0][1]}, which should be here, is missing"
                taken = 0
            else:
                yield line, f"is not what {want[0][1]} gives"
        line += taken
        if taken and have:
            have.popleft()
            have.extend(islice(left, 1))
        if due and want:
            want.popleft()
            want.extend(islice(right, 1))
