"""What every text goes through before it is kept, and where it may be cut: `normalise(raw)`, `split_sentences(text)`.

Every function takes linear time, whatever the text.
"""

from __future__ import annotations

import re
import unicodedata

# What ends a line somewhere: CR LF, CR, vertical tab, form feed, NEL (U+0085), line separator; U+2029 ends a paragraph.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028]")
_LINE_END_BUT_C1 = re.compile("\r\n?|[\x0b\x0c\u2028]")
_PARAGRAPH_END = "\u2029"
# UTF-8 of Chinese that was read as Latin-1 or Windows-1252: one character begins with one of these, and two follow.
MISREAD = re.compile("[\xe2-\xef][\x80-\xbf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2}")
# Nothing that a reader sees: C0 and C1 controls but tab and newline, zero-width space, byte order mark, noncharacters.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]+")
_INVISIBLE_BUT_C1 = re.compile("[\x00-\x08\x0e-\x1f\x7f\u200b\ufeff\ufdd0-\ufdef\ufffe\uffff]+")
# What a terminal obeys, or that it shows in another order than it stands: controls, bidirectional marks, surrogates.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BLANKS = " \t\u00a0\u3000"

_ENDS = "。！？…；!?"
_CLOSERS = "”’」』）)】》〉\"'"
_PARAGRAPH = re.compile(r"[^\n]++\n*+|\n++")
# A Latin full stop ends a sentence only before a blank: 3.5, kun.py and www.gov.cn stay whole.
_SENTENCE = re.compile(rf"(?:[^{_ENDS}.\n]|\.(?!\s))*+(?:(?:[{_ENDS}]|\.(?=\s))++[{_CLOSERS}]*+)?+[ \u3000]*+\n*+")


def normalise(text: str) -> str:
    """The text as Kun keeps it: NFC, `\\n` at the end of lines and no blanks before it, no control characters.

    NFC, not NFKC: full-width punctuation and compatibility characters stay what the author wrote. A surrogate pair in
    two halves is joined; a half alone is removed, as are zero-width spaces and byte order marks. Idempotent. In text
    that was read in a wrong encoding, C1 controls are bytes of characters: they stay, for the filter to repair.
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
    """The lines of the text, each with the newlines after it: joined they are the text again."""
    return _PARAGRAPH.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of the text, each with its closing quotes, brackets and newlines: joined they are the text again.

    A sentence ends at one or more of 。！？…；!? (with the quotes and brackets that close after them), at a full stop
    before a blank, or with its line.
    """
    return [sentence for sentence in _SENTENCE.findall(text) if sentence]


def preview(text: str, limit: int = 200) -> str:
    """The beginning of a text for a message or a reject, at most `limit` characters, encodable as UTF-8."""
    cut = _scrub_surrogates(text[:limit])
    return cut if len(text) <= limit else cut + "…"


def printable(text: str) -> str:
    """The text for a terminal: what would steer it (escape sequences, reversed order) or cannot be encoded is shown as
    its code, `\\x1b`. Newlines and tabs stay."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _scrub_surrogates(text: str) -> str:
    """Text that UTF-8 can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text
