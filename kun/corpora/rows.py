"""A row of a corpus, and its text or the reason why it has none: `text_field("content")(data)`."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from kun.records import Origin, Reject
from kun.text.normal import preview


class Row(NamedTuple):
    """The text of a row; or its beginning, and why it is unusable."""

    origin: Origin
    text: str
    reject: Reject | None = None


Piece = tuple[int, bytes | Reject]  # the number of a row, and its bytes or why they cannot be read


def unusable(origin: Origin, data: bytes, reject: Reject) -> Row:
    """The row of unusable bytes; a damaged encoding shows as replacement characters."""
    return Row(origin, preview(data[:800].decode("utf-8", "replace")), reject)


def text_field(field: str) -> Callable[[bytes], str | Reject]:
    """A function from the bytes of one JSON object to the text in `field`; `data.text` is the text in its `data`."""
    shape: Any = str
    for name in reversed(field.split(".")):
        own = [("text", shape | msgspec.UnsetType, msgspec.UNSET)]
        shape = msgspec.defstruct("Fields", own, rename={"text": name})
    decoder = msgspec.json.Decoder(shape)
    depth = field.count(".") + 1

    def text_of(data: bytes) -> str | Reject:
        try:
            text = decoder.decode(data)
            for _ in range(depth):
                text = text.text
            return text if isinstance(text, str) else _explain(data, field)
        except (ValueError, AttributeError, RecursionError, msgspec.MsgspecError):  # AttributeError: of an unset field
            return _explain(data, field)

    return text_of


def _explain(data: bytes, field: str) -> str | Reject:
    """The text where the fast decoder was too strict (lone surrogates, raw control characters), or the Reject."""
    try:
        value = json.loads(data.decode("utf-8"), strict=False)
    except UnicodeDecodeError as error:
        return Reject("not_utf8", f"invalid byte 0x{data[error.start]:02x} at byte {error.start} of the row")
    except RecursionError:
        return Reject("not_json", "nested too deeply")
    except ValueError as error:
        return Reject("not_json", preview(str(error)))
    if not isinstance(value, dict):
        return Reject("not_object", f"a JSON {_name(value)}, not an object")
    row = value
    for name in [field] if field in row else field.split("."):
        if not isinstance(value, dict):
            return Reject("not_text", f"the field {field!r} leads through a JSON {_name(value)}")
        if name not in value:
            if "q_main" in row:
                return Reject(
                    "exam_question", "an examination question of WanJuan, with options and answer: no document"
                )
            return Reject("no_field", preview(f"no field {field!r}; fields: {', '.join(_fields(row)) or 'none'}"))
        value = value[name]
    if not isinstance(value, str):
        return Reject("not_text", f"the field {field!r} holds a JSON {_name(value)}")
    return value


def _fields(value: dict[str, Any]) -> list[str]:
    """The names of the fields of an object and, as `data.text`, of the objects in it."""
    inner = ([f"{name}.{key}" for key in held] if isinstance(held, dict) else [] for name, held in value.items())
    return [*value, *chain.from_iterable(inner)]


def _name(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
