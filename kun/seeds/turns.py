"""Conversations to seed pairs: `pairs_of_turns(turns_of(messages, speakers), system="", only_first=False)`.

A conversation is a list: of messages (`role` and `content`, or `from` and `value`; typed parts), of exchanges (`human`
and `assistant`, or two texts), of texts that begin with their speaker in brackets; or one text with marks of turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from kun.config.schema import Speakers
from kun.seeds.pairs import Fault, SeedPair
from kun.text.normal import preview

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
TOOLS = frozenset({"function", "function_call", "function_response", "observation", "tool", "tool_call", "ipython"})
NAMES, TEXTS = ("role", "from", "speaker"), ("content", "value", "text")
EXCHANGES = (("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("prompt", "response"))
TAG = re.compile(r"\s*[\[【]([^\]】\n]{1,20})[\]】][:：]?\s*")
# How a template marks the turns of a conversation in one text: what opens a turn, and what is left over at its end.
MARKS = (
    (re.compile(r"<s>\s*(human|assistant|user|system|bot)\s*[:：]\s*", re.IGNORECASE), "</s>"),
    (re.compile(r"<\|im_start\|>\s*(system|user|assistant)\s*\n"), "<|im_end|>"),
    (re.compile(r"\s*### ?(human|assistant|user|system)\s*[:：]\s*", re.IGNORECASE), "</s>"),
    (re.compile(r"(?:^|\n\n)(human|assistant|user)\s*[:：]\s*", re.IGNORECASE), "</s>"),
)
LLAMA = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:</?s>\s*)*\[INST\]|\Z)", re.DOTALL)
LLAMA_SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)


class Turn(NamedTuple):
    """What one speaker says; `taught` is false where the file says that this reply is not to be learnt."""

    role: Role
    text: str
    taught: bool = True


def is_conversation(value: Any) -> bool:
    """Whether a list is one of messages or exchanges, and not of rows."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and _names(value[0]) is not None


def turns_of(value: Any, speakers: Speakers) -> list[Turn] | Fault:
    """The turns of a conversation in any of the forms above, or why they cannot be told."""
    if isinstance(value, str):
        return _of_text(value)
    if not isinstance(value, list):
        return Fault("wrong_type", f"a conversation is a list of turns, not {type(value).__name__}")
    turns: list[Turn] = []
    for number, item in enumerate(value, start=1):
        found = _of_item(item, number, speakers)
        if isinstance(found, Fault):
            return found
        turns += found
    return turns


def pairs_of_turns(turns: Sequence[Turn], system: str, only_first: bool) -> Iterator[SeedPair | Fault]:
    """A pair for each reply, with all that was said before it; the first fault ends the conversation.

    A last turn that nobody replies to is no fault.
    """
    history: list[tuple[str, str]] = []
    request: str | None = None
    for number, turn in enumerate(turns, start=1):
        if not turn.text.strip():
            if turn.role == "system":
                continue
            yield Fault("empty_field", f"turn {number} ({turn.role}) is empty")
            return
        if turn.role == "system":
            if number > 1:
                yield Fault("speakers", f"turn {number}: a system message within the conversation")
                return
            system = turn.text
        elif turn.role == "user":
            if request is not None:
                yield Fault("speakers", f"turns {number - 1} and {number}: two requests without a reply between them")
                return
            request = turn.text
        elif request is None:
            yield Fault("speakers", f"turn {number}: a reply without a request")
            return
        else:
            if turn.taught:
                yield SeedPair(request, turn.text, system=system, history=tuple(history))
            else:
                yield Fault("not_taught", f"turn {number}: its weight is 0")
            if only_first:
                return
            history.append((request, turn.text))
            request = None
    if not history:
        yield Fault("missing_field", "a conversation without a reply")


def _of_item(item: Any, number: int, speakers: Speakers) -> list[Turn] | Fault:
    if isinstance(item, str):
        return _of_tagged(item, number, speakers)
    if isinstance(item, list | tuple):
        if len(item) == 2 and all(isinstance(text, str) for text in item):
            return [Turn("user", item[0]), Turn("assistant", item[1])]
        return Fault("wrong_type", f"turn {number}: a list, but not of a request and its reply")
    if not isinstance(item, dict):
        return Fault("wrong_type", f"turn {number}: neither a message nor a text")
    names = _names(item)
    if names is None:
        return Fault("missing_field", preview(f"turn {number}: no speaker and text in the fields {', '.join(item)}"))
    first, second = names
    if first not in NAMES:
        request, reply = (_text(item[name], number) for name in names)
        for text in (request, reply):
            if isinstance(text, Fault):
                return text
        return [Turn("user", str(request)), Turn("assistant", str(reply))]
    if item.get("tool_calls") or item.get("function_call"):
        return Fault("tools", f"turn {number} calls a tool")
    role = _role(item[first], number, speakers)
    if isinstance(role, Fault):
        return role
    text = _text(item[second], number)
    return text if isinstance(text, Fault) else [Turn(role, text, _is_taught(item))]


def _names(item: dict[str, Any]) -> tuple[str, str] | None:
    """The names of speaker and text, or of request and reply."""
    name = next((name for name in NAMES if isinstance(item.get(name), str)), None)
    text = next((name for name in TEXTS if name in item), None)
    if name and text:
        return name, text
    return next((pair for pair in EXCHANGES if pair[0] in item and pair[1] in item), None)


def _role(name: str, number: int, speakers: Speakers) -> Role | Fault:
    for role, more in (("user", speakers.user), ("assistant", speakers.assistant), ("system", speakers.system)):
        if name in more:
            return role  # type: ignore[return-value]
    plain = name.strip().lower()
    if plain in TOOLS:
        return Fault("tools", f"turn {number} ({plain}) is of a tool")
    if plain not in ROLES:
        what = f"turn {number}: the speaker {preview(name, 40)!r} is not known"
        return Fault("speakers", f"{what}; name it in seeds.speakers.user, .assistant or .system")
    return ROLES[plain]


def _text(content: Any, number: int) -> str | Fault:
    """A content, which may be a list of typed parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return Fault("empty_field" if not content else "wrong_type", f"turn {number} holds no text")
    parts = []
    for part in content:
        part = {"type": "text", "text": part} if isinstance(part, str) else part
        if not isinstance(part, dict):
            return Fault("wrong_type", f"turn {number}: a part that is neither text nor typed")
        kind = part.get("type", "text")
        if kind in ("tool_call", "tool_use", "tool_result", "tools"):
            return Fault("tools", f"turn {number} has a part of type {kind}")
        text = part.get("text", part.get("value"))
        if kind != "text" or not isinstance(text, str):
            return Fault("not_text", preview(f"turn {number} has a part of type {kind}"))
        parts.append(text)
    return "\n".join(parts)


def _is_taught(item: dict[str, Any]) -> bool:
    weights = (item.get("loss_weight"), item.get("weight"), item.get("train"))
    return not any(weight == 0 for weight in weights if weight is not None)


def _of_tagged(text: str, number: int, speakers: Speakers) -> list[Turn] | Fault:
    tag = TAG.match(text)
    if tag is None:
        return Fault("speakers", f"turn {number} is a text that does not begin with its speaker in brackets")
    role = _role(tag[1], number, speakers)
    return role if isinstance(role, Fault) else [Turn(role, text[tag.end() :])]


def _of_text(text: str) -> list[Turn] | Fault:
    """The turns in one text, by the marks with which it begins; a mark further inside that is not of the same form is
    text."""
    if "[INST]" in text[:40]:
        turns = []
        for request, reply in LLAMA.findall(text):
            if system := LLAMA_SYSTEM.match(request):
                turns.append(Turn("system", system[1].strip()))
                request = request[system.end() :]
            turns += [Turn("user", request.strip()), Turn("assistant", reply.strip().removesuffix("</s>").strip())]
        return turns
    for opening, end in MARKS:
        first = opening.match(text.lstrip())
        if first is None:
            continue
        pieces = opening.split(text.lstrip())[1:]
        roles = [ROLES[name.lower()] for name in pieces[::2]]
        contents = [piece.strip().removesuffix(end).strip() for piece in pieces[1::2]]
        return [Turn(role, content) for role, content in zip(roles, contents, strict=True)]
    return Fault("missing_field", "a text without the marks of turns, such as <s>Human: ... </s><s>Assistant: ...")
