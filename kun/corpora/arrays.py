"""The elements of a huge JSON array, in constant memory: `for row, data in elements(stream): decode(data)`.

It looks only at brackets, commas and the borders of strings; each element is decoded by itself. So a broken element
costs one row, where an event parser would lose the rest of the file, and hostile nesting costs no more than a counter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO

from kun.corpora import files
from kun.corpora.rows import Piece
from kun.records import Reject

_CHUNK = 2**20
_BLANK = b" \t\r\n"
# A whole string; a single bracket, comma, or quote of a string that is cut off; a run of anything else.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},"]|[^\[\]{},"]++', re.DOTALL)


def is_array(found: files.CorpusFile) -> bool:
    """Whether a file of JSON holds one array of objects, by its beginning, and not an object per line."""
    if found.start or found.end is not None:
        return False
    try:
        with files.open_file(found) as stream:
            head = stream.read(2**16).removeprefix(files.BOM)
    except Exception as error:
        if files.damaged(error) is None:
            raise
        return False  # the reader tells what is damaged
    return re.match(rb"\s*\[\s*(\{|\]|\Z)", head) is not None and not _is_whole(head.strip().split(b"\n")[0], head)


def _is_whole(line: bytes, head: bytes) -> bool:
    """Whether the first line is an array by itself, with more below it."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return len(line) < len(head.strip())


def elements(stream: IO[bytes]) -> Iterator[Piece]:
    """Number and bytes of each element of the array; a broken array ends with a Reject."""
    row = 0
    try:
        for data in _elements(stream):
            yield row, data
            row += 1
    except Exception as error:
        if (reject := files.damaged(error)) is None:
            raise
        yield row, reject


def _elements(stream: IO[bytes]) -> Iterator[bytes | Reject]:
    buffer = _read(stream, _CHUNK).removeprefix(files.BOM).lstrip(_BLANK)
    if not buffer.startswith(b"["):
        content = "an empty file" if not buffer else f"begins with {buffer[:1]!r}"
        yield Reject("not_array", f"one JSON array is expected; {content}. For JSON lines use format jsonl")
        return
    depth, start, position = 0, 1, 1  # `start` of the current element; the buffer is scanned up to `position`
    empty = True  # no element yet: "[]" has none
    forgotten = False  # the current element is too big, and its bytes were discarded
    too_big = Reject("too_big", f"a row of more than {files.ROW_LIMIT:,} bytes")
    while True:
        for token in _TOKEN.finditer(buffer, position):
            mark = buffer[token.start()]
            if mark == 0x22 and token.end() - token.start() == 1:
                break  # the string goes on in the next chunk
            position = token.end()
            if mark in b"{[":
                depth += 1
            elif mark in b"}]":
                depth -= 1
                if depth < 0:
                    last = buffer[start : token.start()].strip(_BLANK)
                    if forgotten or last or not empty:
                        yield too_big if forgotten or len(last) > files.ROW_LIMIT else last
                    if buffer[position:].strip(_BLANK) or _read(stream, _CHUNK).strip(_BLANK):
                        yield Reject("not_json", "there is more after the end of the array; it is not read")
                    return
            elif mark == 0x2C and depth == 0:
                element = buffer[start : token.start()].strip(_BLANK)
                yield too_big if forgotten or len(element) > files.ROW_LIMIT else element
                start, empty, forgotten = position, False, False
        if len(buffer) - start > files.ROW_LIMIT:
            forgotten, start = True, position
            if (
                len(buffer) - start > files.ROW_LIMIT
            ):  # of a string keep only that it goes on, and a half escape at its end
                half = len(buffer) - len(buffer.rstrip(b"\\"))
                buffer, start, position = b'"' + b"\\" * (half % 2), 0, 0
        buffer, position, start = buffer[start:], position - start, 0
        more = _read(stream, max(_CHUNK, len(buffer)))  # doubling: a long string is scanned only twice
        if not more:
            yield Reject("truncated", "the array does not end; the rows from here on are missing")
            return
        buffer += more


def _read(stream: IO[bytes], size: int) -> bytes:
    """Like `stream.read`, but returns what precedes damaged data, and raises the error at the next call."""
    pieces: list[bytes] = []
    while size > 0:
        try:
            piece = stream.read1(size)  # type: ignore[attr-defined]
        except Exception:
            if pieces:
                break
            raise
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
