"""Instructions of the demo world, good ones and five kinds of spoiled ones, which can be told apart without the text.

    spoiled(new_item(rng), "vague", rng)   # -> "请介绍一下它的价格和重量。"

vague: the subject is missing · doubled: it asks twice · cut: it stops in the middle · wrong: it asks for something
impossible (a search, a picture, a contradiction, live information) · private: it asks for a private person's number,
address or documents.
"""

from __future__ import annotations

import random

from kun.demo.documents import Item
from kun.demo.names import person

SPOILED_KINDS = ("vague", "doubled", "cut", "wrong", "private")
VAGUE_SUBJECTS = ("它", "这个东西", "那个", "某个品牌", "上面说的那个", "这里")


def spoiled(item: Item, kind: str, rng: random.Random) -> str:
    """The instruction of `item`, spoiled in the way that `kind` says."""
    good, subject = item.instruction, item.subject
    if kind == "vague":
        vague = rng.choice(VAGUE_SUBJECTS)
        return rng.choice(
            (good.replace(subject, vague), f"说说{vague}。", f"{vague}怎么样？", good.replace(subject, ""))
        )
    if kind == "doubled":
        return rng.choice((good + good, f"{good}\n{good}", f"{subject}{good}{subject}{good}"))
    if kind == "cut":
        return good[: rng.randint(max(3, len(subject) // 2), len(good) - 2)].rstrip("。？")
    if kind == "wrong":
        return rng.choice(
            (
                f"请上网查一下{subject}今天的最新消息。",
                f"请打开链接，查询{subject}此刻的情况。",
                f"请看图说明{subject}是什么样子。",
                f"请画一张{subject}的图片。",
                f"请不用任何文字来介绍{subject}。",
                f"请用零个字说明{subject}。",
                f"请预言{subject}一百年后的准确情况。",
            )
        )
    if kind == "private":
        who = rng.choice((person(rng), f"住在{item.subject}附近的{person(rng)}", f"我的邻居{person(rng)}"))
        what = rng.choice(("手机号码", "家庭住址", "身份证号码", "银行账户密码", "病历"))
        return rng.choice((f"请告诉我{who}的{what}。", f"{who}的{what}是多少？", f"请帮我找到{who}的{what}。"))
    raise ValueError(f"no such kind of spoiled instruction: {kind}")
