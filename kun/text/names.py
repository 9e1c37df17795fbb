"""Chinese names of persons, places and organisations, found without a segmenter: `chinese_names(reply, source)`.

A name is recognised by its context (张晓梅老师, 记者李强, 在清溪县), never by its characters alone, and skipped in
doubt: a missed name costs one check, a false one rejects an honest reply.
"""

from __future__ import annotations

import re

# Common family names, without those that are common words as well (任, 向, 管).
SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱林何郭罗郑梁谢宋唐许韩冯邓曹彭曾萧田董袁潘蒋蔡余杜叶程苏魏吕丁沈姚卢姜崔钟谭陆汪石廖"
    "贾韦邱侯邹薛熊孟秦阎江尹闫雷黎龚陶贺毛郝顾龙邵覃武钱戴孔汤温葛尤岳齐梅庄辛祝涂裴阮柳冉俞翟詹申柯欧"
    "張劉陳楊趙黃吳孫羅鄭謝許韓馮鄧蕭袁蔣葉蘇魏呂盧鍾譚陸賈韋鄒薛閻龔賀顧龍錢戴湯齊莊塗"
)
BEFORE_PERSON = (
    "记者|作者|作家|诗人|画家|导演|演员|歌手|教授|院士|博士|医生|局长|市长|县长|院长|校长|书记|主任|"
    "经理|總統|总统|主席|記者|教授|馆长|厂长|店主|村民|居民|名叫|叫做|姓名[是为:：]?|联系人[:：]?"
)
AFTER_PERSON = (
    "先生|女士|小姐|教授|老师|老師|医生|医师|醫生|博士|院士|同学|同志|师傅|局长|市长|院长|校长|主任|"
    "经理|总裁|董事长|书记|记者|说道|说[:：，“]|表示[:：，“]|认为[:：，]|指出[:：，]|介绍说"
)
# Characters that begin no given name, but often follow a character that is also a surname (方法, 于是, 许多, 高大).
NO_GIVEN = (
    "的了是在有不和与及或也都就还又很最更个些这那其之于以为被把让对从到并且但而则若如因所等们地得着过多大小者家员方法位名数理化性式度面部分时候后"
    "前中上下里外内间来去说看做会能可要应该将已曾再只才每各两几一二三四五六七八九十百千万亿某此该本"
)
PLACES = (
    "大学|大學|学院|學院|中学|中學|小学|小學|公司|集团|集團|医院|醫院|银行|銀行|研究所|研究院|委员会|"
    "委員會|协会|協會|法院|博物馆|博物館|图书馆|圖書館|出版社|工厂|工廠|酒店|饭店|车站|机场|機場|公园|"
    "公園|水库|书店|茶馆|药店|剧院|美术馆|农场|合作社|省|市|县|縣|镇|鎮|乡|鄉|村|州"
)
BEFORE_PLACE = (
    r"(?:^|(?<=[，。、；：！？（(“「,;:!?\s])|(?<=位于|来自|位於|來自|前往|抵达|座落|坐落)"
    r"|(?<=[在到往至从由赴于於和与與及]))"
)
NO_PLACE = frozenset(
    "的了是在有不以为被把让对从到并且但而则若如因所等们得着这那其之各每某几一二三四五六七八九十两多该本此"
    "我你他她它您咱谁哪家个座所间名条种类"
)
# Common words before such a word, which name no place; compared with any two characters of a candidate.
COMMON = frozenset(
    """
    有限 股份 上市 科技 大型 小型 国有 民营 私营 外资 合资 跨国 控股 保险 物流 贸易 地产 互联 联网
    网络 當地 所在 当地 附近 附属 下属 直属 本地 外地 重点 综合 著名 知名 普通 高等 专科 师范 理工
    农业 医科 人民 高级 最高 基层 专业 社区 公立 私立 商业 中央 投资 政策 国家 國家 自然 历史 城市
    农村 乡村 全国 全省 全市 直辖 县级 地级 省会 省辖 超市 股市 夜市 集市 菜市 行政 自治 开发 风景
    保护 经济 管理 服务 汽车 火车 长途 国际 國際 贫困 沿海 内陆 周边 周邊 相关 相關 任何 其他 其它
    许多 很多 不少 部分 各地 各级 有关 所有 整个 大城 城镇 古镇 小镇 新农 山村 渔村 水力 森林 主题
    公共 私人 家庭 国营 集体 供应 销售 子公 母公 分公 总公 电力 石油 媒体 软件 软體 游戏 电影 广告
    咨询 建筑 制造 生产 研发 初创 创业 学校 机构 政府 單位 单位 成立 建立 创办 开办 进入 离开 返回
    就读 毕业 地方 中小 传染 儿童 妇产 动物 植物 体育 海上 国立 國立 县城 市场
    """.split()  # noqa: SIM905
)
HAN = r"[\u3400-\u9fff]"
GIVEN = rf"(?![{NO_GIVEN}]){HAN}(?:(?![{NO_GIVEN}]){HAN})?"
PERSON = re.compile(rf"(?:{BEFORE_PERSON})([{SURNAMES}]{GIVEN})|(?=([{SURNAMES}]{GIVEN})(?:{AFTER_PERSON}))")
PLACE = re.compile(
    rf"{BEFORE_PLACE}({HAN}{{2,6}}?)({PLACES})(?![场場民生委长長卡员員内內级級会會值政际])(?!{HAN}*?(?:{PLACES}))",
    re.MULTILINE,
)


def chinese_names(reply: str, source: str) -> dict[str, bool]:
    """The names in a reply, each with whether the source supports it.

    A person needs surname and given name; a place or organisation also counts without its kind (清溪 supports 清溪县)
    or by the end of its name (清华大学 supports 北京清华大学). Places are checked only where the source names one of
    the same kind: that finds a 大学 taken for another, and skips general words.
    """
    names = {}
    for match in PERSON.finditer(reply):
        name = match[1] or match[2]
        names[name] = name in source or (match[1] is not None and name[:2] in source)
    for match in PLACE.finditer(reply):
        core = match[1]
        if (
            match[2] in source
            and not NO_PLACE & set(core)
            and not any((core + match[2])[i : i + 2] in COMMON for i in range(len(core)))
        ):
            names[core + match[2]] = core in source or core[-2:] + match[2] in source
    return names


def altered_names(reply: str, source: str) -> list[str]:
    """Persons of the source whose last character is wrong in the reply: 林晓海, where the source has 林晓梅老师."""
    altered = []
    for name in {match[2] for match in PERSON.finditer(source) if match[2] and len(match[2]) == 3}:
        if name not in reply:
            wrong = re.findall(rf"{re.escape(name[:2])}(?![{NO_GIVEN}]|{AFTER_PERSON}){HAN}", reply)
            altered += [other for other in dict.fromkeys(wrong) if other not in source]
    return sorted(altered)
