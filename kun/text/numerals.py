"""Numbers in Chinese and English text, and which of them a source supports: `unsupported_numbers(reply, source)`.

Expects text in NFKC, in which full-width digits are plain ones. 1,200 = 1200 = 一千二百; 2.5万 = 25000; 50% =
百分之五十 = 五成. Numbers inside Latin identifiers (GPT4, 3D) are part of a name, and are checked with the names.
"""

from __future__ import annotations

import re

DIGITS = {c: value for value, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
SMALL = {"十": 10, "百": 100, "千": 1000}
LARGE = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
HAN = "".join(DIGITS) + "".join(SMALL) + "".join(LARGE)
ARABIC = re.compile(
    r"(?<![A-Za-z\d.])(?<![A-Za-z]-)(\d{1,3}(?:,\d{3})+|\d+)((?:\.\d+)*)(?![A-Za-z]*\d)\s?(%|[千万萬亿億]+)?"
)
CHINESE = re.compile(
    rf"(百分之)?([{HAN}]+)(点[零〇一二三四五六七八九]+(?![十百]))?(成(?![为為了不立功员員本果绩績都分长長就年熟]))?"
)
NUMBERING = re.compile(
    r"^[ \t]*+[(\[#*-]*+[ \t]*+\d{1,2}[ \t]*+[.、)\]．:：](?!\d)|[(（]\d{1,2}[)）]|第\d{1,2}(?=[步点条项种个])", re.M
)
COUNT_OF_POINTS = re.compile(
    r"(?<!\d)\d(?=\s?(?:[个大条种]?(?:方面|步骤|要点|原因|部分|特点|阶段|建议|方法)|点[:：，]|steps|points|ways))"
)


def numbers(reply: str) -> list[str]:
    """The meaningful numbers in a reply, each once: no list numbering, no count of the reply's own points, no Chinese
    numeral below 10 (一个, 三点), no idiom (万一, 千万)."""
    text = COUNT_OF_POINTS.sub(" ", NUMBERING.sub(" ", reply))
    found = [match[0].strip() for match in ARABIC.finditer(text)]
    found += [match[0] for match in CHINESE.finditer(text) if _is_telling(match)]
    return list(dict.fromkeys(found))


def unsupported_numbers(reply: str, source: str) -> list[str]:
    """The numbers in a reply whose value the source does not have in any spelling."""
    values = {value for match in ARABIC.finditer(source) for value in _arabic_values(match)}
    values |= {value for match in CHINESE.finditer(source) for value in _chinese_values(match)}
    values |= {_value(digits) for digits in re.findall(r"\d+(?:\.\d+)?", source)}  # inside identifiers and dates
    missing = []
    for number in numbers(reply):
        match = ARABIC.fullmatch(number) or CHINESE.fullmatch(number)
        spelled = (_arabic_values if number[0].isdigit() else _chinese_values)(match) if match else set()
        as_written = not number[0].isdigit() and number in source
        if not as_written and not spelled & values:
            missing.append(number)
    return missing


def _is_telling(match: re.Match[str]) -> bool:
    percent, numeral, point, tenths = match.groups()
    if percent or point or (tenths and numeral in DIGITS):
        return True
    if len(numeral) < 2 or numeral[0] in LARGE or numeral[0] in "百千":
        return False
    if not any(c in SMALL or c in LARGE for c in numeral):
        return len(numeral) >= 3 and len(set(numeral)) > 1  # 二〇二三; not 一一, 三四, 五六
    return numeral not in ("一千", "一万", "一百", "十万", "一十", "千百", "十千")


def _arabic_values(match: re.Match[str]) -> set[str]:
    whole, decimals, unit = match.groups()
    if decimals.count(".") > 1:
        return {whole + decimals}  # a version
    value = _value(whole.replace(",", "") + decimals)
    if unit == "%":
        return {value + "%"}
    if unit:
        return {_scaled(value, unit)}
    return {value}


def _chinese_values(match: re.Match[str]) -> set[str]:
    percent, numeral, point, tenths = match.groups()
    value = chinese_value(numeral)
    if value is None:
        return set()
    text = str(value) + ("." + "".join(str(DIGITS[c]) for c in point[1:]) if point else "")
    if percent:
        return {_value(text) + "%"}
    return {_value(text)} | ({f"{value * 10}%"} if tenths else set())


def chinese_value(numeral: str) -> int | None:
    """三百二十 -> 320, 二〇二三 -> 2023; None for elliptic numerals (一万二) and those over 20 characters."""
    if len(numeral) > 20:
        return None
    if all(c in DIGITS for c in numeral):
        return int("".join(str(DIGITS[c]) for c in numeral))
    total = section = digit = 0
    scale = 10**16
    for c in numeral:
        if c in DIGITS:
            digit = DIGITS[c]
        elif c in SMALL:
            section += (digit or 1) * SMALL[c]
            digit = 0
        else:
            if LARGE[c] < scale:
                total += (section + digit or 1) * LARGE[c]
            else:  # 一万亿
                total = (total + section + digit) * LARGE[c]
            scale = LARGE[c]
            section = digit = 0
    if digit and len(numeral) > 1 and numeral[-2] not in "十零〇":
        return None
    return total + section + digit


def _value(text: str) -> str:
    """The canonical spelling, without leading zeros or trailing zeros after the point."""
    whole, _, decimals = text.partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + ("." + decimals if decimals else "")


def _scaled(value: str, unit: str) -> str:
    power = sum({"千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8}[c] for c in unit)
    whole, _, decimals = value.partition(".")
    shifted = (whole + decimals[:power].ljust(power, "0")) + ("." + decimals[power:] if decimals[power:] else "")
    return _value(shifted)
