"""The forms of personal data, for kun.filters.privacy.rules: `for kind, (pattern, is_valid) in FORMS.items()`.

A pattern finds candidates in a line translated by `PLAIN` (its last group, or else the whole match), and `is_valid`
checks them by checksum, date or prefix. All patterns take linear time: their repetitions are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from stdnum import luhn
from stdnum.iso7064 import mod_11_2

# Patterns see full-width characters as ASCII, all kinds of hyphens and blanks as one, and earlier matches as gaps.
PLAIN = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
PLAIN |= dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63"), "-")
PLAIN |= dict.fromkeys(map(ord, "\u3000\xa0"), " ")
# Most lines have none of these: five digits in a row or digits in groups, an at sign, a word that ids follow. They
# begin with one class of characters, since the search then skips all others eight times as fast.
MAYBE = re.compile(
    r"[0-9０-９@＠#＃(（\[{微薇威徽vVｖＶwWｗＷ加]"
    r"(?:(?<=[0-9０-９])(?:[0-9０-９]{4}|[-－‐-―−\xa0\u3000 )）]{1,2}[0-9０-９]{3})"
    r"|(?<=[@＠#＃])|(?<=[(（\[{])\s?[Aa][Tt]\s?[)）\]}]|(?<=[微薇威徽vVｖＶ])信|(?<=[vVｖＶwWｗＷ])[xXｘＸ]|(?<=加)[vVｖＶ]"
    r"|(?<=[wW])e[cC]hat)"
)
# Both sides must be free in the same way: then masking never uncovers another match, and is idempotent.
_LEFT = r"(?:(?=[(+])|(?<![A-Za-z0-9_])(?<![0-9]\.)(?<![A-Za-z0-9]-))"
_RIGHT = r"(?![A-Za-z0-9_])(?!\.[0-9])(?!-[A-Za-z0-9])"
# On pages that lost their line ends, the next label follows a number directly: 0731-88151902E-mail.
_LABEL = r"(?:E-?[Mm]ail|e-?mail|QQ|qq|T(?:el|EL)|tel|F(?:ax|AX)|fax|http|www)"
_END = rf"(?:{_RIGHT}|(?={_LABEL}))"
_NO_AMOUNT = r"(?! ?(?:[元万萬亿億%]|美元|字[节節]|bytes|[KMGT]B))"
_NO_COUNT = rf"(?! ?[人个個名年月条條次位]){_NO_AMOUNT}"

_PROVIDER = r"(?=(?:qq|foxmail|163|126|yeah|139|189|sina|sohu|aliyun|gmail|outlook|hotmail|yahoo)\.)"
_EMAIL = (
    r"(?<![A-Za-z0-9])(?!git@)[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}+"
    rf"(?:@| ?[@#] ?{_PROVIDER}| ?[(\[{{] ?[Aa][Tt] ?[)\]}}] ?)"
    r"(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,18}(?!-?[A-Za-z0-9_])(?!:[~/])"
)
_NO_EMAIL = re.compile(  # documentation, file names, systemd units
    r"(?:[@.\])} ]example\.(?:com|org|net|cn|edu)"
    r"|\.(?:service|socket|timer|target|mount|conf|txt|md|py|js|css|html?|png|jpe?g|gif|svg|webp|git|local|invalid))$",
    re.IGNORECASE,
)
WEB_ADDRESS = re.compile(r"(?:(?:https?|ftp|ssh|git)://|www\.)[A-Za-z0-9./?&=_%:#~+@-]*")

_IDENTITY = (
    rf"{_LEFT}[1-9]\d{{5}}[ -]?(?:19|20)\d{{6}}[ -]?\d{{3}}[\dXx]{_RIGHT}"
    rf"|{_LEFT}[A-Z]{{1,2}}\d{{6}} ?\([\dA]\)"
    rf"|身[份分][证證][^0-9A-Za-z\n。;\]\x00]{{0,8}}([1-9]\d{{14}}|[A-Z][1289]\d{{8}}){_RIGHT}"
)
# GB/T 2260: the first two digits of the regions; 83 is on the residence permits of people from Taiwan.
_PROVINCE = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[123]")

_CARD = rf"{_LEFT}(?:\d{{15,19}}|\d{{4}}(?:[ -]\d{{4}}){{3}}(?:[ -]?\d{{1,3}})?|\d{{4}}[ -]\d{{6}}[ -]\d{{5}}){_RIGHT}"
_ISSUERS = re.compile(  # UnionPay, the first cards of ICBC, Visa, Mastercard, JCB, American Express
    r"62\d{14,17}|9558\d{12,15}|4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|3[47]\d{13}"
)

# Numbering plan of the mainland (MIIT, 2017) and of Hong Kong, Macau and Taiwan, as libphonenumber's metadata has them.
_MOBILE = r"1(?:[38]\d|4[5-9]|[59][0-35-9]|6[25-7]|7[0-8])"
_AREA = r"(?:10|2\d|[3-9]\d\d)"
_LOCAL = r"[2-8]\d{2,3}[ -]?\d{4}"
_PHONE = "|".join(
    (
        rf"{_LEFT}(?:(?:(?:\+|00)?86|\((?:\+|00)?86\))[ -]?)?"
        rf"{_MOBILE}(?:\d{{8}}|[ -]\d{{4}}[ -]\d{{4}}){_END}{_NO_AMOUNT}",
        rf"{_LEFT}(?:\((?:86-)?0{_AREA}\)[ -]?|0{_AREA}[ -]|(?:\+|00)?86[ -]\(?0?{_AREA}\)?[ -]?){_LOCAL}"
        rf"(?:(?: ?[转轉-] ?|ext\.? ?)\d{{1,5}})?{_END}",
        rf"{_LEFT}(?:(?:\+|00)85[23][ -]?|\(\+?85[23]\)[ -]?|85[23]-)[2-9]\d{{3}}[ -]?\d{{4}}{_RIGHT}",
        rf"{_LEFT}(?:(?:\+|00)886[ -]?|\(\+?886\)[ -]?|886-)(?:\(0\)|0)?"
        rf"(?:9\d\d[ -]?\d{{3}}[ -]?\d{{3}}|[2-8]\d?[ -]?\d{{3,4}}[ -]?\d{{4}}){_RIGHT}",
        rf"{_LEFT}(?:09\d\d[ -]\d{{3}}[ -]?\d{{3}}|(?:\(0[2-8]\d?\) ?|0[2-8]-)\d{{3,4}}-\d{{4}}){_RIGHT}",
        rf"\+(?:[17](?![ -](?:19|20)\d\d[01-])|[2-9]\d{{1,2}})(?:[ -]\(?\d{{1,10}}\)?){{1,4}}{_RIGHT}",
        r"(?:电话|電話|手[机機]|座机|座機|传真|傳真|致电|致電|拨打|撥打|(?<![A-Za-z])(?:[Tt]el|TEL|[Pp]hone|[Ff]ax|FAX))"
        rf"[号號码碼]{{0,2}}[ :.是为為]{{0,3}}((?!(?:19|20)\d\d[01]\d)(?:0\d{{9,11}}|{_LOCAL}|9\d{{3}}[ -]?\d{{4}}))"
        rf"{_RIGHT}{_NO_AMOUNT}",
    )
)

_WX = r"[微薇威徽]信"
_NUMBER = r"(?:号码?|號碼?|[账帐帳][号號]|[Ii][Dd])"
_ID_END = r"(?![A-Za-z0-9_-])(?!\.[A-Za-z0-9])"
_WECHAT = (
    rf"(?:{_WX} ?{_NUMBER}|(?<![A-Za-z0-9])[VvWw][Xx](?:{_NUMBER}| ?:)"
    rf"|加(?:我|个人|個人|的){{0,2}}(?:{_WX}|[Vv]信|(?:[VvWw][Xx]|[Vv])(?![A-Za-z0-9])){_NUMBER}?)"
    rf"[ :是为為(]{{0,3}}([A-Za-z][A-Za-z0-9_-]{{5,19}}|[1-9]\d{{5,10}}){_ID_END}"
    rf"|(?:{_WX}|(?<![A-Za-z0-9])(?:[Vv]信|[Ww]e[Cc]hat(?: ?ID)?)) ?: ?"
    rf"((?=[a-z]{{6}}|[A-Za-z-]{{1,19}}[0-9_])[A-Za-z][A-Za-z0-9_-]{{5,19}}|[1-9]\d{{5,10}}){_ID_END}"
)
_QQ = (
    r"(?:(?<![A-Za-z0-9])[Qq]{2}|扣扣|(?<![A-Za-z0-9])[Qq]群|加[Qq扣]|扣群|企[鹅鵝][号號]?)"
    r"(?:群|号码?|號碼?|[账帐帳][号號]|交流|讨论|討論|官方|客服|咨询|諮詢|联系){0,4}[ :是为為#(]{0,3}([1-9]\d{4,10})"
    rf"{_RIGHT}{_NO_COUNT}"
)


# The first characters of each kind, or of the word before it: elsewhere its pattern is not tried.
_FIRST = {
    "email": "A-Za-z0-9",
    "identity_number": "1-9A-Z身",
    "bank_card": "2-69",
    "phone": "(+0-9电電手座传傳致拨撥TtPpFf",
    "wechat": "微薇威徽加VvWw",
    "qq": "Qq扣加企",
}


def _is_email(text: str) -> bool:
    return not _NO_EMAIL.search(text)


def _is_identity_number(text: str) -> bool:
    digits = re.sub("[ -]", "", text).upper()
    if len(digits) == 10 and digits[0].isalpha() and digits[1:].isdigit():  # Taiwan: weights 1, 9 ... 1, 1, modulo 10
        letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(digits[0]) + 10
        weighted = zip(f"{letter}{digits[1:]}", (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)
        return sum(int(digit) * weight for digit, weight in weighted) % 10 == 0
    if digits[0].isalpha():  # Hong Kong: weights 9 ... 1, modulo 11; a letter is 10 and on, a missing one 36
        values = [int(sign, 36) for sign in re.sub("[()]", "", digits)]
        values = [36] * (9 - len(values)) + values
        return sum(value * (9 - place) for place, value in enumerate(values)) % 11 == 0
    born = digits[6:14] if len(digits) == 18 else f"19{digits[6:12]}"
    try:
        date(int(born[:4]), int(born[4:6]), int(born[6:]))
    except ValueError:
        return False
    # A date in the future is accepted: a run must not depend on the day.
    return _PROVINCE.match(digits) is not None and (len(digits) == 15 or bool(mod_11_2.is_valid(digits)))


def _is_bank_card(text: str) -> bool:
    digits = re.sub("[ -]", "", text)
    return _ISSUERS.fullmatch(digits) is not None and bool(luhn.is_valid(digits))


def _is_phone(text: str) -> bool:
    """E.164 allows at most 15 digits; with + and a country code there are at least 9."""
    return not text.startswith("+") or 9 <= sum(map(str.isdigit, text)) <= 15


def _any(text: str) -> bool:
    return True


def _pattern(kind: str, pattern: str) -> re.Pattern[str]:
    return re.compile(f"(?=[{_FIRST[kind]}])(?:{pattern})", re.ASCII)


# In the order in which they are searched for; later kinds do not see earlier matches.
FORMS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (_pattern("email", _EMAIL), _is_email),
    "identity_number": (_pattern("identity_number", _IDENTITY), _is_identity_number),
    "bank_card": (_pattern("bank_card", _CARD), _is_bank_card),
    "phone": (_pattern("phone", _PHONE), _is_phone),
    "wechat": (_pattern("wechat", _WECHAT), _any),
    "qq": (_pattern("qq", _QQ), _any),
}
