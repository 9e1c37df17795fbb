"""Near-duplicates of a subset: `build([Indexed("wanjuan", source, folder)], 0.7)`, then `judge(folder, documents)`.

In the order of subsets, shards and rows, a document is dropped if it is similar to one kept before, which its reject
names. So the first copy is kept, similarity to a dropped document does not count, the number of processes changes
nothing, and a subset added at the end does not affect those before it.

MinHash finds the candidates, and the n-grams of both texts decide: by estimates alone, pages would sometimes be
confused with others of their template.

Signatures and band keys of all documents (440 bytes each) are on disk. Memory holds, for one band at a time, 8 bytes
per document for sorting, and the documents that share a band with another.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from kun.execution.processes import map_unordered
from kun.filters.duplicates import signatures
from kun.filters.duplicates.signatures import Array, Bands
from kun.progress import Progress
from kun.records import Filtered, Reject
from kun.store import atomic, digests, shards

REASON = "near_duplicate"
CACHED = 16_384  # rows of signatures
BATCH_CHARS = 2**20  # of texts that are signed at a time
BLOCK = 2**16  # documents whose links are read at a time
COMPARED = 64  # the first kept documents of a band: thousands of pages of one template may share it
CHECKED = 8  # candidates whose texts are read, those with the highest estimates
MARGIN = 0.04  # by which an estimate may be too low, about a standard deviation
ID = "S20"  # of kun.corpora.ingest.document_id
PLACE = [("above", "u1"), ("start", "<u8"), ("size", "<u4")]  # of the line with the text: kun.store.shards.places
ROW = np.dtype([("id", ID), *PLACE, ("slots", "<u2", signatures.SLOTS)])
KEY = np.dtype("<u8")
LINK = np.dtype("<u4")
MATCH = np.dtype([("dropped", "<u8"), ("kept", "<u8"), ("similarity", "<f4")])  # the first two are positions


def judge(folder: Path, documents: Sequence[Filtered]) -> list[Filtered | Reject]:
    """Each document, or its Reject if the index in `folder` dropped it."""
    ids, matches = _dropped(folder)
    wanted = np.array([document.id.encode() for document in documents], ID)
    places = np.searchsorted(ids, wanted)
    dropped = np.append(ids, b"")[places] == wanted
    return [
        _reject(matches[place]) if is_dropped else document
        for document, place, is_dropped in zip(documents, places, dropped, strict=True)
    ]


def _reject(match: Any) -> Reject:
    kept, subset = match["kept"].decode(), match["subset"].decode()
    return Reject(REASON, f"{kept} ({subset}), similarity {match['similarity']:.2f}")


@lru_cache(maxsize=8)
def _dropped(folder: Path) -> tuple[Array, Array]:
    """The sorted ids of dropped documents, and their matches; memory-mapped, so that processes share them."""
    return np.load(folder / "dropped.npy", mmap_mode="r"), np.load(folder / "matches.npy", mmap_mode="r")


@dataclass(frozen=True)
class Indexed:
    """A subset: the folder of the step with its documents, and the folder of its index."""

    subset: str
    source: Path
    folder: Path


def build(
    subsets: list[Indexed], limit: float, workers: int = 1, progress: Progress = lambda done, total: None
) -> dict[str, int]:
    """Build the index of the last subset, for `judge`; the others have theirs, and their documents come first.

    `progress` counts documents. Signatures of an earlier call are reused where the shards are the same.
    """
    bands = signatures.bands(limit)
    source, folder = subsets[-1].source, subsets[-1].folder
    _sign_all(folder, source, bands, workers, progress)
    documents = Documents(subsets, bands)
    links = atomic.temporary_of(folder / "links")
    heads = _link(documents, bands, links)
    matches = np.fromiter(_greedy(documents, heads, links, bands, limit), MATCH)
    links.unlink()
    _write(folder, documents, matches)
    _open.cache_clear()  # the cached files and arrays are out of date now
    _up.cache_clear()
    _dropped.cache_clear()
    elsewhere = int((matches["kept"] < documents.own).sum())
    return {
        "documents": documents.count - documents.own,
        "near_duplicates": len(matches),
        "of_other_subsets": elsewhere,
    }


# Signing: for each shard `<key>-<digest of its rows>.rows` (ROW) and `.keys` (KEY, band by band), the keys last.


def _sign_all(folder: Path, source: Path, bands: Bands, workers: int, progress: Progress) -> None:
    names = dict(zip(shards.order(source), _names(source), strict=True))
    for path in (*folder.glob("*.rows"), *folder.glob("*.keys")):
        if path.stem not in names.values():
            path.unlink()
    total, done = 0, 0
    tasks = []
    for key, name in names.items():
        marker = shards.marker(source, key)
        rows = marker.kept if marker else 0
        total += rows
        if (folder / f"{name}.keys").exists():
            done += rows
        else:
            tasks.append((key, name))
    progress(done, total)
    for rows in map_unordered(partial(_sign, folder, source, bands), tasks, workers, total - done):
        done += rows
        progress(done, total)


def _names(source: Path) -> Iterator[str]:
    """The names of the files of the shards, in order."""
    for key in shards.order(source):
        files = [marker.digests["kept"] for _, marker in shards.up(source, key)]  # in which the texts have their places
        yield f"{key}-{digests.of_value(files)[:16]}"


def _sign(folder: Path, source: Path, bands: Bands, key: str, name: str) -> int:
    """Sign the documents of a shard; return their number."""
    documents = shards.read_kept(source, key, Filtered)
    rows = np.empty(len(documents), ROW)
    rows["id"] = [document.id.encode() for document in documents]
    places = np.array([*shards.places(source, key, "text")], np.int64).reshape(-1, 3)
    rows["above"], rows["start"], rows["size"] = places.T
    signed = [signatures.sign(texts) for texts in _batches(document.text for document in documents)]
    rows["slots"] = np.concatenate([np.empty((0, signatures.SLOTS), np.uint16), *signed])
    with atomic.replacing(folder / f"{name}.rows") as file:
        file.write(rows.tobytes())
    with atomic.replacing(folder / f"{name}.keys") as file:
        file.write(signatures.band_keys(rows["slots"], bands).astype(KEY).tobytes())
    return len(rows)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Chunk:
    """A file of signatures; `first` is the position of its first document among all documents."""

    indexed: Indexed
    key: str
    stem: Path
    first: int
    count: int

    def keys(self, band: int) -> Array:
        return np.fromfile(f"{self.stem}.keys", KEY, self.count, offset=band * self.count * KEY.itemsize)


@dataclass
class Documents:
    """All documents by position: those of the earlier indexes, then from `own` on those of the last."""

    subsets: list[Indexed]
    bands: Bands
    chunks: list[Chunk] = field(default_factory=list)
    count: int = 0
    own: int = 0

    def __post_init__(self) -> None:
        for indexed in self.subsets:
            self.own = self.count
            for key, name in zip(shards.order(indexed.source), _names(indexed.source), strict=True):
                stem = indexed.folder / name
                rows = stem.with_suffix(".rows").stat().st_size // ROW.itemsize
                self.chunks.append(Chunk(indexed, key, stem, self.count, rows))
                self.count += rows
        self._firsts = [chunk.first for chunk in self.chunks]
        self.row = lru_cache(maxsize=CACHED)(self._row)
        self.grams = lru_cache(maxsize=1024)(self._grams)

    def gone(self) -> Array:
        """Which of the earlier documents were dropped."""
        gone = np.zeros(self.own, bool)
        for indexed in self.subsets[:-1]:
            first = next((chunk.first for chunk in self.chunks if chunk.indexed == indexed), 0)
            gone[first + np.load(indexed.folder / "matches.npy")["row"].astype(np.int64)] = True
        return gone

    def chunk(self, position: int) -> Chunk:
        return self.chunks[bisect_right(self._firsts, position) - 1]

    def _row(self, position: int) -> bytes:
        chunk = self.chunk(position)
        file = _open(Path(f"{chunk.stem}.rows"))
        return os.pread(file.fileno(), ROW.itemsize, (position - chunk.first) * ROW.itemsize)

    def rows(self, positions: Iterable[int]) -> Array:
        return np.frombuffer(b"".join(map(self.row, positions)), ROW)

    def _grams(self, position: int) -> Array:
        row = self.rows([position])[0]
        chunk = self.chunk(position)
        path, _ = _up(chunk.indexed.source, chunk.key)[int(row["above"])]
        line = os.pread(_open(path).fileno(), int(row["size"]), int(row["start"]))
        return signatures.gram_set(msgspec.json.decode(line, type=_Text).text)


class _Text(msgspec.Struct):
    text: str


_up = lru_cache(maxsize=2**16)(shards.up)


@lru_cache(maxsize=256)
def _open(path: Path) -> BinaryIO:
    return path.open("rb")


@dataclass(frozen=True)
class Heads:
    """The kept documents of each group, that is, of the documents that share a key; groups are numbered from 1."""

    first: array[int]  # position + 1, by group
    further: dict[int, list[int]]  # positions

    def add(self, group: int, position: int) -> None:
        if not self.first[group]:
            self.first[group] = position + 1
        elif len(further := self.further.setdefault(group, [])) < COMPARED - 1:
            further.append(position)

    def of(self, groups: Iterable[int]) -> set[int]:
        positions = {self.first[group] - 1 for group in groups}
        positions.discard(-1)
        for group in groups:
            positions.update(self.further.get(group, ()))
        return positions


def _link(documents: Documents, bands: Bands, links: Path) -> Heads:
    """Write to `links`, band by band, the group of each own document, or 0 where no other document has its key.

    Returns the groups with their earlier documents, all of which are kept.
    """
    bits = np.uint64(documents.count.bit_length())
    gone = np.concatenate((documents.gone(), np.zeros(documents.count - documents.own, bool)))
    groups = 0
    before: list[tuple[Array, Array]] = []
    with links.open("wb") as file:
        for band in range(bands.count):
            packed = _sorted_keys(documents, band, gone, bits)
            group, position = _shared(packed, bits, documents.own)
            own = position >= documents.own
            link = np.zeros(documents.count - documents.own, LINK)
            link[position[own] - documents.own] = group[own] + groups + 1
            link.tofile(file)
            before.append((group[~own] + groups + 1, position[~own]))
            groups += int(group[-1]) + 1 if len(group) else 0
    heads = Heads(array("Q", bytes(8 * (groups + 1))), {})
    for group, position in before:
        for number, place in zip(group.tolist(), position.tolist(), strict=True):
            heads.add(number, place)
    return heads


def _sorted_keys(documents: Documents, band: int, gone: Array, bits: Any) -> Array:
    """Key and position of each candidate document, packed into a number: high bits of the key, then the position.

    Keys that differ only in their low bits cost a needless comparison.
    """
    packed = np.empty(documents.count, np.uint64)
    count = 0
    for chunk in documents.chunks:
        keys = chunk.keys(band)
        here = np.flatnonzero((keys != 0) & ~gone[chunk.first : chunk.first + chunk.count])
        packed[count : count + len(here)] = (keys[here] >> bits << bits) | (here + chunk.first).astype(np.uint64)
        count += len(here)
    packed = packed[:count]
    packed.sort()
    return packed


def _shared(packed: Array, bits: Any, own: int) -> tuple[Array, Array]:
    """Group (from 0) and position of each document in a group of two or more with at least one own document."""
    same = (packed[1:] ^ packed[:-1]) < np.uint64(1) << bits
    if not same.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = np.concatenate(([True], ~same))
    member = ~first
    member[:-1] |= same
    position = (packed[member] & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    first = first[member]
    group = first.cumsum() - 1
    last = position[np.append(np.flatnonzero(first)[1:], len(first)) - 1]
    wanted = last >= own
    number = wanted.cumsum() - 1
    return number[group[wanted[group]]], position[wanted[group]]


def _greedy(
    documents: Documents, heads: Heads, links: Path, bands: Bands, limit: float
) -> Iterator[tuple[int, int, float]]:
    """Go through the own documents in order: each is dropped, and yielded as a MATCH, or becomes a head of its
    groups."""
    own = documents.count - documents.own
    for start in range(0, own, BLOCK):
        size = min(BLOCK, own - start)
        block = np.stack(
            [np.fromfile(links, LINK, size, offset=(band * own + start) * LINK.itemsize) for band in range(bands.count)]
        )
        for place in np.flatnonzero(block.any(axis=0)).tolist():
            column = block[:, place]
            groups = column[column > 0].tolist()
            position = documents.own + start + place
            if match := _match(documents, position, heads.of(groups), limit):
                yield position, *match
            else:
                for group in groups:
                    heads.add(group, position)


def _match(documents: Documents, position: int, candidates: set[int], limit: float) -> tuple[int, float] | None:
    """The first candidate, by descending estimate, that is similar enough, and its similarity."""
    if not candidates:
        return None
    order = np.array(sorted(candidates))
    equal = (documents.rows(order.tolist())["slots"] == documents.rows([position])["slots"]).sum(axis=1)
    best = (-equal).argsort(kind="stable")[:CHECKED]
    for candidate in order[best[equal[best] >= (limit - MARGIN) * signatures.SLOTS]].tolist():
        similarity = signatures.similarity(documents.grams(position), documents.grams(candidate))
        if similarity >= limit:
            return candidate, similarity
    return None


def _write(folder: Path, documents: Documents, matches: Array) -> None:
    """Write `dropped.npy` (ids) and `matches.npy` (row in the subset, id and subset of the kept one, similarity)."""
    subset = f"S{max(len(indexed.subset) for indexed in documents.subsets)}"
    ids = np.empty(len(matches), ID)
    table = np.empty(len(matches), [("row", "<u8"), ("kept", ID), ("subset", subset), ("similarity", "<f4")])
    table["row"], table["similarity"] = matches["dropped"] - documents.own, matches["similarity"]
    for place, (position, kept, _) in enumerate(matches.tolist()):
        ids[place], table[place]["kept"] = documents.rows([position, kept])["id"]
        table[place]["subset"] = documents.chunk(kept).indexed.subset.encode()
    order = ids.argsort()
    for name, content in (("dropped.npy", ids[order]), ("matches.npy", table[order])):
        with atomic.replacing(folder / name) as file:
            np.save(file, content)
