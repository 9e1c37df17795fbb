"""The code that decides the rows of each stage, as a digest: `python -m tests.code_of_rows` records what is there now.

From the functions that a stage's work names, every function, class and constant of Kun that they use, and those use, is
read as source: their syntax trees without docstrings, comments and layout are digested. Left out are the machinery that
no row hangs on, and engines, whose own tests hold them to the same tokens.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from kun.pipeline.stage import Stage

REPOSITORY = Path(__file__).parent.parent
RECORD = Path(__file__).with_name("code_of_rows.json")
LEFT_OUT = ("kun.pipeline", "kun.store", "kun.execution", "kun.config", "kun.progress", "kun.errors", "kun.engines")
Place = tuple[str, str]  # of a definition: its module, and its name there


def digest(stage: Stage) -> str:
    sources = {place: _source(place) for place in reached(stage)}
    text = json.dumps(sorted((module, name, source) for (module, name), source in sources.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def reached(stage: Stage) -> set[Place]:
    """The definitions that the work of a stage uses."""
    found: set[Place] = set()
    waiting = [place for value in vars(stage.work).values() for place in _roots(value)]
    waiting += [(kind.__module__, kind.__name__) for kind in (stage.spec.reads, stage.spec.writes)]
    while waiting:
        place = waiting.pop()
        if place in found or place[0].startswith(LEFT_OUT) or place[1] not in _definitions(place[0]):
            continue
        found.add(place)
        waiting += _used(place)
    return found


def _roots(value: Any) -> Iterator[Place]:
    """The functions in a callable: what a partial holds, what a closure has caught."""
    if isinstance(value, partial):
        for one in (value.func, *value.args, *value.keywords.values()):
            yield from _roots(one)
    elif inspect.ismethod(value):
        yield from _roots(value.__func__)
    elif inspect.isfunction(value):
        yield value.__module__, value.__qualname__.split(".")[0]
        for cell in value.__closure__ or ():
            yield from _roots(cell.cell_contents)


@cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    path = REPOSITORY / (module.replace(".", "/") + ".py")
    path = path if path.is_file() else path.with_suffix("") / "__init__.py"
    if not path.is_file():
        return {}
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = statement
            case ast.Assign(targets=targets):
                found |= {one.id: statement for target in targets for one in ast.walk(target) if _is_name(one)}
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
                found[name] = statement
            case ast.Import() | ast.ImportFrom():
                found |= dict.fromkeys(_imported(statement), statement)
    return found


def _used(place: Place) -> Iterator[Place]:
    """What a definition uses: names of its module, what it imports, and attributes of modules."""
    module, name = place
    node = _definitions(module)[name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield _imported(node)[name]
        return
    inner: dict[str, Place] = {}
    for one in ast.walk(node):
        if isinstance(one, ast.Import | ast.ImportFrom):
            inner |= _imported(one)
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name):
            owner = inner.get(one.value.id) or _import_of(module, one.value.id)
            if owner is not None:  # kun.filters.perplexity, lmplz -> kun.filters.perplexity.lmplz
                yield f"{owner[0]}.{owner[1]}", one.attr
        if isinstance(one, ast.Name):
            yield inner.get(one.id) or (module, one.id)


def _import_of(module: str, name: str) -> Place | None:
    statement = _definitions(module).get(name)
    return _imported(statement)[name] if isinstance(statement, ast.Import | ast.ImportFrom) else None


def _imported(statement: ast.stmt) -> dict[str, Place]:
    if isinstance(statement, ast.ImportFrom) and statement.module:
        return {alias.asname or alias.name: (statement.module, alias.name) for alias in statement.names}
    return {}


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


@cache
def _source(place: Place) -> str:
    module, name = place
    node = ast.parse(ast.unparse(_definitions(module)[name]))
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = one.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                one.body[0] = ast.Pass()
    return ast.dump(node)


def stages() -> list[Stage]:
    """Every stage that some configuration has."""
    from kun.config.schema import Config
    from kun.engines.cache import EngineCache
    from kun.store.digests import Digests
    from stages import pipeline

    config = Config.model_validate(
        {
            "base_model": "base",
            "corpora": {"web": {"paths": ["web.jsonl"], "format": "jsonl"}},
            "filter": {"lm": {"estimate_from": "clean.jsonl"}},
            "decontaminate": {"files": ["quiz.jsonl"]},
            "score": {"select": "best_f1", "calibration": "judged.jsonl"},
        }
    )
    return pipeline(config, Digests(Path("none")), EngineCache(config))


def now() -> dict[str, dict[str, Any]]:
    return {stage.name: {"version": stage.spec.version, "code": digest(stage)} for stage in stages()}


if __name__ == "__main__":
    RECORD.write_text(json.dumps(now(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}", file=sys.stderr)
