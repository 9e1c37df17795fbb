"""A row of a corpus, and its text or the reason why it has none: `text_field("content")(data)`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

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
    """A function from the bytes of one JSON object to the text in `field`."""
    shape = msgspec.defstruct("Fields", [("text", str | msgspec.UnsetType, msgspec.UNSET)], rename={"text": field})
    decoder = msgspec.json.Decoder(shape)

    def text_of(data: bytes) -> str | Reject:
        try:
            text = decoder.decode(data).text  # type: ignore[attr-defined]
            return text if isinstance(text, str) else _explain(data, field)
        except (ValueError, RecursionError, msgspec.MsgspecError):
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
    if field not in value:
        if "q_main" in value:
            return Reject("exam_question", "an examination question of WanJuan, with options and answer: no document")
        return Reject("no_field", preview(f"no field {field!r}; fields: {', '.join(map(str, value)) or 'none'}"))
    if not isinstance(value[field], str):
        return Reject("not_text", f"the field {field!r} holds a JSON {_name(value[field])}")
    return str(value[field])


def _name(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
