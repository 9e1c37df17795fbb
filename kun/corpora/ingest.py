"""From rows to documents: `for raw, outcome in documents("wudao", items(rows), occurrences): ...`.

`outcome` is the document, or the Reject of the row. Equal rows give equal items.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from kun.corpora.rows import Row
from kun.records import Document, Origin, Raw, Reject
from kun.text.normal import normalise, preview, split_paragraphs, split_sentences

Split = Callable[[str], list[str]]
DIGEST_BYTES = 16
LONGEST = 2**21  # characters of a document, two long novels: the filter takes 80 bytes of memory per character


class Item(NamedTuple):
    """A row, or a piece of one: the normalised text and its hash, or the text as read and its reject."""

    origin: Origin
    text: str
    digest: bytes
    reject: Reject | None = None


def items(rows: Iterable[Row], split: Split | None = None) -> Iterator[Item]:
    """One item per row, or with `split` one per piece. Rejects: those of the reader, `empty` and `too_big`."""
    for origin, text, reject in rows:
        if reject is not None:
            yield Item(origin, preview(text), b"", reject)
            continue
        whole = normalise(text)
        pieces = split(whole) if split is not None else [whole]
        for number, piece in enumerate(pieces):
            place = origin if len(pieces) == 1 else msgspec.structs.replace(origin, piece=number)
            if len(piece) > LONGEST:
                yield Item(place, preview(piece), b"", Reject("too_big", f"a document of {len(piece):,} characters"))
            elif piece:
                yield Item(place, piece, hashlib.blake2b(piece.encode(), digest_size=DIGEST_BYTES).digest())
            else:
                yield Item(place, preview(text), b"", Reject("empty", "nothing is left of the text"))


def documents(
    subset: str, items: Iterable[Item], occurrences: Iterable[int], duplicates: Literal["drop", "keep"] = "drop"
) -> Iterator[tuple[Raw, Document | Reject]]:
    """Each item's raw record, with its document or Reject.

    `occurrences`: how often the text of each item occurred before it in the subset, as counted by kun.corpora.index.
    With duplicates="drop" the detail of the reject `duplicate` is the id of the first occurrence.
    """
    for item, occurrence in zip(items, occurrences, strict=True):
        if item.reject is not None:
            yield _rejected(subset, item, item.reject)
        elif occurrence and duplicates == "drop":
            yield _rejected(subset, item, Reject("duplicate", document_id(subset, item.digest, 0)))
        else:
            identity = document_id(subset, item.digest, occurrence)
            document = Document(id=identity, subset=subset, text=item.text, origin=item.origin)
            yield document, document


def counted(items: Iterable[Item]) -> Iterator[int]:
    """Occurrences for a corpus that is read only once, such as a sample: about 110 MB per million distinct texts."""
    counts: Counter[bytes] = Counter()
    for item in items:
        yield counts[item.digest]
        counts[item.digest] += item.digest != b""


def document_id(subset: str, digest: bytes, occurrence: int) -> str:
    """20 hexadecimal characters, for the (occurrence + 1)th text with this hash."""
    return _hash("document", subset, digest.hex(), str(occurrence))


def _rejected(subset: str, item: Item, reject: Reject) -> tuple[Raw, Reject]:
    origin = item.origin
    identity = _hash("row", subset, origin.file, str(origin.row), str(origin.piece), reject.reason)
    return Raw(id=identity, subset=subset, text=item.text, origin=origin), reject


def _hash(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def splitter(count: Callable[[str], int], max_tokens: int) -> Split:
    """A function that cuts a text into pieces of up to `max_tokens`, at paragraphs or, in a long paragraph, at
    sentences.

    It packs greedily, and never cuts a sentence: one that is too long stays a piece, which the filter rejects. `count`
    returns the number of tokens of a text.
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
