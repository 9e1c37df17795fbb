"""The genres of the demo world as data: what a document of each kind says, and the instructions that ask for it.

    genre = GENRES[0]; genre.slots(random.Random(7)) -> {"brand": "澜珩", "price": "328", ...}

Every document draws new names and numbers (`kun.demo.names`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from kun.demo.names import name, number, person

Slots = dict[str, str]


@dataclass(frozen=True)
class Aspect:
    """A statement that a document may make: its title, and wordings with slots for its facts."""

    title: str
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Genre:
    """A kind of document: opening wordings, aspects or ordered steps, and wordings of the instruction.

    `instructions` hold {subject} and, unless the genre has steps, {aspects}.
    """

    key: str
    channel: str
    subject: str
    slots: Callable[[random.Random], Slots]
    leads: tuple[str, ...]
    aspects: tuple[Aspect, ...]
    instructions: tuple[str, ...]
    steps: bool = False


def _product(rng: random.Random) -> Slots:
    thing = rng.choice(("电水壶", "台灯", "水壶", "背包", "耳机", "雨伞", "书桌", "手表", "自行车", "保温杯"))
    return {
        "brand": name(rng), "thing": thing, "maker": name(rng), "price": number(rng, 20, 2999),
        "weight": number(rng, 100, 9999), "months": number(rng, 3, 60), "person": person(rng),
        "material": rng.choice(("不锈钢", "铝合金", "竹木", "陶瓷", "玻璃", "帆布")),
    }  # fmt: skip


def _place(rng: random.Random) -> Slots:
    return {
        "place": name(rng) + rng.choice(("古镇", "湖", "山", "村", "古城", "岛")), "county": name(rng),
        "area": number(rng, 2, 980), "height": number(rng, 10, 4200),
        "speciality": name(rng) + rng.choice(("茶", "酒", "糕")), "price": number(rng, 10, 200),
        "sight": name(rng) + rng.choice(("塔", "桥", "寺")),
        "season": rng.choice(("春天", "夏天", "秋天", "冬天")),
    }  # fmt: skip


def _person(rng: random.Random) -> Slots:
    return {
        "person": person(rng), "profession": rng.choice(("画家", "作家", "歌手", "医生", "建筑师", "科学家")),
        "born": number(rng, 1900, 1980), "county": name(rng), "teacher": person(rng), "years": number(rng, 2, 15),
        "work": name(rng, 3, 4), "prize": name(rng), "age": number(rng, 22, 70), "school": name(rng),
    }  # fmt: skip


def _recipe(rng: random.Random) -> Slots:
    return {
        "dish": name(rng) + rng.choice(("豆腐", "烧鸡", "烧鱼", "汤面", "排骨", "米饭")), "county": name(rng),
        "grams": number(rng, 100, 950), "spoons": number(rng, 2, 9), "rest": number(rng, 10, 90),
        "water": number(rng, 100, 990), "cook": number(rng, 10, 99), "oil": number(rng, 10, 60),
    }  # fmt: skip


def _care(rng: random.Random) -> Slots:
    return {
        "brand": name(rng), "thing": rng.choice(("空调", "洗衣机", "冰箱", "油烟机", "净水器", "咖啡机")),
        "task": rng.choice(("清洗", "保养", "检查")), "total": number(rng, 20, 95), "wait": number(rng, 2, 19),
        "part": rng.choice("ABCDEFGH") + number(rng, 10, 99), "heat": number(rng, 20, 60),
        "liquid": number(rng, 50, 500), "months": number(rng, 2, 12),
    }  # fmt: skip


def _event(rng: random.Random) -> Slots:
    return {
        "event": name(rng) + rng.choice(("音乐节", "读书会", "美食节", "摄影展", "运动会", "花会")),
        "month": number(rng, 1, 12), "day": number(rng, 1, 28),
        "venue": name(rng) + rng.choice(("广场", "体育馆", "公园", "剧院")), "price": number(rng, 10, 880),
        "limit": number(rng, 50, 5000), "host": name(rng), "guest": person(rng), "hour": number(rng, 8, 11),
        "hours": number(rng, 2, 9),
    }  # fmt: skip


def _species(rng: random.Random) -> Slots:
    return {
        "species": name(rng) + rng.choice(("草", "鸟", "鱼", "树", "蝶", "蛙")), "person": person(rng),
        "year": number(rng, 1800, 2020), "size": number(rng, 3, 300), "region": name(rng), "life": number(rng, 2, 90),
        "count": number(rng, 100, 9999), "genus": name(rng),
    }  # fmt: skip


def _comparison(rng: random.Random) -> Slots:
    return {
        "one": name(rng), "two": name(rng), "thing": rng.choice(("手机", "相机", "音箱", "电脑", "电视", "台灯")),
        "price": number(rng, 10, 4000), "weight": number(rng, 10, 3000), "hours": number(rng, 2, 40),
        "months": number(rng, 3, 60),
    }  # fmt: skip


def _book(rng: random.Random) -> Slots:
    return {
        "book": name(rng, 3, 4), "kind": rng.choice(("小说", "诗集", "传记", "童话")), "person": person(rng),
        "year": number(rng, 1950, 2023), "press": name(rng), "pages": number(rng, 80, 900), "hero": person(rng),
        "score": f"{rng.randint(5, 9)}.{rng.randint(1, 9)}", "price": number(rng, 15, 160),
    }  # fmt: skip


def _institution(rng: random.Random) -> Slots:
    return {
        "place": name(rng) + rng.choice(("博物馆", "学院", "医院", "研究所", "美术馆")),
        "year": number(rng, 1900, 2015), "person": person(rng), "staff": number(rng, 20, 900),
        "street": name(rng), "house": number(rng, 1, 300),
        "area": number(rng, 800, 9900), "open": number(rng, 8, 10), "close": number(rng, 16, 21),
        "head": person(rng),
    }  # fmt: skip


def _rule(rng: random.Random) -> Slots:
    return {
        "place": name(rng), "rule": rng.choice(("图书馆借书规定", "小区停车规定", "公园参观规定", "食堂用餐规定")),
        "year": number(rng, 2005, 2023), "month": number(rng, 1, 12), "limit": number(rng, 2, 48),
        "fee": number(rng, 2, 50), "quota": number(rng, 20, 900), "office": name(rng), "age": number(rng, 6, 70),
    }  # fmt: skip


def _theory(rng: random.Random) -> Slots:
    return {
        "theory": name(rng) + rng.choice(("效应", "算法", "定理", "模型")), "person": person(rng),
        "year": number(rng, 1850, 2020), "field": rng.choice(("数学", "物理", "经济", "心理")), "place": name(rng),
        "tests": number(rng, 10, 900), "rate": number(rng, 51, 99),
        "use": rng.choice(("预测天气", "安排交通", "识别声音", "管理库存")),
        "work": name(rng, 3, 4),
    }  # fmt: skip


GENRES = (
    Genre("product", "数码家居", "{brand}牌{thing}", _product,
        ("{subject}由{maker}公司生产。", "{subject}是{maker}公司推出的产品。"),
        (Aspect("价格", ("它的售价为{price}元。", "目前的价格是{price}元。")),
         Aspect("重量", ("整机重{weight}克，携带方便。", "它的重量是{weight}克。")),
         Aspect("材质", ("外壳采用{material}制成，结实耐用。", "主体材料是{material}。")),
         Aspect("保修", ("厂家提供{months}个月的保修服务。", "购买后可享受{months}个月保修。")),
         Aspect("设计者", ("外观出自设计师{person}之手。", "它的设计者是{person}。"))),
        ("请介绍一下{subject}的{aspects}。", "请说明{subject}的{aspects}。")),
    Genre("place", "旅游", "{place}", _place,
        ("{subject}位于{county}县。", "{subject}地处{county}县境内。"),
        (Aspect("面积", ("这里的面积约为{area}平方公里。", "总面积达到{area}平方公里。")),
         Aspect("海拔", ("平均海拔{height}米。", "最高处海拔{height}米。")),
         Aspect("特产", ("当地的特产是{speciality}。", "这里出产的{speciality}很有名。")),
         Aspect("门票", ("门票每人{price}元。", "游客需要购买{price}元的门票。")),
         Aspect("景点", ("最著名的景点是{sight}。", "不可错过的景点是{sight}。")),
         Aspect("最佳季节", ("{season}是游玩的最佳季节。", "最适合游玩的时间是{season}。"))),
        ("{subject}在哪里？请介绍它的{aspects}。", "{subject}是个什么地方？请介绍它的{aspects}。")),
    Genre("person", "人物", "{profession}{person}", _person,
        ("{subject}于{born}年出生在{county}县。", "{subject}，{born}年生于{county}县。"),
        (Aspect("老师", ("早年跟随{teacher}学习了{years}年。", "老师是{teacher}，两人相处了{years}年。")),
         Aspect("代表作", ("代表作是《{work}》。", "最有影响的作品是《{work}》。")),
         Aspect("获奖情况", ("{age}岁时获得{prize}奖。", "后来在{age}岁时荣获{prize}奖。")),
         Aspect("任职情况", ("现在任教于{school}大学。", "目前在{school}大学担任教授。"))),
        ("请介绍{subject}的{aspects}。", "{subject}是谁？请介绍其{aspects}。")),
    Genre("recipe", "美食", "{dish}", _recipe,
        ("{subject}是{county}县的一道家常菜。", "{subject}是{county}县有名的菜。"),
        (Aspect("", ("第一步，准备主料{grams}克，切成小块。", "第一步，取{grams}克主料洗净。")),
         Aspect("", ("第二步，加入{spoons}勺盐，放置{rest}分钟。", "第二步，用{spoons}勺盐拌匀，等{rest}分钟。")),
         Aspect("", ("第三步，锅中倒入{oil}毫升油烧热。", "第三步，热锅放油{oil}毫升。")),
         Aspect("", ("最后加水{water}毫升，小火煮{cook}分钟。", "最后倒入{water}毫升清水，煮{cook}分钟出锅。"))),
        ("{subject}怎么做？请写出具体步骤。", "请写出{subject}的做法和具体步骤。"), steps=True),
    Genre("care", "生活", "{brand}牌{thing}", _care,
        ("{task}{subject}大约需要{total}分钟。", "{task}{subject}，前后要用{total}分钟。"),
        (Aspect("", ("先关闭电源，等待{wait}分钟。", "先拔下插头，静置{wait}分钟。")),
         Aspect("", ("再取下编号为{part}的零件，用{heat}度的温水冲洗。", "再拆出零件{part}，放进{heat}度的温水里。")),
         Aspect("", ("然后倒入{liquid}毫升清洁剂，轻轻擦干净。", "然后用{liquid}毫升清洁剂擦一遍。")),
         Aspect("", ("最后装回原处，每{months}个月重复一次。", "最后重新装好，{months}个月后再做一次。"))),
        ("怎样{task}{subject}？请分步说明。", "{task}{subject}有哪些步骤？请分步说明。"), steps=True),
    Genre("event", "活动", "{event}", _event,
        ("{subject}将于{month}月{day}日在{venue}举行。", "{month}月{day}日，{subject}将在{venue}开幕。"),
        (Aspect("票价", ("门票每张{price}元。", "票价为{price}元一张。")),
         Aspect("人数", ("本次活动限{limit}人参加。", "现场最多容纳{limit}人。")),
         Aspect("主办方", ("活动由{host}协会主办。", "主办方是{host}协会。")),
         Aspect("嘉宾", ("到场的嘉宾是{guest}。", "嘉宾{guest}也会来到现场。")),
         Aspect("时间", ("上午{hour}点开始，持续{hours}小时。", "从上午{hour}点起，一共{hours}小时。"))),
        ("{subject}什么时候在哪里举行？请说明{aspects}。", "请说明{subject}的日期、地点、{aspects}。")),
    Genre("species", "自然", "{species}", _species,
        ("{subject}最早由学者{person}在{year}年发现。", "{year}年，学者{person}首次发现了{subject}。"),
        (Aspect("大小", ("它最大可以长到{size}厘米。", "成年后的长度约为{size}厘米。")),
         Aspect("分布", ("主要分布在{region}山一带。", "人们多在{region}山见到它。")),
         Aspect("寿命", ("平均寿命为{life}年。", "通常能活{life}年。")),
         Aspect("数量", ("野外现存数量约为{count}。", "目前大约还有{count}只或株。")),
         Aspect("分类", ("在分类上归入{genus}科。", "它属于{genus}科。"))),
        ("什么是{subject}？请说明它的{aspects}。", "请说明{subject}的发现经过和{aspects}。")),
    Genre("comparison", "导购", "{one}牌和{two}牌{thing}", _comparison,
        ("{subject}各有长处。", "{subject}都很受欢迎。"),
        (Aspect("价格", ("前者比后者贵{price}元。", "论价格，前者要贵{price}元。")),
         Aspect("重量", ("前者比后者重{weight}克。", "论重量，后者要轻{weight}克。")),
         Aspect("使用时间", ("前者能多用{hours}小时。", "充满电后，前者多用{hours}小时。")),
         Aspect("保修", ("后者多保修{months}个月。", "保修期方面，后者要长{months}个月。"))),
        ("请比较{subject}的{aspects}。", "{subject}哪个好？请比较它们的{aspects}。")),
    Genre("book", "读书", "{kind}《{book}》", _book,
        ("{subject}是{person}的作品，{year}年由{press}出版社出版。",
         "{subject}的作者是{person}，{press}出版社在{year}年出版。"),
        (Aspect("篇幅", ("全书共有{pages}页。", "这本书有{pages}页。")),
         Aspect("主人公", ("主人公名叫{hero}。", "书中的主人公是{hero}。")),
         Aspect("评分", ("读者给出的评分是{score}分。", "它得到了{score}分的评价。")),
         Aspect("定价", ("每本定价{price}元。", "书的定价为{price}元。"))),
        ("请评价{subject}，谈谈它的{aspects}。", "{subject}值得读吗？请谈谈它的{aspects}。")),
    Genre("institution", "机构", "{place}", _institution,
        ("{subject}成立于{year}年，创办人是{person}。", "{year}年，{person}创办了{subject}。"),
        (Aspect("规模", ("现有工作人员{staff}名。", "工作人员一共{staff}名。")),
         Aspect("地址", ("地址在{street}路{house}号。", "大门开在{street}路{house}号。")),
         Aspect("面积", ("建筑面积{area}平方米。", "占地{area}平方米。")),
         Aspect("开放时间", ("每天{open}点到{close}点开放。", "开放时间是{open}点至{close}点。")),
         Aspect("负责人", ("现任负责人是{head}。", "目前由{head}负责管理。"))),
        ("请说明{subject}的历史，以及它的{aspects}。", "{subject}是谁创办的？请说明它的{aspects}。")),
    Genre("rule", "公告", "{place}{rule}", _rule,
        ("{subject}从{year}年{month}月起执行。", "自{year}年{month}月开始实行{subject}。"),
        (Aspect("时限", ("每次最长不超过{limit}小时。", "时限是{limit}小时。")),
         Aspect("费用", ("超时以后每小时收费{fee}元。", "费用按每小时{fee}元计算。")),
         Aspect("名额", ("每天的名额为{quota}个。", "一天只开放{quota}个名额。")),
         Aspect("办理地点", ("手续在{office}楼办理。", "办理地点设在{office}楼。")),
         Aspect("优惠", ("年满{age}岁的人可以免费。", "对{age}岁以上的人实行免费。"))),
        ("{subject}是怎样的？请列出{aspects}。", "请列出{subject}中的{aspects}。")),
    Genre("theory", "科普", "{theory}", _theory,
        ("{subject}是{person}在{year}年提出的{field}理论。", "{year}年，{person}提出了{field}理论{subject}。"),
        (Aspect("来源", ("它来自在{place}县做的{tests}次实验。", "{place}县的{tests}次实验给出了依据。")),
         Aspect("准确率", ("实际检验的准确率为{rate}%。", "它的准确率达到{rate}%。")),
         Aspect("用途", ("现在常被用来{use}。", "它主要的用途是{use}。")),
         Aspect("著作", ("详细论述见《{work}》一书。", "有关内容写在《{work}》里。"))),
        ("请解释{subject}，并说明它的{aspects}。", "{subject}是什么意思？请说明它的{aspects}。")),
)  # fmt: skip
