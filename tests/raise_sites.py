"""Every place in Kun that makes an error for its user, and the form of its message: `for site in sites(): ...`."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).parent.parent
USERS = {"KunError", "ConfigError", "InputError", "BusyError"}  # what ends `kun` with a message
FAILURES = {"Failure", "NoAnswerError"}  # why a record is `failed`
VALIDATORS = "kun/config/schema.py"  # its ValueErrors reach the user as ConfigErrors of kun/config/files.py
HOLE = "<>"  # in a form: what the code fills in


@dataclass(frozen=True)
class Site:
    """A call that makes an error, from its first to its last line; `form` is empty where a variable says it all."""

    file: str
    line: int
    end: int
    kind: str
    form: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}({self.form!r})"


def sites() -> Iterator[Site]:
    for folder in ("kun", "stages"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield from _sites(path)


def _sites(path: Path) -> Iterator[Site]:
    file = path.relative_to(REPOSITORY).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    makers = {  # of functions that make an error of what they are told
        node.name: node.returns.id
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id in USERS
    }
    kinds = (
        {name: name for name in USERS | FAILURES}
        | makers
        | ({"ValueError": "ValueError"} if file == VALIDATORS else {})
    )
    module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
            texts = [form_of(argument, module) for argument in node.args]
            form = next((text for text in texts if re.search(r"\w", text)), "")
            yield Site(file, node.lineno, node.end_lineno or node.lineno, kinds[node.func.id], form)


def form_of(node: ast.expr, module: ModuleType) -> str:
    """The message with a hole for each part that varies; a module's constants are none."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return re.sub(f"({HOLE})+", HOLE, "".join(form_of(part, module) for part in parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return form_of(left, module) + form_of(right, module)
        case ast.BoolOp(op=ast.Or(), values=[ast.Name(), other]):
            return form_of(other, module)
        case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
            return str(constant) if isinstance(constant := _constant(value, module), str | int) else HOLE
    return HOLE


def _constant(node: ast.expr, module: ModuleType) -> Any:
    match node:
        case ast.Name(id=name) if name.isupper():
            return getattr(module, name, None)
        case ast.Attribute(value=ast.Name(id=of), attr=name) if name.isupper():
            return getattr(getattr(module, of, None), name, None)
    return None
