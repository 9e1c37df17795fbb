"""From rows to documents: `for raw, outcome in documents("wudao", read("wudao", corpus), duplicates="drop"): ...`.

`outcome` is the document, or the Reject of the row. The same rows give the same items: on resume the rows are read
again, items that are already published are passed over, and what is known of duplicates is as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from kun.corpora.rows import Row
from kun.records import Document, Origin, Raw, Reject
from kun.text import normalise, preview, split_paragraphs, split_sentences

Split = Callable[[str], list[str]]


def documents(
    subset: str, rows: Iterator[Row], *, duplicates: Literal["drop", "keep"] = "drop", split: Split | None = None
) -> Iterator[tuple[Raw, Document | Reject]]:
    """Each row's raw record with the document or the Reject that it became; with `split`, one item for each piece.

    Rejects are those of the reader, `empty`, and with duplicates="drop" `duplicate`, whose detail is the id of the
    first. About 110 MB of memory per million different texts (16 bytes of hash each, in a dict).
    """
    seen: dict[bytes, int] = {}  # hash of a text -> how often it came
    for origin, text, reject in rows:
        if reject is not None:
            yield _rejected(subset, origin, preview(text), reject)
            continue
        whole = normalise(text)
        pieces = split(whole) if split is not None else [whole]
        for number, piece in enumerate(pieces):
            at = origin if len(pieces) == 1 else msgspec.structs.replace(origin, piece=number)
            if not piece:
                yield _rejected(subset, at, preview(text), Reject("empty", "nothing is left of the text"))
                continue
            digest = hashlib.blake2b(piece.encode(), digest_size=16).digest()
            occurrence = seen.get(digest, 0)
            seen[digest] = occurrence + 1
            if occurrence and duplicates == "drop":
                yield _rejected(subset, at, piece, Reject("duplicate", document_id(subset, digest, 0)))
                continue
            document = Document(id=document_id(subset, digest, occurrence), subset=subset, text=piece, origin=at)
            yield document, document


def document_id(subset: str, digest: bytes, occurrence: int) -> str:
    """20 hexadecimal characters for the text with this hash, when it comes for the (occurrence + 1)th time."""
    return _hash("document", subset, digest.hex(), str(occurrence))


def _rejected(subset: str, origin: Origin, text: str, reject: Reject) -> tuple[Raw, Reject]:
    name = _hash("row", subset, origin.file, str(origin.row), str(origin.piece), reject.reason)
    return Raw(id=name, subset=subset, text=text, origin=origin), reject


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def splitter(count: Callable[[str], int], max_tokens: int) -> Split:
    """Cuts a text of more than `max_tokens` tokens at paragraphs, a long paragraph at sentences, and packs greedily.

    No sentence is cut: one that is too long by itself stays a piece, for the filter to reject. `count` gives the
    tokens of a text.
    """

    def split(text: str) -> list[str]:
        if count(text) <= max_tokens:
            return [text]
        pieces: list[str] = []
        piece, filled = "", 0
        for unit in _units(text, count, max_tokens):
            tokens = count(unit)
            if piece and filled + tokens > max_tokens:
                pieces.append(piece)
                piece, filled = "", 0
            piece, filled = piece + unit, filled + tokens
        return [kept for kept in (normalise(piece) for piece in [*pieces, piece]) if kept] or [""]

    return split


def _units(text: str, count: Callable[[str], int], max_tokens: int) -> Iterator[str]:
    for paragraph in split_paragraphs(text):
        if count(paragraph) <= max_tokens:
            yield paragraph
        else:
            yield from split_sentences(paragraph)
