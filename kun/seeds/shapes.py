"""A row of a seed file to its pairs, by the names of its fields: `pairs_of(row, reading)`.

Known are alpaca (`instruction`, `input`, `output`, `system`, `history`; `instances`), conversations (`messages`,
`conversations`; kun/seeds/turns.py), other usual names of a request and its reply, and `text` with the marks of turns.
Preference pairs, tools and pictures are refused by name, never read as something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kun.config.schema import SeedFields, Speakers
from kun.seeds.pairs import Fault, SeedPair
from kun.seeds.turns import TAG, Turn, is_conversation, pairs_of_turns, turns_of
from kun.text.normal import preview

REQUESTS = ("instruction", "prompt", "question", "query")
REPLIES = ("output", "response", "answer", "completion")
SUBJECTS = ("input", "context")
CONVERSATIONS = ("messages", "conversations", "conversation")
PREFERENCES = frozenset({"chosen", "rejected"})
TOOL_FIELDS = ("tools", "functions")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
NO_INPUT = ("", "<noinput>", "noinput")  # what files say where there is no input
EMPTY: tuple[Any, ...] = (None, "", "[]", "{}", "null", [], {})


@dataclass(frozen=True)
class Reading:
    """How rows become pairs: settings of `seeds`."""

    fields: SeedFields = field(default_factory=SeedFields)
    speakers: Speakers = field(default_factory=Speakers)
    only_first: bool = False


@dataclass(frozen=True)
class Found:
    """What a row gives: pairs and faults, in their order; how it was read; fields that were not."""

    shape: str
    pairs: tuple[SeedPair | Fault, ...]
    unread: tuple[str, ...] = ()


def read_row(value: Any, reading: Reading) -> Iterator[Found]:
    """What a row gives; several, where the row is a list of rows."""
    if isinstance(value, list) and not is_conversation(value) and value and all(isinstance(v, dict) for v in value):
        for inner in value:
            yield from read_row(inner, reading)
    elif isinstance(value, list) and is_conversation(value):
        yield Found("conversation", _conversation(turns_of(value, reading.speakers), "", reading))
    elif isinstance(value, dict):
        yield _read(value, reading)
    else:
        yield Found("unknown", (Fault("wrong_type", f"a JSON {type(value).__name__}, not an object with fields"),))


def _read(row: Mapping[Any, Any], reading: Reading) -> Found:
    places = {name: place for name, place in reading.fields if place is not None}
    named = {name: _at(row, place) for name, place in places.items()}
    for name, place in places.items():
        if named[name] is _ABSENT:
            hint = "; numbers are for files without a header: seeds.header: false" if isinstance(place, int) else ""
            return Found("unknown", (Fault("missing_field", f"no field {place}: {_fields_of(row)}{hint}"),))
    filled = {name: value for name, value in row.items() if value not in EMPTY}
    if fault := _foreign(filled, named):
        return Found("refused", (fault,))
    roots = {_root(row, place) for place in places.values()}
    row = {name: value for name, value in row.items() if name not in roots} | named
    system = row.get("system", row.get("system_prompt")) or ""
    if not isinstance(system, str):
        return Found("unknown", (Fault("wrong_type", "the system message is no text"),))
    shape, used, pairs = _by_fields(row, named, system, reading)
    used |= roots | {"system", "system_prompt"}
    return Found(shape, pairs, tuple(str(name) for name in filled if name not in used))


Pairs = tuple[SeedPair | Fault, ...]
Parts = tuple[str, set[Any], Pairs]  # how a row was read, the names that were, and what it gives


def _by_fields(row: Mapping[Any, Any], named: Mapping[str, Any], system: str, reading: Reading) -> Parts:
    if found := _conversation_in(row, named):
        name, value = found
        shape = f"conversation ({_label(name, reading)})"
        return shape, {name}, _conversation(turns_of(value, reading.speakers), system, reading)
    if isinstance(instances := row.get("instances"), list):
        every: Pairs = ()
        for instance in instances or [{}]:
            inner = instance if isinstance(instance, dict) else {"output": instance}
            every += _plain({"instruction": row.get("instruction"), **inner}, named, system, reading)[2]
        return "pairs (instruction, instances: input, output)", {"instruction", "instances"}, every
    return _plain(row, named, system, reading)


def _plain(row: Mapping[Any, Any], named: Mapping[str, Any], system: str, reading: Reading) -> Parts:
    """A request and its reply, each in a field of its own."""
    request, reply, subject = (_choice(row, names) for names in (REQUESTS, REPLIES, SUBJECTS))
    for chosen in (request, reply, subject):
        if isinstance(chosen, Fault):
            return "unknown", set(), (chosen,)
    if request is None and reply is None and isinstance(text := row.get("text"), str):
        pairs = _conversation(turns_of(text, reading.speakers), system, reading)
        return "turns in one text (text)", {"text"}, pairs
    if (request is None and subject is None) or reply is None:
        return "unknown", set(), (_lacking(row, request or subject, reply),)
    used = [name for name in (request, subject, reply, "history") if name in row]
    shape = f"pairs ({', '.join(_label(str(name), reading) for name in used)})"
    return shape, set(used), _one_pair(row, (request, subject, reply), system, reading)


def _one_pair(row: Mapping[Any, Any], names: Sequence[Any], system: str, reading: Reading) -> Pairs:
    """The pair of these three fields, and those of the exchanges before it."""
    request, subject, reply = names
    texts = [_content(row, name) for name in names]
    if fault := next((text for text in texts if isinstance(text, Fault)), None):
        return (fault,)
    instruction, about, output = map(str, texts)
    about = "" if about.strip().lower() in NO_INPUT else about
    if not instruction.strip():
        instruction, about = about, ""  # the input is all that was asked
    for name, text in ((request or subject, instruction), (reply, output)):
        if not text.strip():
            return (Fault("empty_field", f"`{name}` is empty"),)
    if (history := row.get("history")) in EMPTY:
        return (SeedPair(instruction, output, about, system if system.strip() else ""),)
    before = turns_of(history, reading.speakers)
    if isinstance(before, Fault):
        return (Fault(before.reason, f"`history`: {before.detail}"),)
    last = SeedPair(instruction, output, about).request
    return _conversation([*before, Turn("user", last), Turn("assistant", output)], system, reading)


def _conversation(turns: list[Turn] | Fault, system: str, reading: Reading) -> Pairs:
    if isinstance(turns, Fault):
        return (turns,)
    return tuple(pairs_of_turns(turns, system if system.strip() else "", reading.only_first))


def _conversation_in(row: Mapping[Any, Any], named: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """The field with a conversation, and the list in it, which a table may hold as JSON."""
    if "output" in named and "messages" not in named and "instruction" in named:
        return None
    for name in ("messages",) if "messages" in named else CONVERSATIONS:
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return name, value
        if value in EMPTY and "messages" not in named:
            continue
        if "output" in named:  # the reply stands elsewhere, such as the chosen one of a preference pair
            reply = _content(row, "output")
            value = [*value, {"role": "assistant", "content": reply}] if isinstance(value, list) else value
        return name, value
    return None


def _foreign(filled: Mapping[Any, Any], named: Mapping[str, Any]) -> Fault | None:
    """Rows that are no seeds, or not by themselves."""
    if filled.keys() >= PREFERENCES and "output" not in named:
        what = "a preference pair (chosen, rejected) and no seed"
        return Fault("preference", f"{what}; to learn the chosen replies set seeds.fields.output: chosen")
    if name := next((name for name in TOOL_FIELDS if name in filled), None):
        return Fault("tools", f"a conversation with tools (`{name}`), which Kun's models do not have: left out")
    if name := next((name for name in MEDIA if name in filled), None):
        return Fault("not_text", f"a conversation about pictures or sounds (`{name}`)")
    return None


def _choice(row: Mapping[Any, Any], names: tuple[str, ...]) -> str | Fault | None:
    """The one of these names that the row has; the first is the one that settings give."""
    if names[0] in row:
        return names[0]
    present = [name for name in names if name in row]
    filled = [name for name in present if row[name] not in EMPTY]
    if len(filled) > 1:
        what = f"`{filled[0]}` or `{filled[1]}` may be the {names[0]}"
        return Fault("missing_field", f"{what}; name the one that is in seeds.fields.{names[0]}")
    return next(iter([*filled, *present]), None)


def _content(row: Mapping[Any, Any], name: str | None) -> str | Fault:
    """The text of a field; a reply may also be a message, or a conversation that ends in it."""
    value = "" if name is None else row[name]
    if name == "output" and isinstance(value, list) and is_conversation(value):
        value = value[-1]
    if name == "output" and isinstance(value, dict):
        value = next((value[key] for key in ("content", "value", "text") if key in value), value)
    if value is None:
        return ""
    return value if isinstance(value, str) else Fault("wrong_type", f"`{name}` holds {type(value).__name__}, no text")


def _lacking(row: Mapping[Any, Any], request: str | Fault | None, reply: str | Fault | None) -> Fault:
    """What to do with a row in which no request, or no reply, is found."""
    said = _fields_of(row)
    flat = next((name for name, value in row.items() if _is_tagged(value)), None)
    if flat is not None:
        tags = list(dict.fromkeys(TAG.match(text)[1] for text in row[flat] if TAG.match(text)))  # type: ignore[index]
        who = f"seeds.speakers.user: [{tags[0]}]" + (f" and .assistant: [{tags[1]}]" if len(tags) > 1 else "")
        return Fault(
            "missing_field", f"no reply; `{flat}` looks like a conversation: set seeds.fields.messages: {flat}, {who}"
        )
    if request is not None:
        what = "a prompt without an answer, which is no seed"
        return Fault("missing_field", f"{what}: {said}; if one of them is the answer, name it in seeds.fields.output")
    wanted = "the reply is there, but no request" if reply is not None else "neither request nor reply is known by name"
    return Fault("missing_field", f"{wanted}: {said}; name them in seeds.fields.instruction and seeds.fields.output")


def _is_tagged(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) and TAG.match(v) for v in value)


def _fields_of(row: Mapping[Any, Any]) -> str:
    if all(isinstance(name, int) for name in row):
        return f"it has the columns 1 to {len(row)}"
    return preview(f"its fields are {', '.join(preview(str(name), 40) for name in row) or 'none'}")


_ABSENT = msgspec.UNSET


def _at(row: Mapping[Any, Any], place: str | int) -> Any:
    """The value of a field, or of a path such as `data.question`."""
    if place in row:
        return row[place]
    value: Any = row
    for key in str(place).split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _root(row: Mapping[Any, Any], place: str | int) -> str | int:
    return place if place in row else str(place).split(".")[0]


def _label(name: str, reading: Reading) -> str:
    """The name of a field, as the file has it."""
    given = getattr(reading.fields, name, None)
    return str(name if given is None else given)
