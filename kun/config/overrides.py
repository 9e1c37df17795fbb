"""Settings on the command line, as one more layer over those of the files: `layer(["--score.threshold", "0.7"], below)`
is `{"score": {"threshold": 0.7}}`.

An option is the dotted name of a setting, with - or _. A list takes several words. A setting that is true or false may
take none (`--filter.clean.no-encoding`). All others take one word, which is read as YAML unless it can only be text.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ruamel.yaml import YAML

from kun.config.settings import kind_of
from kun.errors import ConfigError, InputError


def layer(arguments: Sequence[str], below: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping for these options; `below` is that of the files, from which the names of the corpora are known.

    Neither types nor names are checked here; they are validated together with the files. InputError for a word that
    belongs to no option, ConfigError for an option with too many words or none.
    """
    found: dict[str, Any] = {}
    for option, words in _options(arguments):
        keys = _keys(option.removeprefix("--"), below)
        inverse = [*keys[:-1], keys[-1].removeprefix("no_")]
        if not words and inverse != keys and kind_of(keys) is Any and kind_of(inverse) is bool:
            keys, value = inverse, False
        else:
            value = _value(option, kind_of(keys), words)
        section = found
        for key in keys[:-1]:
            inner = section.get(key)
            section[key] = section = inner if isinstance(inner, dict) else {}
        section[keys[-1]] = value
    return found


def _options(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            option, equals, word = argument.partition("=")
            found.append((option, [word] if equals else []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise InputError(f"unknown arguments: {shlex.join(arguments)}; see kun --help")
    return found


def _keys(name: str, below: Any) -> list[str]:
    """`corpora.wu-dao.paths` as keys: known ones as they are, such as names with a dot or a -, all others with _."""
    known = below if isinstance(below, Mapping) else {}
    names = [key for key in known if isinstance(key, str)]
    for key in sorted(names, key=lambda key: (name[: len(key)] == key, len(key)), reverse=True):  # as it is typed first
        head, rest = name[: len(key)], name[len(key) :]
        if head.replace("-", "_") == key.replace("-", "_") and rest[:1] in ("", "."):
            return [key, *(_keys(rest[1:], known[key]) if rest else [])]
    head, dot, rest = name.partition(".")
    return [head.replace("-", "_"), *(_keys(rest, None) if dot else [])]


def _value(option: str, kind: Any, words: list[str]) -> Any:
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    lists = [member for member in members if get_origin(member) is tuple]
    if lists:
        return [_scalar(get_args(lists[0])[:1], word) for word in words]
    if kind is Any and len(words) > 1:
        return [_scalar(members, word) for word in words]
    if {bool, Any} & set(members) and not words:
        return True
    if len(words) != 1:
        given = f"{len(words)} words: {shlex.join(words)}" if words else "none"
        raise ConfigError(f"{option}: takes one word, and has {given}")
    return _scalar(members, words[0])


def _scalar(members: Sequence[Any], word: str) -> Any:
    """The value of a word; it is left as it is where only text is allowed."""
    plain = {get_args(member)[0] if get_origin(member) is Annotated else member for member in members}
    if word in ("null", "None") and (NoneType in plain or str not in plain):
        return None
    if plain <= {str, NoneType}:
        return word
    try:
        value = YAML(typ="safe", pure=True).load(word)
    except Exception:  # ruamel.yaml raises anything
        return word
    fits = isinstance(value, str | int | list | dict | None) or (isinstance(value, float) and math.isfinite(value))
    return value if fits else word
