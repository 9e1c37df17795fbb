"""Cleaning before the rules: `text, changes = clean(text, config.filter.clean)`; `changes` names the steps that did.

repair_encoding        UTF-8 that was read as Latin-1, Windows-1252 or the like (ftfy)
without_page_lines     removes lines of navigation, sharing, credits and rights, if most of the text is left
convert(text, "simplified")    traditional to simplified or back, words and not just characters (OpenCC)
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

from kun.config.schema import Clean
from kun.filters.boilerplate import WORD
from kun.text.normal import MISREAD, normalise

# The share of a text, apart from white space, that must be left: what remains of a menu is no text.
REST = 0.6

_GAP = r"[ \t\u3000\xa0|｜/>»›·•:：，、,\[\]【】()（）-]"
_S = r"[ \t\u3000]*+"  # possessive, here and below: adjacent runs of blanks would take quadratic time
_SHORT = r"[^\n。！？，；]{1,40}"
_META = r"[^\n。！？，；]{0,30}"
# A cue alone is not enough: prose begins with the same words. It must be followed by what pages have there (a name of
# two to four characters, a site, a platform, a word about reprinting), and not by a sentence.
_PEOPLE = rf"(?:[\u4e00-\u9fff·]{{2,4}}(?:[ \t\u3000、/，,]++|(?=[）)\]】]?{_S}$))){{1,4}}"
_SITE = r"(?:(?![是的为为了在有由须])[^\n。！？，；]){1,20}"
_PAGE_LINES = "|".join(
    (
        rf"{_GAP}*+(?:(?:{WORD}){_GAP}*+)++",
        rf"(?:当前位置|您的位置|您现在的位置|你的位置|當前位置|目前位置){_S}[:：]{_SHORT}",
        rf"(?:上一篇|下一篇|上一章|下一章|上一页|下一页|上一頁|下一頁){_S}[:：]{_SHORT}",
        rf"{_META}(?:阅读|浏览|点击|閱讀|瀏覽|點擊)(?:量|数|次数)?{_S}[:：]{_S}\d+{_META}",
        rf"{_META}字[号體体]{_S}[:：]{_S}大{_META}",
        rf"(?:分享到|分享至|转发到|一键分享){_S}[:：]?{_S}(?:微信|微博|朋友圈|QQ|新浪|腾讯|豆瓣|好友|Facebook|Twitter|LINE)"
        r"[^\n。！？，；]{0,40}",
        r"(?:扫一扫|扫描|长按|掃描)[^\n。！？；]{0,10}(?:二维码|二維碼|QR ?code|公众号|小程序)[^\n。！？，；]{0,20}",
        r"(?:扫码关注|点击关注|关注我们)[^\n。！？，；]{0,20}",
        r"(?:版权所有|版權所有)(?![人者权的])[^\n]{0,60}",
        r"(?:©|Copyright[ \t]*(?:©|\([Cc]\)|\d{4}))[^\n]{0,80}",
        r"[^\n]{0,12}(?:转载请注明|轉載請註明|转载请联系|禁止转载|谢绝转载|严禁转载)[^\n]{0,60}",
        rf"(?:版权声明|免责声明|特别声明){_S}[:：][^\n]{{0,60}}(?:转载|侵权|本站|本网)[^\n]{{0,60}}",
        r".{0,2}ICP[备證证][^\n]{0,60}",
        rf"[（(【\[]?{_S}(?:责任编辑|責任編輯|责编|值班编辑|见习编辑|编辑|編輯|校对|校對|审核|编审|监制)"
        rf"{_S}[:：]{_S}{_PEOPLE}[）)】\]]?",
        rf"[（(【\[]?{_S}(?:原标题|来源|來源|稿源|文章来源|本文来源|图片来源|圖片來源){_S}[:：]{_S}{_SITE}",
    )
)
_LINES = re.compile(rf"^[ \t\u3000]*+(?:{_PAGE_LINES})[ \t\u3000]*(?:\n+|\Z)", re.MULTILINE)
_CREDIT = 50  # characters at the end of a text that are searched for one
_CREDIT_AT_END = re.compile(
    r"\s*(?:[（(【\[]\s*(?:责任编辑|責任編輯|责编|编辑|編輯|校对|原标题|来源|來源)\s*[:：][^（）()【】\[\]\n]{1,30}[）)】\]]"
    r"|(?:责任编辑|責任編輯|责编)\s*[:：]\s*[\u4e00-\u9fff·]{2,4})\s*$"
)
_KANA = re.compile("[\u3041-\u30fa]")


def clean(text: str, settings: Clean) -> tuple[str, tuple[str, ...]]:
    """The cleaned text, and the names of the settings that changed it."""
    changes = []
    if settings.encoding and (repaired := repair_encoding(text)) != text:
        text, changes = repaired, ["encoding"]
    if settings.page_lines and (bare := without_page_lines(text)) != text:
        text, changes = bare, [*changes, "page_lines"]
    if settings.script is not None and not _KANA.search(text) and (converted := convert(text, settings.script)) != text:
        text, changes = converted, [*changes, "script"]
    return text, tuple(changes)


def repair_encoding(text: str) -> str:
    """Undo a wrong decoding; full-width punctuation, curly quotes and ligatures stay."""
    if not MISREAD.search(text):
        return text
    import ftfy

    repaired = ftfy.fix_encoding(text)
    return text if repaired == text else normalise(repaired)


def without_page_lines(text: str) -> str:
    """Remove page lines, and a credit at the end; the text stays unchanged if less than `REST` of it would be left."""
    bare = _LINES.sub("", text).rstrip() if "\n" in text else text
    tail = bare[-_CREDIT:]
    if ("：" in tail or ":" in tail) and (credit := _CREDIT_AT_END.search(bare, len(bare) - len(tail))):
        bare = bare[: credit.start()]
    if bare == text:
        return text
    bare = bare.strip()
    return bare if len("".join(bare.split())) >= REST * len("".join(text.split())) else text


def convert(text: str, script: Literal["simplified", "traditional"]) -> str:
    return str(_converter(script).convert(text))


@lru_cache(maxsize=2)
def _converter(script: str) -> Any:
    from opencc import OpenCC

    return OpenCC("t2s" if script == "simplified" else "s2t")
