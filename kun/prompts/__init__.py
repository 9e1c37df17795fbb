"""The prompts of stages 3 to 5, as data: `load_prompts("zh").polish.messages(text=..., instruction=...)`.

A prompt set is a folder with label.yaml, score.yaml and polish.yaml. Their keys are `user` and optionally `system`,
with the placeholders `{text}` and `{instruction}`. score.yaml has the verdict words `good` and `bad`; it may have
`examples` (a list of instruction and verdict: good or bad), which replace `{examples}`, each in the form of `example`;
and `pair`, the `user` prompt of the mode that also shows the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kun.config.files import read_yaml
from kun.errors import ConfigError
from kun.models.chat import Message

SHIPPED = {
    "zh": Path(__file__).parent / "zh",
    "en": Path(__file__).parent / "en",
    "demo": Path(__file__).parent.parent / "demo" / "prompts",
}
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
EXAMPLE = "{instruction}\n{verdict}\n"


@dataclass(frozen=True)
class Prompt:
    """A prompt; `digest` depends on its text, not on comments or the layout of its file."""

    system: str | None
    user: str
    examples: str
    digest: str

    def messages(self, **fields: str) -> list[Message]:
        """The filled prompt. Braces and placeholders within a field stay as they are."""
        fields["examples"] = self.examples
        system = [Message("system", fill(self.system, fields))] if self.system else []
        return [*system, Message("user", fill(self.user, fields))]


@dataclass(frozen=True)
class JudgePrompt:
    """The prompt of stage 4: for the instruction alone and, if the set has it, for instruction and text."""

    alone: Prompt
    pair: Prompt | None
    good: str
    bad: str
    digest: str

    def messages(self, instruction: str, text: str | None = None) -> list[Message]:
        """The question for a verdict on the instruction; with `text`, by the pair prompt."""
        if text is None:
            return self.alone.messages(instruction=instruction)
        if self.pair is None:
            raise ConfigError("score.method: pair needs a prompt set whose score.yaml has the key `pair`")
        return self.pair.messages(instruction=instruction, text=text)

    def word(self, is_good: bool) -> str:
        """The verdict as the model writes it: the completion in training, the choice in scoring."""
        return self.good if is_good else self.bad


@dataclass(frozen=True)
class PromptSet:
    label: Prompt
    score: JudgePrompt
    polish: Prompt


def load_prompts(name_or_folder: str) -> PromptSet:
    """The prompt set `zh`, `en`, `demo`, or that of a folder. ConfigError names the file and the wrong key."""
    folder = SHIPPED.get(name_or_folder, Path(name_or_folder))
    if not folder.is_dir():
        raise ConfigError(f"prompts: {name_or_folder} is neither {', '.join(SHIPPED)} nor a folder")
    return PromptSet(
        label=_plain(folder / "label.yaml", {"text"}),
        score=_judge(folder / "score.yaml"),
        polish=_plain(folder / "polish.yaml", {"text", "instruction"}),
    )


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with its placeholders replaced in one pass, so that fields are not searched for placeholders."""
    return PLACEHOLDER.sub(lambda match: fields[match[1]], template)


def _plain(path: Path, fields: set[str]) -> Prompt:
    data = _read(path, {"system", "user"})
    return _prompt(path, data, "user", fields)


def _judge(path: Path) -> JudgePrompt:
    data = _read(path, {"system", "user", "pair", "good", "bad", "example", "examples"})
    words = {"good": _text(path, data, "good"), "bad": _text(path, data, "bad")}
    if words["good"].casefold() == words["bad"].casefold():
        raise ConfigError(f"{path}: good and bad are the same word: {words['good']}")
    shown = _examples(path, data, words)
    alone = _prompt(path, data, "user", {"instruction"}, shown)
    pair = _prompt(path, data, "pair", {"instruction", "text"}, shown) if "pair" in data else None
    return JudgePrompt(alone, pair, words["good"], words["bad"], _digest([alone.digest, pair and pair.digest, words]))


def _prompt(path: Path, data: dict[str, Any], key: str, fields: set[str], examples: str | None = None) -> Prompt:
    """The prompt of `system` and `key`: all `fields` must occur in the latter, `examples` in either."""
    known = fields | ({"examples"} if examples is not None else set())
    parts = {name: _text(path, data, name) for name in ("system", key) if name in data or name == key}
    for name, template in parts.items():
        if unknown := set(PLACEHOLDER.findall(template)) - known:
            raise ConfigError(f"{path}: {name}: unknown placeholder {{{min(unknown)}}}")
    if missing := fields - set(PLACEHOLDER.findall(parts[key])):
        raise ConfigError(f"{path}: {key}: the placeholder {{{min(missing)}}} is missing")
    if examples is not None and not any("{examples}" in template for template in parts.values()):
        raise ConfigError(f"{path}: {key}: the placeholder {{examples}} is missing, here or in system")
    return Prompt(parts.get("system"), parts[key], examples or "", _digest([parts.get("system"), parts[key], examples]))


def _examples(path: Path, data: dict[str, Any], words: dict[str, str]) -> str | None:
    examples = data.get("examples")
    if examples is None:
        return None
    template = _text(path, data, "example") if "example" in data else EXAMPLE
    if set(PLACEHOLDER.findall(template)) != {"instruction", "verdict"}:
        raise ConfigError(f"{path}: example: needs the placeholders {{instruction}} and {{verdict}}, and no other")
    if not isinstance(examples, list) or not examples:
        raise ConfigError(f"{path}: examples: must be a list of instruction and verdict")
    shown = []
    for number, example in enumerate(examples, start=1):
        where = f"{path}: examples: number {number}"
        if not isinstance(example, dict) or set(example) != {"instruction", "verdict"}:
            raise ConfigError(f"{where}: needs the keys instruction and verdict, and no other")
        if example["verdict"] not in words or not isinstance(example["instruction"], str):
            raise ConfigError(f"{where}: instruction must be text, verdict good or bad")
        shown.append(fill(template, {"instruction": example["instruction"], "verdict": words[example["verdict"]]}))
    return "\n".join(shown).strip("\n")


def _text(path: Path, data: dict[str, Any], key: str) -> str:
    if key not in data:
        raise ConfigError(f"{path}: the key {key} is missing")
    value = data[key]
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{path}: {key}: must be text (put a word like yes or 1 in quotes)")
    return value.strip("\n")


def _read(path: Path, known: set[str]) -> dict[str, Any]:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping with the keys {', '.join(sorted(known))}")
    if unknown := {str(key) for key in data} - known:
        raise ConfigError(f"{path}: unknown key {min(unknown)}; known are {', '.join(sorted(known))}")
    return data


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
