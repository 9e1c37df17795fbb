"""A subject of the demo world in two forms: as a clean reply, and as a web page around the same sentences.

item = new_item(random.Random(7)); item.reply; item.page(rng); item.instruction; item.facts
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from kun.demo.genres import GENRES, Aspect, Genre
from kun.demo.names import name, number, person

SLOT = re.compile(r"\{(\w+)\}")
WORDS_NOT_FACTS = {"subject", "thing", "task", "profession", "kind", "rule", "field", "use", "season", "material"}

OPENINGS = (
    "小编今天带大家了解一下。",
    "很多朋友都在问，下面来看看吧。",
    "话不多说，直接进入正题。",
    "以下内容供各位参考。",
)
ASIDES = (
    "是不是很心动？",
    "值得收藏哦！",
    "感兴趣的朋友继续往下看。",
    "你知道吗？",
    "真是让人眼前一亮！",
    "大家可以留意一下。",
)
CLOSINGS = ("好了，今天就说到这里。", "希望对大家有所帮助！", "喜欢的话别忘了点赞哦！", "欢迎在评论区留言交流。")
SITES = ("热点网", "生活在线", "都市快报", "百事通", "新知网")
CONTROL_TOKENS = ("<|im_end|>", "</s>", "<|im_start|>assistant", "<|endoftext|>", "<s>", "[INST]", "<pad>")


@dataclass(frozen=True)
class Item:
    """A subject and its sentences. `facts` are the names and numbers that a reply must keep.

    `loose_instruction` names the subject, but may ask for other aspects, as a label model may.
    """

    genre: str
    channel: str
    subject: str
    instruction: str
    loose_instruction: str
    sentences: tuple[str, ...]
    facts: tuple[str, ...]
    steps: bool

    @property
    def reply(self) -> str:
        """The clean reply: one paragraph, or one line per step."""
        return ("\n" if self.steps else "").join(self.sentences)


def new_item(rng: random.Random, genre: Genre | None = None) -> Item:
    """A new subject with random names and numbers, and two or three of its aspects (or all its steps)."""
    genre = genre or rng.choice(GENRES)
    slots = genre.slots(rng)
    slots["subject"] = genre.subject.format(**slots)
    aspects = list(genre.aspects)
    if not genre.steps:
        aspects = rng.sample(aspects, rng.randint(2, 3))
    wordings = [rng.choice(genre.leads), *(rng.choice(aspect.wordings) for aspect in aspects)]
    keys = [key for wording in (genre.subject, *wordings) for key in SLOT.findall(wording)]

    def ask(wanted: list[Aspect]) -> str:
        titles = [aspect.title for aspect in wanted]
        return rng.choice(genre.instructions).format(aspects="、".join(titles[:-1]) + "和" + titles[-1], **slots)

    return Item(
        genre=genre.key,
        channel=genre.channel,
        subject=slots["subject"],
        instruction=ask(aspects),
        loose_instruction=ask(rng.sample(genre.aspects, rng.randint(2, 3))),
        sentences=tuple(wording.format(**slots) for wording in wordings),
        facts=tuple(dict.fromkeys(slots[key] for key in keys if key not in WORDS_NOT_FACTS)),
        steps=genre.steps,
    )


def headline(item: Item, rng: random.Random) -> str:
    """A title for the page."""
    return rng.choice(("{}，看这一篇就够了", "一文了解{}", "关于{}，你知道多少", "带你认识{}")).format(item.subject)


def _header(item: Item, rng: random.Random) -> str:
    date = f"{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    site = rng.choice(SITES)
    return rng.choice(
        (
            f"来源：{site}　编辑：{person(rng)}",
            f"发布时间：{date}　来源：{site}",
            f"当前位置：首页＞{item.channel}＞正文",
            f"{date}　阅读：{number(rng, 100, 99999)}次",
            f"【{item.channel}】{headline(item, rng)}",
            f"作者：{person(rng)}　字号：大　中　小",
        )
    )


def _footer(rng: random.Random) -> str:
    return rng.choice(
        (
            "分享到：微信　微博　QQ空间",
            "版权声明：本文转载自网络，如有侵权请联系删除。",
            f"（编辑：{person(rng)}）",
            f"相关阅读：{name(rng)}牌{rng.choice(('台灯', '手机', '空调'))}",
            f"上一篇：{name(rng)}{rng.choice(('湖', '草', '学院', '音乐节'))}　"
            f"下一篇：{name(rng)}{rng.choice(('山', '鱼', '豆腐'))}",
            "标签：热门　推荐　收藏",
            "点击展开全文　返回顶部",
        )
    )


def page(item: Item, rng: random.Random, control: bool = False) -> str:
    """The item as a web page: headers, asides and footers around the sentences, sometimes livelier punctuation.

    With `control` the text contains one or two control tokens of chat models, as crawled pages do.
    """
    body: list[str] = [rng.choice(OPENINGS)] if rng.random() < 0.35 else []
    for number_of_sentence, sentence in enumerate(item.sentences):
        if rng.random() < 0.2:
            sentence = sentence[:-1] + rng.choice(("！", "哦。", "！！", "～"))
        body.append(sentence)
        if number_of_sentence < len(item.sentences) - 1 and rng.random() < 0.12:
            body.append(rng.choice(ASIDES))
        if rng.random() < 0.12:
            body.append("\n")
    if rng.random() < 0.35:
        body.append(rng.choice(CLOSINGS))
    if control:
        for token in rng.sample(CONTROL_TOKENS, rng.randint(1, 2)):
            body.insert(rng.randint(1, len(body)), token)
    lines = [_header(item, rng) for _ in range(rng.choice((0, 1, 1, 2)))]
    lines.append("".join(body).strip("\n"))
    lines += [_footer(rng) for _ in range(rng.choice((0, 1, 1, 2)))]
    return "\n".join(dict.fromkeys(lines))
