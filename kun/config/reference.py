"""Every setting with its meaning: `help_text(config, title)` for `kun run --help`; `python -m kun.config.reference`
prints configs/base.yaml, with the defaults."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from kun.config.schema import Config, Section
from kun.config.settings import NAME, Setting, settings

WIDTH = 120  # of lines where there is no terminal
HEAD = "# Every setting of Kun with its default. `extends: base.yaml` in your own file, and change what you need."


def reference() -> str:
    """configs/base.yaml: every setting with its meaning and its default."""
    return "\n".join([HEAD, *_yaml()]) + "\n"


def _yaml() -> Iterator[str]:
    for setting in settings(Config, Config()):
        if NAME in setting.keys:
            continue
        indent = "  " * (len(setting.keys) - 1)
        name = setting.keys[-1]
        yield from textwrap.wrap(
            setting.description, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        if isinstance(setting.value, dict) and setting.value:
            yield f"{indent}{name}:"
            yield from (f"{indent}  {key}: {_scalar(item)}" for key, item in setting.value.items())
        elif isinstance(setting.value, Section):
            yield f"{indent}{name}:"
        else:
            yield f"{indent}{name}: {_scalar(setting.value)}"


def help_text(config: Config, title: str) -> str:
    """Every setting as an option of the command line, with its type, its meaning, and its value in `config`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(Text(title), Text(_HOW), sep="\n")
        for section, members in _sections(config):
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(max_width=44, overflow="fold")
            table.add_column(overflow="fold")
            for setting in members:
                for option, metavar, meaning, value in _options(setting):
                    left = Text.assemble((option, "cyan"), " ", (metavar, "dim"))
                    table.add_row(left, Text.assemble(meaning, " " if meaning and value else "", (value, "green")))
            console.print("", Text(section, "bold"), table, sep="\n")
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


_HOW = """\
Names take - or _. An option takes one word, read as YAML (null: none, if the type has it); a list takes several words.
For a setting that is true or false, --no-NAME is the opposite. KEY: an option of the library, by its name there."""


def _sections(config: Config) -> Iterator[tuple[str, list[Setting]]]:
    """The heading and the settings of each section that has settings of its own."""
    found: dict[tuple[str, ...], tuple[str, list[Setting]]] = {(): ("general", [])}
    for setting in settings(Config, config):
        if setting.is_section:
            name = ".".join(setting.keys)
            found[setting.keys] = (f"{name}: {setting.description}" if setting.description else name, [])
        else:
            found[setting.keys[:-1]][1].append(setting)
    yield from ((heading, members) for heading, members in found.values() if members)


def _options(setting: Setting) -> Iterator[tuple[str, str, str, str]]:
    """Option, type, meaning and present value; a mapping that goes to a library has a line for each key that is set."""
    as_named = 2 if setting.keys[0] == "corpora" else 0  # the name of a corpus is not changed
    names = [*setting.keys[:as_named], *(key.replace("_", "-") for key in setting.keys[as_named:])]
    option = f"--{'.'.join(names)}"
    if get_origin(setting.kind) is not dict:
        unknown = NAME in setting.keys and setting.value is None
        yield option, metavar(setting.kind), setting.description, "" if unknown else f"(now: {_shown(setting.value)})"
        return
    yield f"{option}.KEY", "VALUE", setting.description, "" if setting.value else "(now: none)"
    for keys, value in _leaves(setting.value or {}):
        yield ".".join([option, *keys]), "", "", f"(now: {_shown(value)})"


def _leaves(mapping: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def metavar(kind: Any) -> str:
    """The type of a setting as --help shows it: `INTEGER|null`, `zh|en`, `[TEXT ...]`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return metavar(arguments[0])
    if origin in (Union, UnionType):
        return "|".join(metavar(member) for member in arguments)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin is tuple:
        return f"[{metavar(arguments[0])} ...]"
    return _NAMES.get(kind, "VALUE")


_NAMES = {NoneType: "null", bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT"}


def _shown(value: Any) -> str:
    """A value as it is typed: lists as words."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(_shown, value)) if value else "an empty list"
    return _scalar(value) if value != "" else '""'


def _scalar(value: Any) -> str:
    """A value as YAML (JSON is YAML)."""
    plain = isinstance(value, str) and value.replace("-", "").isalnum()
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    print(reference(), end="")
