"""What must stay true of the house: nothing outside `stages/` knows a stage by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.code_of_rows import stages
from tests.runs import REPOSITORY

OUTSIDE = sorted((REPOSITORY / "kun").rglob("*.py"))
NAMES = {stage.name for stage in stages()}
KNOWN = re.compile(r"stage\d|stage\*|" + "|".join(map(re.escape, sorted(NAMES))))
PAGES = re.compile(r"docs/stage\d\.md")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that are no docstrings, by line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_stage_is_known_outside_stages(path: Path) -> None:
    found = [f"{path}:{line}: {text!r}" for line, text in texts(path) if KNOWN.search(PAGES.sub("", text))]
    assert not found
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"(stage|command|step)\w*(\.name)?\.(split|partition)\(\W_|stages\[-?\d", source)


def test_the_search_finds_what_it_looks_for() -> None:
    assert len(NAMES) == 16 and all(KNOWN.search(name) for name in ("stage2_lm/kenlm", "run stage3", "stage*/*"))
