"""Spoiled copies of good instructions, without labels: `spoil("cut", instruction, output, random.Random(key))`.

They train a judge where there are only pairs (`seeds.judge: auto`), and show whether one tells good from bad (stage 4).
A copy is None where its kind cannot be made of this instruction so that it is worse than the instruction for certain.

doubled: asks twice, or names an item twice · cut: stops within a sentence · vague: without its subject · shuffled: in
another order · pointing: at something that is not there · statement: says a sentence of the output, and asks nothing.
"""

from __future__ import annotations

import random
import re
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal, get_args

from kun.checks.answers import folded, says_twice
from kun.checks.asking import asks, named_twice
from kun.text.language import script
from kun.text.normal import split_sentences

Spoiling = Literal["doubled", "cut", "vague", "shuffled", "pointing", "statement"]
SPOILINGS: tuple[Spoiling, ...] = get_args(Spoiling)

LONGEST = 300  # characters: a longer instruction carries material, of which a part may be cut or pointed at unharmed
HAN = re.compile(r"[\u3400-\u9fff]")
END = "。？！?!.… \n"
# What a Chinese sentence cannot end in, and what an English one does not.
OPEN = set("的和与與及把将將被让讓从從或、跟向请請什甚怎其而且并並于於")
OPEN_WORDS = frozenset({"a", "an", "the", "of", "to", "in", "on", "for", "with", "and", "or", "from", "by", "as", "is"})
EMPTY = set("的了是在和一不有我你他它这那什么怎样如何请给出说写为与及个中上下介绍明哪里谁吗呢，、。？！")
ENGLISH_EMPTY = frozenset({"about", "what", "which", "describe", "explain", "write", "list", "give", "that", "with"})
VAGUE = {
    "zh": ("它", "那个", "这个东西", "某个", "上次说的那个"),
    "en": ("it", "that thing", "something", "the other one"),
}
VAGUE_ASKED = {
    "zh": ("说说那个东西。", "它怎么样？", "这个怎么弄？", "帮我写一下那个，你知道的。", "随便讲讲吧。"),
    "en": ("Tell me about that thing.", "What about it?", "Do the other one, please.", "Just write something."),
}
POINTING = {
    "zh": (
        "根据上文，{}",
        "阅读上面的材料，{}",
        "看图回答：{}",
        "结合这个链接里的内容，{}",
        "{}以附件中的表格为准。",
        "上面这段文字主要讲了什么？",
        "文中的作者想说明什么？",
        "第二段里的数字是怎么来的？",
    ),
    "en": (
        "According to the passage above, {}",
        "Look at the picture and answer: {}",
        "Using the linked page, {}",
        "{} Use the attached file.",
        "What is the main idea of the text above?",
        "What does the author mean in the second paragraph?",
    ),
}
POINTING_AT = {  # a subject
    "zh": (
        "文中是怎样介绍{}的？",
        "请看图片，说说里面的{}是什么样子。",
        "请按附件里的要求写一写{}。",
        "上文提到的{}为什么会这样？",
        "打开这个链接，再讲讲{}。",
    ),
    "en": (
        "What does the text above say about {}?",
        "Look at the picture and describe {}.",
        "Write about {} as the attached file asks.",
        "Why was {} mentioned in the last paragraph?",
    ),
}
POINTS = re.compile(
    r"[以上下][文面述下图]|[文图表]中|文[章本]|材料|图片|表格|链接|附件|段落|这[段篇]|看图|第.段|[:：\n]"
    r"|text|passage|linked|attached|paragraph|above|below|following|\bthis\b|picture"
)


def spoil(kind: Spoiling, instruction: str, output: str, rng: random.Random) -> str | None:
    """A copy of the instruction, spoiled in the way that `kind` says. Equal draws give equal copies."""
    if len(instruction) > LONGEST:
        return None
    match kind:
        case "doubled":
            copy = _doubled(instruction, rng)
        case "cut":
            copy = _cut(instruction, rng)
        case "vague":
            copy = _vague(instruction, output, rng)
        case "shuffled":
            copy = _shuffled(instruction, rng)
        case "pointing":
            copy = _pointing(instruction, output, rng)
        case "statement":
            copy = _statement(instruction, output, rng)
    return None if copy is None or folded(copy) == folded(instruction) else copy


def _doubled(instruction: str, rng: random.Random) -> str | None:
    if (again := _item_again(instruction)) is not None and rng.random() < 0.5:
        return again
    copy = rng.choice((f"{instruction}\n{instruction}", f"{instruction} {instruction}", instruction * 2))
    return copy if says_twice(copy) else None


def _item_again(instruction: str) -> str | None:
    """With the last item of a list replaced by the one before it."""
    lists = list(
        re.finditer(
            r"、([^、，。？！；：\n]{2,12})(以及|[和与與及])([^、，。？！；：\n]{2,12})(?=[。？！\n]|\Z)", instruction
        )
    )
    if not lists:
        return None
    last = lists[-1]
    copy = f"{instruction[: last.start(3)]}{last[1]}{instruction[last.end(3) :]}"
    return copy if named_twice(copy) else None


def _cut(instruction: str, rng: random.Random) -> str | None:
    if _is_chinese(instruction):
        places = [
            n
            for n in range(max(3, len(instruction) // 4), len(instruction) - 2)
            if instruction[n - 1] in OPEN
            and instruction[n] not in END + "，、"
            and not set(instruction[n - 4 : n]) & set(END)  # more than the first word of a sentence
        ]
        return instruction[: rng.choice(places)] if places else None
    words = instruction.split()
    if len(words) < 4:
        return None
    ends = range(max(2, len(words) // 3), len(words))
    open_ends = [n for n in ends if words[n - 1].lower() in OPEN_WORDS]
    if open_ends:
        return " ".join(words[: rng.choice(open_ends)])
    long = [n for n in ends if len(words[n - 1]) > 5 and words[n - 1].isalpha()]
    if not long:
        return None
    *whole, broken = words[: rng.choice(long)]
    return " ".join([*whole, broken[: len(broken) // 2]])


def _vague(instruction: str, output: str, rng: random.Random) -> str | None:
    language = _language(instruction)
    if language is None:
        return None
    subject = _subject(instruction, output) if len(instruction) <= (60 if language == "zh" else 120) else None
    if subject is None or rng.random() < 0.3:
        return rng.choice(VAGUE_ASKED[language])
    return instruction.replace(subject, rng.choice(VAGUE[language]))


def _subject(instruction: str, output: str) -> str | None:
    """The longest stretch that instruction and output share, with at least two words that mean something."""
    is_chinese = _is_chinese(instruction)
    one, two = (instruction, output[:2000]) if is_chinese else (instruction.split(), output[:2000].split())
    match = SequenceMatcher(None, one, two, autojunk=False).find_longest_match()
    shared = one[match.a : match.a + match.size]
    if is_chinese:
        return str(shared).strip(END + "，、") if sum(c.isalnum() and c not in EMPTY for c in shared) > 1 else None
    meaning = [word for word in shared if len(word) > 3 and word.lower() not in ENGLISH_EMPTY]
    return " ".join(shared).strip(END + ",") if meaning else None


def _shuffled(instruction: str, rng: random.Random) -> str | None:
    """In pieces of two or three characters, or in words, of which few keep their neighbour."""
    body = instruction.rstrip(END)
    is_chinese = _is_chinese(instruction)
    pieces = re.findall(r"[A-Za-z0-9]+|.{2,3}?(?=.)|.", body, re.DOTALL) if is_chinese else body.split()
    if len(pieces) < 6 or "\n" in body:
        return None
    before = set(pairwise(pieces))
    for _ in range(20):
        mixed = rng.sample(pieces, len(pieces))
        if mixed[0] != pieces[0] and sum(pair in before for pair in pairwise(mixed)) * 4 <= len(pieces):
            return ("" if is_chinese else " ").join(mixed) + instruction[len(body) :]
    return None


def _pointing(instruction: str, output: str, rng: random.Random) -> str | None:
    language = _language(instruction)
    if language is None or POINTS.search(instruction.lower()):
        return None
    if rng.random() < 0.5 and (subject := _subject(instruction, output)) is not None:
        return rng.choice(POINTING_AT[language]).format(subject)
    return rng.choice(POINTING[language]).format(instruction)


def _statement(instruction: str, output: str, rng: random.Random) -> str | None:
    """A sentence of the output; half of them without their end, as headings are."""
    sentences = [sentence.strip() for sentence in split_sentences(output[:2000])]
    plain = [
        one for one in sentences if 6 <= len(one) <= 160 and one[0].isalnum() and one[-1] in "。.!！" and not asks(one)
    ]
    plain = [one for one in plain if folded(one) not in folded(instruction)]
    if not plain:
        return None
    sentence = rng.choice(plain[:5])
    return sentence.rstrip(END) if rng.random() < 0.5 else sentence


def _is_chinese(text: str) -> bool:
    return len(HAN.findall(text)) * 3 > len(text)


def _language(text: str) -> Literal["zh", "en"] | None:
    """The language of the phrases to spoil with: None where they would stand out, as in traditional characters."""
    if _is_chinese(text):
        return None if script(text) == "traditional" else "zh"
    return "en" if text.isascii() else None
