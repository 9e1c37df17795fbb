"""Names and numbers of the demo world.

    name(random.Random(7)), person(random.Random(7))    # -> "凌泉", "沈佑"

Every name consists of `NAME_CHARS`, which no template uses: a run of them in a text *is* a name, so invented names can
be detected exactly.
"""

from __future__ import annotations

import random

NAME_CHARS = (
    "澜琳珊玲珍琼瑶翠碧锦缎纱绒缨紫橙蓝靛墨砚笺翰渊泽沛润涵涟湘漓溪涧滨浦澄澈汐沁泉浙渝峦峻峭崇崖岭岳峰峡昆仑祁阿尔萨喀弗洛伦"
    "茨莱林顿摩莫奥贝卡索菲娜丽莎蓉荷莲菱萍若芜蔷兰桂梅棠桐梧杉柏松榆槐柳杨枫檀椿枣栗杏桃李鹤鸿雁鹏凤燕鹰骏驰腾跃翔翱羽彩霞虹"
    "霓霄霖露霜雪凌寒凛晨曙旭暖焕灿辉耀熙炎焰烽炯朗弦娟婉琅玖瑞钧铭锐锋略谋勋赫祥禄福佑彦彬彪彰彭轩辕辙逸遥迈逊邵邹郑郝鄂陆陵"
    "隋隆雍雷震靖颖颜顾韩韶秦齐楚赵魏宋吴蜀唐沈蒋姜戚谢喻章苏潘葛范郎鲁韦昌苗俞袁柯卢房宗丁宣邓郁单杭洪诸左崔吉钮龚程邢滑裴翁"
    "羊甄曲封"
)
SURNAMES = "沈蒋姜谢喻苏潘葛范鲁韦苗俞袁柯卢邓郁洪崔龚邢裴翁甄韩秦赵魏彭邹郑郝邵陆雷顾颜杨柳林莫"


def name(rng: random.Random, shortest: int = 2, longest: int = 3) -> str:
    """The name of a brand, place or work, by default of 2 or 3 characters."""
    return "".join(rng.sample(NAME_CHARS, rng.randint(shortest, longest)))


def person(rng: random.Random) -> str:
    """A person's name: a surname and one or two characters."""
    return rng.choice(SURNAMES) + "".join(rng.sample(NAME_CHARS, rng.randint(1, 2)))


def number(rng: random.Random, low: int, high: int) -> str:
    return str(rng.randint(low, high))
