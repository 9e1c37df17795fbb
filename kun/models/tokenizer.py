"""The tokenizer files of a model folder, read without torch: `read_tokenizer(Path("models/yi-6b"))`.

The `tokenizers` library reads `tokenizer.json` itself: that is quick, the same in every process, and independent of the
tokenizer classes of a transformers release. Only folders without that file need transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from kun.errors import InputError
from kun.models.folder import warn_of_code

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.model")
FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


@dataclass(frozen=True)
class TokenizerFiles:
    """The tokenizer of a folder. `changed` is True once it differs from the files it was read from."""

    folder: Path
    raw: Tokenizer
    config: dict[str, Any]
    template: str | None
    changed: bool = False

    def id(self, token: str) -> int:
        """The id of a token. KeyError where the vocabulary does not have it."""
        number = self.raw.token_to_id(token)
        if number is None:
            raise KeyError(token)
        return int(number)

    def special(self, role: str) -> str | None:
        """The token of a role such as `eos_token`, if it is set and in the vocabulary."""
        value = self.config.get(role)
        content = value.get("content") if isinstance(value, dict) else value
        return content if isinstance(content, str) and self.raw.token_to_id(content) is not None else None

    def added(self) -> dict[int, AddedToken]:
        """The added tokens that are not mere white space, by id: control tokens and the like."""
        return {number: token for number, token in self._decoder().items() if not is_blank(token.content)}

    def _decoder(self) -> dict[int, AddedToken]:
        return dict(self.raw.get_added_tokens_decoder())

    def with_control_tokens(self, contents: Collection[str]) -> TokenizerFiles:
        """A copy with these special tokens; those that the vocabulary has keep their ids."""
        added = self.added().values()
        if set(contents) <= {token.content for token in added if token.special}:
            return self
        raw = Tokenizer.from_str(self.raw.to_str())
        raw.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in contents])
        return replace(self, raw=raw, changed=True)

    def with_config(self, template: str | None = None, **values: Any) -> TokenizerFiles:
        """A copy with these keys in `tokenizer_config.json`, and another template if one is given."""
        return replace(self, config={**self.config, **values}, template=template or self.template, changed=True)

    def save(self, folder: Path) -> None:
        """Write the tokenizer into `folder`, as AutoTokenizer and vLLM read it; unchanged files are copied."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.changed:
            for name in FILES:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, folder / name)
            return
        config = {key: value for key, value in self.config.items() if key not in ("chat_template", "auto_map")}
        config["added_tokens_decoder"] = {
            str(number): {flag: getattr(token, flag) for flag in FLAGS} for number, token in self._decoder().items()
        }
        self.raw.save(str(folder / "tokenizer.json"))
        text = json.dumps(config, ensure_ascii=False, indent=2)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(self.template or "", encoding="utf-8")


def read_tokenizer(folder: Path, trust_remote_code: bool = False) -> TokenizerFiles:
    """The tokenizer of a model folder. InputError where it is missing or cannot be read."""
    if not (folder / "tokenizer.json").is_file():
        return _convert(folder, trust_remote_code)
    try:
        raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = {**_json(folder / "special_tokens_map.json"), **_json(folder / "tokenizer_config.json")}
    except Exception as error:  # tokenizers raises bare Exceptions
        raise InputError(f"base_model: the tokenizer in {folder} cannot be read: {error}") from None
    raw.no_padding()
    raw.no_truncation()
    return TokenizerFiles(folder, raw, config, _template(folder, config))


def _convert(folder: Path, trust_remote_code: bool) -> TokenizerFiles:
    """The tokenizer of an older folder (`tokenizer.model` only), converted by transformers."""
    if not any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.model", "vocab.json")):
        raise InputError(f"base_model: {folder} is not a model folder: it has no tokenizer.json")
    from transformers import AutoTokenizer

    if trust_remote_code:
        warn_of_code(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        raw = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:
        raise InputError(f"base_model: the tokenizer in {folder} cannot be read: {error}") from None
    raw.no_padding()
    raw.no_truncation()
    config = {**_json(folder / "tokenizer_config.json"), "tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {role: str(getattr(tokenizer, role)) for role in ROLES if getattr(tokenizer, role, None)}
    return TokenizerFiles(folder, raw, config, _template(folder, config), changed=True)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((item["template"] for item in template if item.get("name") == "default"), None)
    return template if isinstance(template, str) and template.strip() else None


def is_blank(token: str) -> bool:
    """Whether an added token is mere white space, which is text like any other."""
    return not token.replace("▁", " ").strip()


def puts_blanks(raw: Tokenizer) -> bool:
    """Whether the tokenizer adds a blank before sections other than the first, so that `sections` matters."""
    states = [json.loads(part.__getstate__()) for part in (raw.normalizer, raw.pre_tokenizer) if part is not None]
    return any(_without_prefix(state) != state for state in states)


@lru_cache(maxsize=2)  # it takes seconds for a vocabulary of 262,144; chats of several templates share it
def text_tokenizer(raw: Tokenizer, sections: bool) -> Tokenizer:
    """A copy of `raw` that treats all text as text: it matches no added tokens except white space.

    With `sections` it keeps the blank that SentencePiece-style tokenizers add before a section between control tokens;
    without, it adds nothing, as is right for a continuation, and decoding strips nothing.
    """
    spec = json.loads(raw.to_str())
    for token in spec["added_tokens"]:
        token["special"] = not is_blank(token["content"])
    spec["pre_tokenizer"] = _without_prefix(spec["pre_tokenizer"], keep=("always",) if sections else ())
    if not sections:
        spec["normalizer"] = _without_prefix(spec["normalizer"])
        spec["decoder"] = _without_prefix(spec["decoder"])
    copy = Tokenizer.from_str(json.dumps(spec))
    copy.encode_special_tokens = True
    return copy


def _without_prefix(part: dict[str, Any] | None, keep: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """A normalizer, pre-tokenizer or decoder that neither adds nor strips a leading blank."""
    if part is None or part["type"] == "Prepend" or (part["type"] == "Strip" and part.get("content") == " "):
        return None
    if part["type"] == "Metaspace" and part.get("prepend_scheme") not in keep:
        return {**part, "prepend_scheme": "never"}
    if part["type"] == "ByteLevel" and "add_prefix_space" in part:
        return {**part, "add_prefix_space": False}
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in part:
            kept = [item for item in (_without_prefix(item, keep) for item in part[key]) if item is not None]
            return {**part, key: kept} if kept else None
    return part
