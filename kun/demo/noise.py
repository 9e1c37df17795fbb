"""Noise for the demo corpora, by kind: what a web crawl has besides prose.

    NOISE["garbled"](random.Random(7), documents)   # -> one bad text; `documents` are proper pages to spoil

`kun.demo.world` makes duplicates and over-long texts, since it knows the other rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from kun.demo.tokens import common_han, gb2312_rows


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


REPEATED_WORDS = _words(
    "戳我戳我 欢迎光临本店 页面加载中 免费下载 顶顶顶 抢沙发 更多精彩 哈哈哈 签到领积分 占位 路过帮顶 "
    "请勿灌水 楼主好人 恭喜发财 转发有奖 测试测试 啊啊啊 支持支持"
)
MENU = _words(
    "首页 新闻 体育 财经 娱乐 论坛 博客 登录 注册 网站地图 关于我们 联系客服 收藏本站 友情链接 手机版 帮助中心 "
    "招聘信息 广告服务 设为首页 意见反馈 下载中心 会员专区 排行榜 视频 图片 直播"
)
GOODS = _words("减肥茶 祛斑霜 信用贷款 彩票计划 二手车位 代开发票 游戏外挂 兼职刷单 高仿手表 股票内参")
HOOKS = _words("加微信 加QQ群 添加客服微信 扫码加群 拨打热线")
PROMISES = _words(
    "名额有限先到先得 无效退款 货到付款 日赚千元不是梦 今日下单立减五折 秒到账无抵押 内部渠道绝对保真 错过再等一年"
)


def garbled(rng: random.Random, documents: Sequence[str]) -> str:
    """Random characters, common and rare ones, with symbols between them."""
    rare = gb2312_rows(56, 87)
    symbols = "�□◆●▲※＃＠＆＊＝＋｜§№"
    pools = (common_han(), rare, symbols)
    return "".join(rng.choice(rng.choices(pools, (5, 4, 2))[0]) for _ in range(rng.randint(80, 180)))


def wrong_encoding(rng: random.Random, documents: Sequence[str]) -> str:
    """A page whose UTF-8 bytes were read as GBK, Latin-1 or the other way round."""
    text = rng.choice(documents)[:120]
    as_utf8 = text.encode("utf-8")
    return rng.choice(
        (
            as_utf8.decode("gbk", errors="replace"),
            as_utf8.decode("latin-1"),
            text.encode("gbk", errors="replace").decode("latin-1"),
            text.encode("gbk", errors="replace").decode("utf-8", errors="replace"),
        )
    )


def navigation(rng: random.Random, documents: Sequence[str]) -> str:
    """The menu of a site and nothing else."""
    gap = rng.choice((" | ", "　", " > ", "\n", " · "))
    return gap.join(rng.choices(MENU, k=rng.randint(25, 45)))


def repetition(rng: random.Random, documents: Sequence[str]) -> str:
    """One or two phrases from forums and shops, repeated."""
    unit = "".join(rng.sample(REPEATED_WORDS, rng.randint(1, 2))) + rng.choice(("", "！", "，", "\n"))
    return unit * (rng.randint(70, 150) // len(unit) + 1)


def advert(rng: random.Random, documents: Sequence[str]) -> str:
    """Pushy sales talk with an account to contact."""
    parts = []
    for _ in range(rng.randint(4, 6)):
        account = "".join(rng.choices("abcdefghijkmnpqrstuvwxyz0123456789", k=rng.randint(6, 10)))
        parts.append(f"{rng.choice(GOODS)}{rng.choice(PROMISES)}，{rng.choice(HOOKS)}{account}")
    return rng.choice(("！", "★", "】【", "，")).join(parts)


NOISE: dict[str, Callable[[random.Random, Sequence[str]], str]] = {
    "garbled": garbled,
    "encoding": wrong_encoding,
    "navigation": navigation,
    "repetition": repetition,
    "advert": advert,
}
