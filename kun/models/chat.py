"""Messages to token ids, the same for training and inference: `load_chat("models/yi-6b").prompt(messages)`.

Text never becomes control tokens. The chat template is rendered with marks in place of the contents; only what the
template itself writes may become control tokens, and `<|im_end|>` in a document stays ten characters of text. Contents
are not trimmed either, whatever the template does. A tokenizer without a template gets one of kun/models/turns.py; what
a base needs beyond that is measured by stage 1 (kun/models/needs.py) and saved with the models that it trains.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from kun.errors import InputError
from kun.models.folder import local_folder
from kun.models.tokenizer import ROLES, TokenizerFiles, puts_blanks, read_tokenizer, text_tokenizer
from kun.models.turns import SPARE, Way, ways

Role = Literal["system", "user", "assistant"]

PAD = "<|pad|>"
EXCHANGE: tuple[Role, ...] = ("user", "assistant")
TEMPLATE_DAY = datetime.date(2024, 7, 26)  # the default date of Llama's own templates
CONTROL_SHAPE = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>|<(?:start|end)_of_turn>")
BOS_FIRST = re.compile(r"\A\s*\{\{-?\s*bos_token\s*-?\}\}")
MARK = "\ue000{}\ue001"  # stands for a content in the rendered template; contents are never rendered
MARKS = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, eq=False)
class Chat:
    """A tokenizer with its chat template.

    `new_rows`: control tokens that the base model does not know, each with the token of the same meaning whose row
    its own starts from, if there is one.
    """

    files: TokenizerFiles
    end_id: int
    pad_id: int
    new_rows: Mapping[int, int | None]
    _skeletons: dict[tuple[Role, ...], list[int | str]] = field(default_factory=dict, repr=False, compare=False)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to and including the generation prompt. InputError where the template refuses the roles."""
        roles = tuple(message.role for message in messages)
        if roles not in self._skeletons:
            self._skeletons[roles] = _skeleton(self.files, roles)
        contents = [message.content for message in messages]
        ids: list[int] = []
        for part in self._skeletons[roles]:
            if isinstance(part, int):
                ids.append(part)
            else:
                text = MARKS.sub(lambda mark: contents[int(mark[1])], part)
                ids.extend(self._section(text))
        return ids

    def completion(self, text: str) -> list[int]:
        """Token ids of a reply: the text, then exactly one end token."""
        return [*self.encode(text), self.end_id]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without control tokens."""
        return self._encode(text, self._inner)

    def count(self, text: str) -> int:
        """Length of a text in tokens."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens left out."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    @property
    def new_ids(self) -> tuple[int, ...]:
        """Control tokens that the base model does not know."""
        return tuple(sorted(self.new_rows))

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that stop generation: the end of a turn, and the tokenizer's own end of text."""
        eos = self.files.special("eos_token")
        return tuple(dict.fromkeys((self.end_id, self.files.id(eos) if eos else self.end_id)))

    def unknown(self, rows: int) -> tuple[int, ...]:
        """Tokens that a base with so many embedding rows does not know: `new_ids`, and those beyond its rows that text
        or the template can have. Other control tokens, such as for images, never reach the model."""
        beyond = {number for number in self.files.raw.get_vocab(with_added_tokens=True).values() if number >= rows}
        said = {self.end_id, self.pad_id}
        for roles in (EXCHANGE, ("system", *EXCHANGE)) if beyond else ():
            with contextlib.suppress(InputError):
                said.update(part for part in _skeleton(self.files, roles) if isinstance(part, int))
        return tuple(sorted({*self.new_ids, *(beyond - (self._forbidden - said))}))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that determines token ids: tokenizer, template, end and padding token."""
        spec = json.loads(self.files.raw.to_str())
        parts = [spec[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model", "decoder")]
        text = json.dumps([*parts, self.files.template, self.end_ids, self.pad_id], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write tokenizer and template into a model folder, as completed here."""
        self.files.save(folder)

    @cached_property
    def _inner(self) -> Any:
        return text_tokenizer(self.files.raw, sections=False)

    @cached_property
    def _sections(self) -> Any:
        return text_tokenizer(self.files.raw, sections=True) if puts_blanks(self.files.raw) else self._inner

    @cached_property
    def _section(self) -> Callable[[str], tuple[int, ...]]:
        """Token ids of text between two control tokens; cached, since a rubric is the same for every record."""
        return lru_cache(maxsize=64)(lambda text: tuple(self._encode(text, self._sections)))

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        tokens = set(self.files.added()) | {self.end_id, self.pad_id}
        unknown = self.files.special("unk_token")  # for characters outside the vocabulary: text, not a control token
        return frozenset(tokens - {self.files.id(unknown) if unknown else -1})

    def _encode(self, text: str, tokenizer: Any) -> list[int]:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        if self._forbidden.isdisjoint(encoding.ids):
            return list(encoding.ids)
        cuts = [0]
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if (
                token in self._forbidden and end - start > 1
            ):  # a plain entry of the vocabulary: cut its string in the middle
                cuts.append((start + end) // 2)
        if len(cuts) == 1:
            return [token for token in encoding.ids if token not in self._forbidden]
        first, *others = (text[start:end] for start, end in pairwise([*cuts, len(text)]))
        return self._encode(first, tokenizer) + [token for part in others for token in self._encode(part, self._inner)]


def load_chat(folder: str | Path, trust_remote_code: bool = False) -> Chat:
    """The chat of a model folder (base, adapter or merged), without torch. InputError where it has no tokenizer."""
    return chats_of(read_tokenizer(local_folder(folder), trust_remote_code))[0][1]


def chats_of(files: TokenizerFiles, bos: bool | None = None) -> list[tuple[str, Chat]]:
    """The chats that a tokenizer allows, each with the name of its way of writing turns (of kun/models/turns.py); the
    only one, without a name, where it has a template.

    `bos`: whether prompts begin with BOS; None: as the template has it, or, without one, as the tokenizer puts it.
    """
    token = files.special("bos_token")
    if files.template is None:
        adds = token is not None and files.raw.encode("a").ids[:1] == [files.id(token)]
        return [(way[0], _of_way(files, way, adds if bos is None else bos)) for way in ways(files)]
    if bos is not None:
        template = BOS_FIRST.sub("", files.template)
        files = files.with_config(("{{ bos_token }}" if bos else "") + template)
    return [("", _completed(files, ()))]


def _of_way(files: TokenizerFiles, way: Way, bos: bool) -> Chat:
    _, template, tokens = way
    new = [token for token in tokens if files.raw.token_to_id(token) is None]
    return _completed(files.with_control_tokens(tokens).with_config(("{{ bos_token }}" if bos else "") + template), new)


def _completed(files: TokenizerFiles, new: Sequence[str]) -> Chat:
    """The chat of a tokenizer with a template: with the tokens that it lacks, an end and a padding token."""
    eos, bos = files.special("eos_token"), files.special("bos_token")
    end, after = _end(files)
    if CONTROL_SHAPE.match(after):  # an instruct template whose tokens the base model lacks
        text = "".join(part for part in _skeleton(files, EXCHANGE, reply=False) if isinstance(part, str))
        new = tuple(dict.fromkeys(CONTROL_SHAPE.findall(text)))
        files = files.with_control_tokens(new)
        end, _ = _end(files)
    if end is None and eos is None:
        raise InputError(
            f"base_model: the tokenizer in {files.folder} has neither an end token in its template nor an EOS; "
            "name its eos_token in tokenizer_config.json"
        )
    end_id = files.id(eos or "") if end is None else end
    own_end = files.id(eos) if eos else None
    if eos is None:
        files = files.with_config(eos_token=files.raw.id_to_token(end_id))
    padded, pad = _with_padding(files, end_id)
    begin = files.id(bos) if bos else own_end
    rows = {padded.id(token): begin for token in new}
    if end_id in rows:
        rows[end_id] = own_end
    if files.raw.token_to_id(pad) is None:
        rows[padded.id(pad)] = None
    return Chat(padded, end_id, padded.id(pad), rows)


def _end(files: TokenizerFiles) -> tuple[int | None, str]:
    """The control token that the template writes after a reply, and the text before that token."""
    parts = _skeleton(files, EXCHANGE, reply=False)
    mark = MARK.format(len(EXCHANGE) - 1)
    place = next(number for number, part in enumerate(parts) if isinstance(part, str) and mark in part)
    end = next((part for part in parts[place:] if isinstance(part, int)), None)
    return end, str(parts[place]).split(mark)[1].strip()


def _with_padding(files: TokenizerFiles, end_id: int) -> tuple[TokenizerFiles, str]:
    """A padding token other than the end token, or a model would never learn to stop."""
    own, unknown, eos, bos = (files.special(role) for role in ("pad_token", "unk_token", "eos_token", "bos_token"))
    names = [token.content for token in files.added().values()]
    spare = [name for name in names if SPARE.search(name)]
    # BOS, which no reply has either, saves a base that has nothing else a new row.
    candidates = [own, *(name for name in names if "pad" in name.lower()), unknown, *spare, eos, bos]
    token = next((name for name in candidates if name and files.id(name) != end_id), None)
    if token is None:
        token = PAD
        files = files.with_control_tokens([PAD])
    if token != own:
        files = files.with_config(pad_token=token)
    return files, token


def _skeleton(files: TokenizerFiles, roles: tuple[Role, ...], reply: bool = True) -> list[int | str]:
    """The rendered template for these roles: control tokens as ids, text with marks in place of the contents."""
    marks = [MARK.format(number) for number in range(len(roles))]
    attempts = [[{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]]
    if roles[:2] == ("system", "user"):  # without a system role, its text opens the user's turn
        attempts.append([{"role": "user", "content": f"{marks[0]}\n\n{marks[1]}"}, *attempts[0][2:]])
    problem = "it leaves out a message"
    for messages in attempts:
        try:
            text = _render(files, messages, reply)
        except Exception as error:  # a template may raise anything
            problem = str(error)
            continue
        if MARKS.findall(text) == [str(number) for number in range(len(roles))]:
            return _split(files, text)
    raise InputError(f"base_model: the chat template in {files.folder} refuses {' + '.join(roles)}: {problem}")


def _render(files: TokenizerFiles, messages: list[dict[str, str]], reply: bool) -> str:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    # The marks of TRL and transformers around assistant text are not needed here.
    source = re.sub(r"(\{%-?\s*)generation(\s*-?%\})", r"\1if true\2", files.template or "")
    source = re.sub(r"(\{%-?\s*)endgeneration(\s*-?%\})", r"\1endif\2", source)
    special = {role: files.special(role) or "" for role in ROLES}
    return environment.from_string(source).render(
        messages=messages,
        add_generation_prompt=reply,
        enable_thinking=False,
        raise_exception=refuse,
        strftime_now=lambda form: TEMPLATE_DAY.strftime(form),  # a prompt must not change with the day
        **special,
    )


def _split(files: TokenizerFiles, text: str) -> list[int | str]:
    """Split rendered text into ids of control tokens and the strings between them."""
    tokens = sorted(files.added().values(), key=lambda token: -len(token.content))
    if not tokens:
        return [text]
    blank = r"\s*"  # some tokens absorb adjacent white space
    forms = (
        (blank if token.lstrip else "") + "(" + re.escape(token.content) + ")" + (blank if token.rstrip else "")
        for token in tokens
    )
    parts: list[int | str] = []
    position = 0
    for match in re.finditer("|".join(forms), text):
        parts.append(text[position : match.start()])
        parts.append(files.id(next(group for group in match.groups() if group)))
        position = match.end()
    parts.append(text[position:])
    return [part for part in parts if part != ""]
