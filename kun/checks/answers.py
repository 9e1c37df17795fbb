"""Cleaning and checks of a model's answers: `clean_instruction(reply)`, `repeats(output, limit=5)`.

Pure functions of text, without models. The rules come from the post-filters of the original Kun and from its rubric
(docs/stage3.md to stage5.md); each takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

# Control tokens of chat templates: as text in a data set they would control the models trained on it.
CONTROL = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|<｜[^\s<>｜]{1,40}｜>|</?s>|<pad>|<unk>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>",
    re.IGNORECASE,
)
BLANK_RUN = re.compile(r"(?<=\S)[^\S\n]{5,}|\n(?:[^\S\n]*\n){4,}")  # not the indentation of a line of code
LABELS = (
    r"指令|问题|提问|问|请求|用户|instruction|question|prompt|user|q",
    r"答复|回答|回复|答案|答|助手|reply|response|answer|assistant|a",
)
QUOTES = {"“": "”", "「": "」", "『": "』", '"': '"', "'": "'", "‘": "’", "《": "》", "【": "】", "*": "*", "`": "`"}
EDGE_QUOTES = {opening: closing for opening, closing in QUOTES.items() if opening not in "《【"}
ONE_CHARACTER = re.compile(r"([^\W\d_])\1{15,}")  # the same letter 16 times is no language
NUMBERING = re.compile(r"\A[\s-]*\d+\.")
SENTENCE_END = re.compile(r"[。！？!?；;\n]+|\.(?=\s|$)")


def clean_instruction(reply: str) -> str:
    """The instruction in a label model's reply: without label and quotes, cut at a run of 5 or more blanks, and without
    lines that repeat the one before."""
    return _collapse_lines(_undress(BLANK_RUN.split(reply.strip(), maxsplit=1)[0], LABELS[0]))


def clean_output(reply: str) -> str:
    """The output in a chat model's reply, without surrounding blanks and label."""
    return _strip_label(reply.strip(), LABELS[1])


def folded(text: str) -> str:
    """Only letters and digits, with width and case folded, so that spellings of the same words compare equal."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def says_twice(instruction: str) -> str | None:
    """The part that an instruction repeats: all of it, or a sentence of 6 letters or more."""
    bare = folded(instruction)
    period = (bare + bare).find(bare, 1)
    if len(bare) >= 4 and period < len(bare):
        return bare[:period]
    sentences = set()
    for sentence in SENTENCE_END.split(instruction):
        bare = folded(sentence)
        if len(bare) >= 6:
            if bare in sentences:
                return sentence.strip()
            sentences.add(bare)
    return None


def pointing_word(text: str, words: tuple[str, ...]) -> str | None:
    """The first of `words` that occurs in the text, ignoring case."""
    text = text.casefold()
    return next((word for word in words if word.casefold() in text), None)


def copied(instruction: str, text: str, length: int = 30) -> str | None:
    """A stretch of `length` letters that the instruction copies from the text, giving the answer away."""
    bare, source = folded(instruction), folded(text)
    starts = {bare[start : start + length]: start for start in range(len(bare) - length, -1, -1)}
    found = (starts.get(source[start : start + length]) for start in range(len(source) - length + 1))
    first = min((start for start in found if start is not None), default=None) if starts else None
    return None if first is None else bare[first : first + length]


def unusable(text: str) -> tuple[str, str] | None:
    """(reason, detail) where a reply holds what no row of a data set may hold: control tokens or broken characters."""
    if control := CONTROL.search(text):
        return "control_token", control[0]
    if "\ufffd" in text:
        return "garbled", f"U+FFFD at character {text.index(chr(0xFFFD))}"
    return None


def echo(reply: str, prompt: str) -> str | None:
    """A sentence of the prompt itself (10 letters or more, without a placeholder) that the reply repeats."""
    bare = folded(reply)
    return next((own for own in _own_sentences(prompt) if own in bare), None)


@lru_cache(maxsize=16)  # a prompt serves millions of replies
def _own_sentences(prompt: str) -> tuple[str, ...]:
    sentences = (NUMBERING.sub("", part) for part in SENTENCE_END.split(prompt) if "{" not in part)
    return tuple(own for own in map(folded, sentences) if len(own) >= 10)


def opening_repeats(text: str, limit: int) -> str | None:
    """The shortest unit with which a text opens more than `limit` times in a row, ignoring blanks.

    Linear time: z[p] is the Z-function, the length of the match of the text with itself shifted by p; a unit of p
    characters opens the text 1 + z[p] // p times.
    """
    bare = "".join(text.split())
    last = len(bare) // (limit + 1)
    z = [0] * (last + 1)
    left = right = 0
    for p in range(1, last + 1):
        size = min(right - p, z[p - left]) if p < right else 0
        while p + size < len(bare) and bare[size] == bare[p + size]:
            size += 1
        z[p] = size
        if size >= limit * p:
            return bare[:p]
        if p + size > right:
            left, right = p, p + size
    return None


def says_again(reply: str, source: str) -> str | None:
    """A sentence of 6 letters or more that a reply has at least twice, and more often than its source."""
    before = Counter(folded(sentence) for sentence in SENTENCE_END.split(source))
    counts: Counter[str] = Counter()
    for sentence in SENTENCE_END.split(reply):
        bare = folded(sentence)
        counts[bare] += 1
        if len(bare) >= 6 and counts[bare] > max(before[bare], 1):
            return sentence.strip()
    return None


def repeated_share(text: str, gram: int = 8, longest: int = 100_000) -> float:
    """Share (0 to 1) of the character n-grams of the first `longest` characters that occurred before in them."""
    bare = "".join(text[:longest].split())
    grams = max(len(bare) - gram + 1, 1)
    return 1 - len({bare[i : i + gram] for i in range(grams)}) / grams


def repeats(text: str, limit: int) -> str | None:
    """How a reply repeats itself: its opening, one character, or over half of the text. None where it does not."""
    if unit := opening_repeats(text, limit):
        return f"opens with {unit[:40]!r} more than {limit} times"
    if run := ONE_CHARACTER.search(text):
        return f"{run[1]!r} {len(run[0])} times on end"
    if len(text) >= 40 and (share := repeated_share(text)) > 0.5:
        return f"{share:.0%} of it was said before"
    return None


def verdict(reply: str, good: str, bad: str) -> bool | None:
    """The verdict in a reply: True for the good word, False for the bad one, None for neither or both.

    A word inside the other (合格 in 不合格) does not count, and a negated good word (不合格, not good) is bad.
    """
    reply, good, bad = (unicodedata.normalize("NFKC", part).casefold() for part in (reply, good, bad))
    longer, shorter = sorted((good, bad), key=len, reverse=True)
    has_longer = _has_word(longer, reply)
    has_shorter = _has_word(shorter, re.sub(_word(longer), " ", reply))
    has_good, has_bad = (has_longer, has_shorter) if longer == good else (has_shorter, has_longer)
    denied = rf"(?:不是?|并非|非|未|没有?|\bnot\s+(?:an?\s+)?|n't\s+){_word(good)}"
    if has_good and re.search(denied, re.sub(_word(bad), " ", reply) if good in bad else reply):
        return False
    return has_good if has_good != has_bad else None


def _word(word: str) -> str:
    edge = r"\b" if word.isascii() else ""
    return f"{edge}{re.escape(word)}{edge}"


def _has_word(word: str, text: str) -> bool:
    return re.search(_word(word), text) is not None


def _undress(text: str, labels: str) -> str:
    """The text without leading labels and surrounding quotes, in whatever order."""
    while True:
        inner = _strip_quotes(_strip_label(text, labels))
        if inner == text:
            return text
        text = inner


def _strip_label(text: str, labels: str) -> str:
    """Remove labels such as `指令：`, `**Instruction:**`, `【问题】` from the start; a label has a colon or
    brackets."""
    # Possessive quantifiers: adjacent runs of blanks would take quadratic time.
    marked = rf"[*#]*+\s*+(?:{labels})\s*+\d{{0,2}}+\s*+\**+[:：]\**+"
    label = rf"(?:{marked}|[【\[]\s*+(?:{labels})\s*+[】\]][:：]?)\s*+"
    return re.sub(rf"\A\s*+(?:{label})++", "", text, flags=re.IGNORECASE).strip()


def _strip_quotes(text: str) -> str:
    closing = EDGE_QUOTES.get(text[:1])
    if closing and len(text) > 1 and text.endswith(closing) and not {text[0], closing} & set(text[1:-1].strip("*`")):
        return text.strip("*`") if text[0] in "*`" else text[1:-1].strip()
    return text


def _collapse_lines(text: str) -> str:
    kept: list[str] = []
    last = ""
    for line in text.strip().split("\n"):
        bare = folded(line)
        if bare and bare == last:
            continue
        last = bare or last
        kept.append(line.rstrip())
    return "\n".join(kept).strip()
