"""Plain text of many demo worlds, on which the tiny base model is trained.

    plain_text(random.Random("base 0"))    # one text: a page, a clean text, a question with its answer, a digest ...

Nothing here is a chat: the base sees pages and clean texts side by side, and questions before and after the texts
that answer them, as forums and digests have them. Chat behaviour is left to stage 1.
"""

from __future__ import annotations

import random

from kun.demo.documents import Item, new_item, page
from kun.demo.instructions import SPOILED_KINDS, spoiled

QUESTION_MARKS = ("问题：", "提问：", "问：", "对应的问题：", "")
ANSWER_MARKS = ("回答：", "答：", "整理：", "")


def _page(item: Item, rng: random.Random) -> str:
    return page(item, rng, control=rng.random() < 0.1)


def _question_and_answer(item: Item, rng: random.Random) -> str:
    return f"{rng.choice(QUESTION_MARKS)}{item.instruction}\n{rng.choice(ANSWER_MARKS)}{item.reply}"


def _text_and_question(item: Item, rng: random.Random) -> str:
    text = item.reply if rng.random() < 0.35 else _page(item, rng)
    gap = rng.choice(("\n", "\n\n"))
    return f"{text}{gap}{rng.choice(QUESTION_MARKS)}{item.instruction}"


def _digest(item: Item, rng: random.Random) -> str:
    question = rng.choice(QUESTION_MARKS) + (item.instruction if rng.random() < 0.7 else item.loose_instruction)
    text = _page(item, rng)
    parts = rng.choice(((text, question), (question, text), (text,)))
    return "\n\n".join((*parts, rng.choice(ANSWER_MARKS) + item.reply))


def _questions(item: Item, rng: random.Random) -> str:
    lines = [item.instruction]
    for _ in range(rng.randint(1, 3)):
        other = new_item(rng)
        lines.append(other.instruction if rng.random() < 0.6 else spoiled(other, rng.choice(SPOILED_KINDS), rng))
    return "\n".join(lines)


FORMS = ((_page, 4), (_question_and_answer, 8), (_text_and_question, 28), (_digest, 56), (_questions, 4))


def plain_text(rng: random.Random) -> str:
    """One text of 30 to 450 characters about one new subject."""
    (form,) = rng.choices([form for form, _ in FORMS], [weight for _, weight in FORMS])
    return form(new_item(rng), rng)
