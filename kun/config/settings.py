"""The settings of the schema: `for setting in settings(Config): ...`. Options of the command line, `kun run --help` and
configs/base.yaml all follow this one walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from kun.config.schema import Config, Section

NAME = "NAME"  # among the keys of a setting: stands for any name, such as that of a corpus


@dataclass(frozen=True)
class Setting:
    """A setting, or a section of them. `value` is None in a walk without values, and below NAME."""

    keys: tuple[str, ...]
    kind: Any
    description: str
    value: Any

    @property
    def is_section(self) -> bool:
        return _section(self.kind) is not None or _named_section(self.kind) is not None


def settings(kind: type[Section], values: Section | None = None, above: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting in a section, a section before its members.

    `values` has the values, and the names in mappings of sections; without names, NAME stands for them.
    """
    for name, field in kind.model_fields.items():
        keys, inner = (*above, name), field.annotation
        value = None if values is None else getattr(values, name)
        yield Setting(keys, inner, field.description or "", value)
        if (section := _section(inner)) is not None:
            yield from settings(section, value, keys)
        elif (section := _named_section(inner)) is not None:
            for each, item in (value or {NAME: None}).items():
                yield Setting((*keys, each), section, "", item)
                yield from settings(section, item, (*keys, each))


def kind_of(keys: Sequence[str]) -> Any:
    """The type of a setting; Any if it is unknown, or passed on to a library."""
    return _kinds().get(_place(keys), Any)


def known_below(keys: Sequence[str]) -> list[str]:
    """The names of the settings in a section; none if it is unknown."""
    place = _place(keys)
    return [known[-1] for known in _kinds() if known and known[:-1] == place]


def _place(keys: Sequence[str]) -> tuple[str, ...]:
    """Where the schema has a setting: `corpora.web.filter.sample` is a setting of the section `filter`."""
    if keys[:1] == ["corpora"] and len(keys) > 1:
        return tuple(keys[2:]) if keys[2:3] == ["filter"] else ("corpora", NAME, *keys[2:])
    return tuple(keys)


@cache
def _kinds() -> dict[tuple[str, ...], Any]:
    return {(): Config} | {setting.keys: setting.kind for setting in settings(Config)}


def _section(kind: Any) -> type[Section] | None:
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _named_section(kind: Any) -> type[Section] | None:
    """The type of the sections in a mapping from names to sections."""
    return _section(get_args(kind)[1]) if get_origin(kind) is dict else None
