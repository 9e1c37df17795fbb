"""Whether an instruction asks for something: `asks_nothing(instruction, text)`, and nothing twice: `named_twice(...)`.

A label model that has not learned its task writes a sentence of the text, or a heading. People write statements too
("I cannot sleep."), so a statement alone is no fault: it asks nothing where it has neither question nor request, and
the text itself says it. How many instructions of people are taken for such is in docs/measurements.md.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from typing import Any

from kun.checks.answers import folded
from kun.text.normal import split_sentences

STANDS = 0.84  # share of a statement's words that two neighbouring sentences of the text have, side by side

# Chinese is compared in simplified characters. Words that make a question or a request wherever they stand:
ANYWHERE = re.compile(
    r"[?？]|_{2,}|什么|甚么|怎|如何|为何|有何|何[时处种为谓]|谁|啥|咋|哪(?![怕吒])|多少|多久|多大|有多[长高远重快深宽]"
    r"|[吗嘛呢吧么](?=\W|\Z)|是否|能否|可否|会否|有没有|([\u4e00-\u9fff])[不没]\1|是.+还是"
    r"|(?<![申邀聘敦恳呈报奏提])请(?![求示假客愿帖柬])|给我(?![们国军])|告诉我|帮我|帮忙|麻烦你|教我|想知道|想了解"
    r"|给定|输入[：:]|input:|\bplease\b|\b(?:tell|help|give|show|teach) me\b|\bi (?:want|need|would like|wonder)\b",
    re.IGNORECASE,
)
# Words with which a sentence begins that asks; Chinese ones may follow a few words such as "用一句话".
VERBS = """
写 列 介绍 说 谈 讲 讨论 描 解 阐 概 总结 归纳 归 简 详 分析 分类 分 比较 对比 评 批评 论 举 提供 提出 提取 给出 创
生成 设 制 造 编 计算 算 求 找 推荐 推 建议 建 回答 答 识别 辨 判断 判 翻译 译 改 转 将 把 使用 利用 运用 用 根据
假设 假如 想象 构 拼 填 排 按 删 添 输出 证明 预测 估 选 确 检 验 修 完成 续 扮演 模拟 绘 画 规划 扩 缩 重 陈述
展示 复述 标 区分 研究 调 探 考虑 思考 想 看 查 搜 执行 运行 实现 开发 匹配 替 更 组 定义 命名 配置 获取 报告 拼写
阅读 帮 需要 准备 作 做 教 试 逆向 反转 处理 测 连接 合并 挑 制定
""".split()  # noqa: SIM905
ASKING = """
who whom whose what when where which why how is are was were do does did can could will would should has have had
am may explain describe write list give name summarize summarise compare tell discuss find create generate make
suggest provide identify classify translate rewrite edit convert calculate compute outline define design develop
propose compose analyze analyse evaluate construct come think imagine use add remove choose select sort rank
arrange answer complete fill determine predict estimate recommend show state clarify illustrate elaborate review
introduce present draft plan organize organise brainstorm read look change replace correct detect extract match
solve prove output print return implement build help let take given assume suppose pretend act play respond reply
contrast simplify paraphrase shorten expand insert combine group categorize categorise label count check verify
assess research invent set simulate formulate fix debug join order pick report share speak talk teach try turn
mention point produce offer highlight examine explore express cite reverse resolve step-by-step
""".split()  # noqa: SIM905
# Aspects: a topic that names one ("the causes of X") is asked for as people ask a search engine.
ASPECTS = """
重要性 方法 办法 特点 特征 特色 特性 措施 定义 策略 技巧 作用 影响 原因 历史 区别 差异 异同 意义 含义 步骤 流程
过程 优点 缺点 优势 劣势 优缺点 利弊 好处 坏处 用途 功能 种类 类型 分类 例子 建议 方式 原理 关系 联系 情况 条件
要求 标准 简介 概况 结构 组成 现状 前景 症状 做法 学习
""".split()  # noqa: SIM905
BEGINS = re.compile(
    r"(?:\A|[\n。！;；:：]|\d[.、)）])\s*(?:[你您再仅只试着]|然后|并且?|正确){0,3}(?:[用以为从对在](?!了)[^。！；\n]{1,24}?)?"
    rf"(?:{'|'.join(VERBS)})(?!为|\w{{0,2}}了)"
    rf"|(?:\A|[\n.!?:;]|\d[.)])\s*[\"'(]?(?:(?:now|then|also|briefly|in|and)\s+){{0,3}}(?:{'|'.join(ASKING)})\b"
    rf"|的\w{{0,4}}?(?:{'|'.join(ASPECTS)})[。.]?\Z"
    r"|\A(?:the )?(?:\w+ )?(?:importance|advantages?|benefits?|history|differences?|causes?|effects?|role|uses?) of\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\U00020000-\U00033479]+|\d+|[^\W_]")

PART = re.compile(r"[，。？！；：,.?!;:\n]+")
ENGLISH_PART = re.compile(r"[.?!;:\n\u3000-\u9fff]+")
AND, ENGLISH_AND = re.compile(r"以及|[和与與及跟]"), re.compile(r"\band\b|\bor\b")
LEAD = re.compile(
    r"\A.*(?:[的其了在“]|介绍|介紹|说明|說明|描述|解释|解釋|列出|比较|比較|分析|包括|谈谈|談談|概述|评价)(?:一下)?"
)
ENGLISH_LEAD = re.compile(
    r"\A(?:.*\b(?:the|its|his|her|their|of|about|describe|explain|list|compare|discuss|including)\b)?"
)
ENGLISH_TAIL = re.compile(r"\s(?:of|in|for)\s.*")


def asks(instruction: str) -> bool:
    """Whether the instruction has a question or a request."""
    simple = _simplified(instruction)
    return ANYWHERE.search(simple) is not None or BEGINS.search(simple) is not None


def asks_nothing(instruction: str, text: str) -> bool:
    """Whether an instruction only says what the text says: no question, no request, and it stands in the text.

    In a whole sentence of the text a verb at its beginning makes no request: recipes and abstracts have many.
    """
    if len(_words(instruction)) < 3 or standing(instruction, text) < STANDS:
        return False
    if folded(instruction) in map(folded, split_sentences(text)):
        return ANYWHERE.search(_simplified(instruction)) is None
    return not asks(instruction)


def standing(statement: str, text: str) -> float:
    """The largest share of the words of a statement (Han characters, Latin words, numbers) that two neighbouring
    sentences of the text have beside the same neighbour. Linear time."""
    words = _words(statement)
    sentences = [_words(sentence) for sentence in split_sentences(text)]
    return max((_shared(words, one + two) for one, two in zip(sentences, [*sentences[1:], []], strict=True)), default=0)


def named_twice(instruction: str) -> str | None:
    """An item that a list in the instruction has twice: `海拔` in "请介绍它的海拔、最佳季节和海拔。"."""
    plain = unicodedata.normalize("NFKC", instruction).casefold()
    lists = [_items(part.split("、"), AND, LEAD) for part in PART.split(plain)]
    lists += [
        [ENGLISH_LEAD.sub("", item).strip() for item in _items(part.split(","), ENGLISH_AND, ENGLISH_LEAD)]
        for part in ENGLISH_PART.split(plain)
    ]
    for items in lists:
        for place, item in enumerate(items):
            if sum(map(str.isalpha, item)) > 1 and item in items[:place]:
                return item
    return None


def _items(parts: list[str], conjunction: re.Pattern[str], lead: re.Pattern[str]) -> list[str]:
    """The items of a list, of "A, B and C" as of "A, B, and C"; none where it has no more than "A and B", as in "people
    and people". What comes before the first item is cut off where a word marks its end: "请介绍它的"."""
    if len(parts) == 1:
        return []
    items = [*parts[:-1], *conjunction.split(parts[-1], maxsplit=1)]
    return [lead.sub("", items[0]).strip(), *(ENGLISH_TAIL.sub("", item).strip() for item in items[1:])]


def _shared(words: list[str], source: list[str]) -> float:
    """The share of the words that the source has beside the same neighbour."""
    pairs = set(pairwise(source))
    shared = [pair in pairs for pair in pairwise(words)]
    return sum(map(max, [False, *shared], [*shared, False])) / max(len(words), 1)


def _words(text: str) -> list[str]:
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _simplified(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text)
    return plain if plain.isascii() else str(_converter().convert(plain))


@lru_cache(maxsize=1)
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
