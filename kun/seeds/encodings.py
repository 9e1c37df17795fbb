"""The encoding of a seed file, and its bytes as UTF-8: `utf8(stream, find_encoding(head, whole=True)[0])`.

UTF-8 is what it says: text in another encoding is hardly ever valid UTF-8. GB18030 and Big5 take nearly any bytes, so
that they are believed only where what they give is Chinese by its characters, and the user is told. All else is a
question for the user: `seeds.encoding`.
"""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

from kun.text import characters

MARKS = (  # of byte order; UTF-32 first, since its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CHINESE = ("gb18030", "big5hkscs")
COMMON = 0.97  # least share of common Han characters and punctuation in what is not ASCII


def find_encoding(head: bytes, whole: bool) -> tuple[str | None, str]:
    """The encoding of text that begins with `head`, and what to tell of it; None where it cannot be known."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name, ""
    if _decodes(head, "utf-8", whole):
        return "utf-8", ""
    shares = {name: _common_share(head, name, whole) for name in CHINESE}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= COMMON and min(shares.values()) < shares[best]:
        return best, f"is not UTF-8, and was read as {best}, which makes it Chinese"
    if any(not line.isascii() and _decodes(line, "utf-8", True) for line in head.split(b"\n")[:-1]):
        return "utf-8", ""  # with damaged rows, which are told one by one
    return None, ""


def utf8(stream: IO[bytes], encoding: str) -> IO[bytes]:
    """The stream in UTF-8, without a byte order mark. Bytes that are not of the encoding stay, and are no UTF-8."""
    return io.BufferedReader(_Recoded(stream, encoding), 2**16)


class WrongEncodingError(Exception):
    """The bytes are not of this encoding, and cannot be told apart any more."""


class _Recoded(io.RawIOBase):
    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)(
            "surrogateescape"
        )
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            data = self._stream.read1(2**16)  # type: ignore[attr-defined]
            self._ended = not data
            try:
                text = self._decoder.decode(data, self._ended)
            except UnicodeDecodeError as error:  # no byte that could stay as it is, such as half a character of UTF-16
                raise WrongEncodingError(error.encoding) from None
            self._ready = text.encode("utf-8", "surrogateescape")
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


def _decodes(data: bytes, encoding: str, whole: bool) -> str | None:
    """The text, where the bytes are of the encoding; a character that is cut off at the end is none of its faults."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, whole) or "empty"
    except UnicodeDecodeError:
        return None


def _common_share(head: bytes, encoding: str, whole: bool) -> float:
    """The share of common Han characters and their punctuation among those that are not ASCII."""
    text = _decodes(head, encoding, whole)
    foreign = "".join(character for character in text or "" if not character.isascii() and not character.isspace())
    if not foreign:
        return 0.0
    return float(characters.count([foreign]).share(characters.HAN, characters.PUNCTUATION)[0])
