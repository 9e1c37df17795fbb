"""Normalisation of every text that is read, and where texts may be cut: `normalise(raw)`, `split_sentences(text)`.

Every function takes linear time, whatever the text.
"""

from __future__ import annotations

import re
import unicodedata

# Line ends of all systems: CR LF, CR, vertical tab, form feed, NEL (U+0085), line separator; U+2029 ends a paragraph.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028]")
_LINE_END_BUT_C1 = re.compile("\r\n?|[\x0b\x0c\u2028]")
_PARAGRAPH_END = "\u2029"
# Chinese UTF-8 that was read as Latin-1 or Windows-1252: a lead byte and two continuation bytes.
MISREAD = re.compile("[\xe2-\xef][\x80-\xbf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2}")
# Invisible characters: C0 and C1 controls except tab and newline, zero-width space, byte order mark, noncharacters.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]+")
_INVISIBLE_BUT_C1 = re.compile("[\x00-\x08\x0e-\x1f\x7f\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]+")
# What would control a terminal or reorder its text: controls, bidirectional marks, surrogates.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BLANKS = " \t\u00a0\u3000"

_ENDS = "。！？…；!?"
_CLOSERS = "”’」』）)】》〉\"'"
_PARAGRAPH = re.compile(r"[^\n]++\n*+|\n++")
# A Latin full stop ends a sentence only before a blank: 3.5, kun.py and www.gov.cn stay whole.
_SENTENCE = re.compile(rf"(?:[^{_ENDS}.\n]|\.(?!\s))*+(?:(?:[{_ENDS}]|\.(?=\s))++[{_CLOSERS}]*+)?+[ \u3000]*+\n*+")


def normalise(text: str) -> str:
    """The text as Kun stores it: NFC, lines that end in `\\n` without trailing blanks, no control characters.

    NFC, not NFKC, so that full-width punctuation and compatibility characters stay as written. Split surrogate pairs
    are joined; lone surrogates, zero-width spaces and byte order marks are removed. Idempotent. In text that was read
    in the wrong encoding, C1 controls are bytes of characters and stay, so that the filter can repair them.
    """
    if not text.isascii():
        text = _scrub_surrogates(text)
        text = text.replace(_PARAGRAPH_END, "\n\n")
        if MISREAD.search(text):
            text = _INVISIBLE_BUT_C1.sub("", _LINE_END_BUT_C1.sub("\n", text))
            return unicodedata.normalize("NFC", text).strip(" \t\n\u3000")
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or "\u3000\n" in text or "\u00a0\n" in text:
        text = "\n".join([line.rstrip(_BLANKS) for line in text.split("\n")])
    return text.strip()


def split_paragraphs(text: str) -> list[str]:
    """The lines of the text, each with the newlines after it; joined, they give the text again."""
    return _PARAGRAPH.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of the text, each with its closing quotes, brackets and newlines; joined, they give the text again.

    A sentence ends at one or more of 。！？…；!? (with the quotes and brackets that close after them), at a full stop
    before a blank, or with its line.
    """
    return [sentence for sentence in _SENTENCE.findall(text) if sentence]


def preview(text: str, limit: int = 200) -> str:
    """The first `limit` characters of a text, for a message or a reject; always encodable as UTF-8."""
    cut = _scrub_surrogates(text[:limit])
    return cut if len(text) <= limit else cut + "…"


def printable(text: str) -> str:
    """The text for a terminal: characters that would control it, reorder its text or cannot be encoded are shown as
    escapes such as `\\x1b`. Newlines and tabs stay."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _scrub_surrogates(text: str) -> str:
    """Text that UTF-8 can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text
