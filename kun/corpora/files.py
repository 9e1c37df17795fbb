"""The files of a corpus, and their bytes line by line: `for file in find("wudao", corpus): open_file(file)`."""

from __future__ import annotations

import glob
import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kun.config.schema import Corpus
from kun.corpora.rows import Piece
from kun.errors import InputError
from kun.records import Reject
from kun.store.substitutes import refuse

ROW_LIMIT = 16 * 2**20  # bytes; longer rows are skipped. Reading a row takes up to 16 times as much memory
BOM = b"\xef\xbb\xbf"
NO_FILE = "neither a file nor a folder, but a pipe, a device or a broken link; take it away, or put a file there"

ENDINGS = {
    "wudao": (".json",),
    "wanjuan": (".jsonl", ".tar", ".tgz"),
    "skypile": (".jsonl",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt",),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}
COMPRESSIONS = (".gz", ".zst")
PACKED = (".tar", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".lz4")  # formats whose bytes are not rows


class Meter:
    """How far a file was read, in bytes on disk, including read-ahead: `open_file` opens the file through it."""

    _file: IO[bytes] | None = None

    def open(self, path: Path) -> IO[bytes]:
        self._file = path.open("rb")
        return self._file

    @property
    def position(self) -> int:
        return 0 if self._file is None or self._file.closed else self._file.tell()


@dataclass(frozen=True)
class CorpusFile:
    """A file of a corpus, or a part of one.

    `name` is its name in records, relative to the folder, or to the fixed part of the glob. `start` and `end` are byte
    offsets at line borders, or row groups of a Parquet file; `first_row` is the number of the part's first row in the
    file. A `meter` follows the reading.
    """

    path: Path
    name: str
    start: int = 0
    end: int | None = None
    first_row: int = 0
    meter: Meter | None = field(default=None, compare=False, repr=False)


def find(name: str, corpus: Corpus) -> list[CorpusFile]:
    """The files of the corpus `name`, in the order of its paths, sorted within a path; each file once.

    A folder stands for the files in it and below with the format's endings, except hidden ones. InputError where a path
    matches nothing, or an archive that the format does not read.
    """
    compressions = COMPRESSIONS if corpus.format != "parquet" else ()
    endings = tuple(ending + more for ending in ENDINGS[corpus.format] for more in ("", *compressions))
    files = expand(corpus.paths, endings, f"corpora.{name}.paths")
    for file in files:
        file_name = file.path.name.lower()
        ending = next((ending for ending in PACKED if ending in Path(file_name).suffixes), None)
        if ending and not file_name.endswith(endings):
            raise InputError(
                f"corpora.{name}.paths: {file.path}: format {corpus.format} reads no {ending} file; unpack it first"
            )
    return files


def expand(entries: Sequence[str], endings: tuple[str, ...], setting: str) -> list[CorpusFile]:
    """The files of paths, folders (those with one of the endings) and globs. InputError names the setting."""
    bases: dict[Path, Path] = {}
    for entry in entries:
        for path, base in _expand(entry, endings, setting):
            bases.setdefault(path, base)
    if not bases:
        raise InputError(f"{setting}: no paths are given")
    names = [path.relative_to(base).as_posix() for path, base in bases.items()]
    if len(set(names)) < len(names):  # the same name under two paths: use longer ones
        common = os.path.commonpath([path.absolute().parent for path in bases])
        names = [path.absolute().relative_to(common).as_posix() for path in bases]
    # A file name need not be UTF-8, but records must be.
    return [
        CorpusFile(path, os.fsencode(name).decode("utf-8", "replace")) for path, name in zip(bases, names, strict=True)
    ]


def _expand(entry: str, endings: tuple[str, ...], setting: str) -> Iterator[tuple[Path, Path]]:
    """The files of one path, each with the folder that its name is relative to."""
    path = Path(entry)
    if path.is_file():
        yield path, path.parent
    elif path.is_dir():
        inside = sorted(_inside(path, endings, setting))
        if not inside:
            raise InputError(f"{setting}: the folder {entry} holds no file of the format ({', '.join(endings)})")
        yield from ((p, path) for p in inside)
    elif glob.has_magic(entry):
        parts = path.parts
        depth = next(number for number, part in enumerate(parts) if glob.has_magic(part))
        fixed, pattern = Path(*parts[:depth]), str(Path(*parts[depth:]))
        try:
            matches = [p for p in sorted(fixed.glob(pattern)) if p.is_file() and not _hidden(p, fixed)]
        except ValueError as error:  # such as ** next to other characters
            raise InputError(f"{setting}: {entry}: {error}") from None
        if not matches:
            raise InputError(f"{setting}: no file matches {entry}")
        yield from ((p, fixed) for p in matches)
    elif path.exists():
        raise InputError(f"{setting}: {entry}: {NO_FILE}")
    else:
        raise InputError(f"{setting}: {entry}: no such file or folder")


def _inside(folder: Path, endings: tuple[str, ...], setting: str) -> Iterator[Path]:
    """The files with one of the endings in a folder and below, except hidden ones; follows links, visits a folder once.

    InputError where such a name is not a file, or a folder cannot be read: its content would be lost silently.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{setting}: {error.filename}: {error.strerror}") from None

    visited: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(root).stat()
        new = (here.st_dev, here.st_ino) not in visited
        visited.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if new and not name.startswith("."))
        for path in (Path(root, name) for name in names if new and name.lower().endswith(endings)):
            if path.name.startswith("."):
                continue
            if not path.is_file():
                raise InputError(f"{setting}: {path}: {NO_FILE}")
            yield path


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def open_file(part: CorpusFile) -> IO[bytes]:
    """The bytes of a file or part, decompressed by its ending (.gz, .tgz, .zst). InputError where it cannot be
    opened, or is a pointer or a page in place of the file."""
    name = part.path.name.lower()
    try:
        refuse(part.path)
        file = (part.meter or Meter()).open(part.path)
        if name.endswith((".gz", ".tgz")):
            return io.BufferedReader(_Gzip(file), 2**17)
        if name.endswith(".zst"):
            return io.BufferedReader(_Zstd(file), 2**17)
        if part.end is not None:
            return io.BufferedReader(_Range(file, part.start, part.end), 2**17)
        return file
    except OSError as error:
        raise InputError(f"{part.path}: {error.strerror}") from None


class _Range(io.RawIOBase):
    """The bytes of a file from `start` to before `end`."""

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        self._file = file
        self._left = end - start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Gzip(io.RawIOBase):
    """The content of a gzip file as it arrives: reading whole blocks would lose the last one of a truncated file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._compressed = file
        self._file = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto1(buffer)

    def close(self) -> None:
        self._file.close()
        self._compressed.close()
        super().close()


# Bytes of a .zst file to unpack at a time: four may expand to 128 KiB, and the library returns all of it.
_ZSTD_BYTES = 2**10
_ZSTD_WINDOW = 2**27  # bytes kept in memory, as zstd allows without --long


class _Zstd(io.RawIOBase):
    """Concatenated Zstandard frames. EOFError where the last one is truncated, which the library's reader hides."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._new = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._file.read(_ZSTD_BYTES)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the last frame is cut")
                return 0
            self._frame = self._frame or self._new()
            self._ready = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def numbered_lines(path: Path, setting: str) -> list[tuple[int, bytes]]:
    """The lines of a small file that are not blank, with their numbers from 1. InputError names `setting`."""
    try:
        refuse(path, setting)
        data = path.read_bytes().removeprefix(BOM)
    except OSError as error:
        raise InputError(f"{setting}: {path}: {error.strerror}") from None
    return [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


BROKEN = ("truncated", "damaged")


def damaged(error: Exception) -> Reject | None:
    """The reject for an error caused by a file's content; None for any other error."""
    text = str(error).lower()
    if isinstance(error, EOFError) or (isinstance(error, tarfile.TarError) and "unexpected end" in text):
        return Reject("truncated", "the file ends too early; the rows from here on are missing")
    if isinstance(error, gzip.BadGzipFile | zlib.error | tarfile.TarError) or type(error).__name__ == "ZstdError":
        return Reject("damaged", f"{error}; the rows from here on are missing")
    return None


def lines(stream: IO[bytes], part: CorpusFile) -> Iterator[Piece]:
    """The physical lines of a file or part, split only at b"\\n", with their numbers in the file.

    A broken file ends with a Reject.
    """
    row = part.first_row
    try:
        while line := stream.readline(ROW_LIMIT + 1):
            if len(line) <= ROW_LIMIT or line.endswith(b"\n"):
                yield row, line.removeprefix(BOM) if row == 0 and part.start == 0 else line
            else:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(ROW_LIMIT)
                yield row, Reject("too_big", f"a row of more than {ROW_LIMIT:,} bytes")
            row += 1
    except Exception as error:
        if (reject := damaged(error)) is None:
            raise
        yield row, reject
