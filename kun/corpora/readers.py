"""One reader per format, from a file to its rows: `read_part("wudao", corpus, file)`."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Self, cast

from kun.config.schema import Corpus
from kun.corpora import arrays
from kun.corpora.files import BROKEN, ROW_LIMIT, CorpusFile, damaged, lines, open_file
from kun.corpora.rows import Piece, Row, text_field, unusable
from kun.corpora.tables import delimiter_of, table_rows
from kun.errors import InputError
from kun.records import Origin, Reject
from kun.store.substitutes import refuse
from kun.text.normal import preview

Reader = Callable[[CorpusFile, str], Iterator[Row]]


def read_array(found: CorpusFile, field: str) -> Iterator[Row]:
    """One JSON array of objects (WuDao)."""
    with open_file(found) as stream:
        yield from _objects(arrays.elements(stream), found.name, field)


def read_lines(found: CorpusFile, field: str) -> Iterator[Row]:
    """One JSON object per line (SkyPile, WanJuan), blank lines counted but skipped; or, by its beginning, an array."""
    if arrays.is_array(found):
        yield from read_array(found, field)
        return
    with open_file(found) as stream:
        yield from _objects(filled_lines(stream, found), found.name, field)


def read_lines_or_tar(found: CorpusFile, field: str) -> Iterator[Row]:
    """JSON lines, or an archive of such files (WanJuan), read as a stream: nothing is extracted.

    Rows of an archive have the origin `archive.tar.gz/member`. Links, devices, sparse files and members whose path
    leaves the archive are rejected; files other than `.jsonl` are skipped.
    """
    if not found.path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.zst")):
        yield from read_lines(found, field)
        return
    member_name, here = found.name, 0
    with open_file(found) as stream:
        try:
            with tarfile.open(
                fileobj=cast(IO[bytes], _Ending(stream)), mode="r|", errorlevel=1, tarinfo=_Member
            ) as archive:
                for member in iter(archive.next, None):
                    archive.members.clear()  # type: ignore[attr-defined] # a million of them take a gigabyte
                    member_name, here = f"{found.name}/{preview(member.name, 1000)}", 0
                    path = PurePosixPath(member.name)
                    if member.isdir() or (member.isreg() and not _wanted(path)):
                        continue
                    if not member.isreg() or member.issparse() or path.is_absolute() or ".." in path.parts:
                        why = "a link, a device, a sparse file, or a path outside the archive"
                        yield Row(Origin(member_name, 0), "", Reject("unsafe_member", why))
                        continue
                    data = archive.extractfile(member)
                    assert data is not None  # it is a regular file
                    for row in _objects(filled_lines(data, CorpusFile(found.path, member_name)), member_name, field):
                        here = row.origin.row + 1
                        yield row
                        if row.reject is not None and row.reject.reason in BROKEN:
                            return  # the archive is at fault, not the member
                while rest := archive.fileobj.read(2**20):  # type: ignore[union-attr]
                    if rest.strip(b"\0"):
                        more = Reject("damaged", "there is more after the end of the archive; it is not read")
                        yield Row(Origin(found.name, 0), "", more)
                        return
        except Exception as error:
            if (reject_file := damaged(error)) is None:
                raise
            yield Row(Origin(member_name, here), "", reject_file)


class _Member(tarfile.TarInfo):
    """A member whose broken header is an error; tarfile would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Self:
        """Raise an error for a broken or missing header, but leave the end mark, a block of zeros, to tarfile."""
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.HeaderError, ValueError) as error:  # ValueError: malformed numbers
            if len(buf) < tarfile.BLOCKSIZE:
                raise EOFError("the archive ends without its mark") from None
            if buf.count(0) == tarfile.BLOCKSIZE:
                raise
            raise tarfile.ReadError(f"a broken header: {preview(str(error))}") from None

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        """tarfile's hook for subclasses. Limit headers of names and attributes, which are read into memory."""
        if self.size > _HEADER_LIMIT and self.type in _HEADERS:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        try:
            return super()._proc_member(archive)  # type: ignore[misc, no-any-return]
        except (ValueError, IndexError, KeyError) as error:  # malformed attributes
            raise tarfile.ReadError(f"a broken header: {preview(str(error))}") from None


_HEADER_LIMIT = 2**20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Ending:
    """A stream that raises an error if it is read on and on at its end: tarfile would read up to a member's declared
    size, which may be 8 EB."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._ends = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._ends += not data
        if self._ends > 100:
            raise EOFError("the archive ends inside a member")
        return data


def _wanted(path: PurePosixPath) -> bool:
    return path.suffix.lower() == ".jsonl" and not path.name.startswith(".")


def read_text(found: CorpusFile, field: str) -> Iterator[Row]:
    """Plain text: documents are separated by blank lines, and numbered by their first line."""
    with open_file(found) as stream:
        for origin, block in _blocks(stream, found):
            if isinstance(block, Reject):
                yield Row(origin, "", block)
                continue
            try:
                yield Row(origin, block.decode("utf-8"))
            except UnicodeDecodeError as error:
                detail = f"invalid byte 0x{block[error.start]:02x} at byte {error.start} of the document"
                yield unusable(origin, block, Reject("not_utf8", detail))


def _blocks(stream: IO[bytes], found: CorpusFile) -> Iterator[tuple[Origin, bytes | Reject]]:
    block = bytearray()  # a list would take 40 bytes more per line
    first, size = 0, 0
    too_big = Reject("too_big", f"a document of more than {ROW_LIMIT:,} bytes")
    for row, line in lines(stream, found):
        if isinstance(line, bytes) and line.strip():
            if not size:
                first = row
            size += len(line)
            if size <= ROW_LIMIT:
                block += line
            continue
        if size:
            yield Origin(found.name, first), bytes(block) if size <= ROW_LIMIT else too_big
            block, size = bytearray(), 0
        if isinstance(line, Reject):
            yield Origin(found.name, row), line
    if size:
        yield Origin(found.name, first), bytes(block) if size <= ROW_LIMIT else too_big


def read_table(found: CorpusFile, field: str) -> Iterator[Row]:
    """A column of a CSV or TSV file, whose first row names the columns. Rows are numbered by their first line."""
    names: list[str] | None = None
    with open_file(found) as stream:
        for line, cells, data in table_rows(lines(stream, found), delimiter_of(found.path)):
            origin = Origin(found.name, line)
            if isinstance(cells, Reject):
                yield unusable(origin, b"".join(data), cells)
            elif names is None:
                names = cells
                if names.count(field) != 1:
                    yield Row(origin, "", _no_column(field, names))
                    return
            elif len(cells) != len(names):
                detail = f"{len(cells)} cells, and {len(names)} columns; a cell with a delimiter in it must be quoted"
                yield unusable(origin, b"".join(data), Reject("not_csv", detail))
            else:
                yield Row(origin, cells[names.index(field)])


def _no_column(field: str, names: list[str]) -> Reject:
    found = f"{names.count(field)} columns are named" if field in names else "no column"
    return Reject("no_field", preview(f"{found} {field!r}; columns: {', '.join(names) or 'none'}"))


def read_parquet(found: CorpusFile, field: str) -> Iterator[Row]:
    """A column of a Parquet file, or `outer.inner` of a column of structs, or of some of its row groups, batch by
    batch."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    row = found.first_row
    try:
        # Page by page: a row group may have gigabytes.
        with pq.ParquetFile(found.path, pre_buffer=False, buffer_size=2**20) as file:
            kind, inner = _column(file.schema_arrow, field)
            if kind is None:
                yield Row(Origin(found.name, 0), "", _no_column(field, file.schema_arrow.names))
                return
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                yield Row(Origin(found.name, 0), "", Reject("not_text", f"the column {field!r} holds {kind}"))
                return
            groups = range(found.start, file.num_row_groups if found.end is None else found.end)
            declared = rows_of_groups(file, found.path.stat().st_size)
            end = row + sum(declared[number] for number in groups)
            for batch in file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=[field]):
                column = batch.column(0)
                for name in inner:
                    column = pc.struct_field(column, name)
                column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                # As bytes: a text that is not UTF-8 would fail the whole batch.
                for value in column.cast(pa.large_binary()).slice(0, max(end - row, 0)):
                    yield _cell(Origin(found.name, row), value.as_py(), field)
                    row += 1
            if row != end:
                raise ValueError(f"it declares {end:,} rows, and has {row:,}")
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None):  # an error of the system, such as a failing disk, not of the file
            raise
        yield Row(Origin(found.name, row), "", Reject("damaged", preview(f"no whole Parquet file: {error}")))


def _column(schema: Any, field: str) -> tuple[Any, list[str]]:
    """The type of the one column of this name, and the names that lead to it inside a column of structs; or None."""
    import pyarrow as pa

    name, inner = (
        (field, []) if field in schema.names or "." not in field else (field.split(".")[0], field.split(".")[1:])
    )
    if schema.names.count(name) != 1:
        return None, []
    kind = schema.field(name).type
    for name in inner:
        if not pa.types.is_struct(kind) or len(kind.get_all_field_indices(name)) != 1:
            return None, []
        kind = kind.field(name).type
    return kind, inner


_BATCH = 16  # rows: with a dictionary all of them may be one long text
# A column of nulls, or of one text, can hold billions of rows in a few bytes; no corpus exceeds both limits.
_ROWS, _ROWS_PER_BYTE = 2**24, 100


def rows_of_groups(file: Any, size: int) -> list[int]:
    """The number of rows of each row group, by the footer of a `pyarrow.parquet.ParquetFile` of `size` bytes.

    ValueError where the footer contradicts itself, or declares more than any corpus has; pyarrow does not check it.
    """
    rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows:
        raise ValueError(f"it declares {file.metadata.num_rows:,} rows, and its row groups {sum(rows):,}")
    if sum(rows) > max(_ROWS, _ROWS_PER_BYTE * size):
        raise ValueError(f"it declares {sum(rows):,} rows in {size:,} bytes; none is read")
    return rows


def _cell(origin: Origin, value: bytes | None, field: str) -> Row:
    if value is None:
        return Row(origin, "", Reject("not_text", f"the column {field!r} holds null"))
    if len(value) > ROW_LIMIT:
        return Row(origin, "", Reject("too_big", f"a row of more than {ROW_LIMIT:,} bytes"))
    try:
        return Row(origin, value.decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"invalid byte 0x{value[error.start]:02x} at byte {error.start} of the row"
        return unusable(origin, value, Reject("not_utf8", detail))


def filled_lines(stream: IO[bytes], found: CorpusFile) -> Iterator[Piece]:
    """The lines that are not blank, and the Reject of a broken file."""
    return ((row, line) for row, line in lines(stream, found) if isinstance(line, Reject) or line.strip())


def _objects(pieces: Iterable[Piece], name: str, field: str) -> Iterator[Row]:
    text_of = text_field(field)
    for number, data in pieces:
        origin = Origin(name, number)
        if isinstance(data, Reject):
            yield Row(origin, "", data)
            continue
        text = text_of(data)
        yield Row(origin, text) if isinstance(text, str) else unusable(origin, data, text)


READERS: dict[str, tuple[Reader, str]] = {  # each with the default name of the text field
    "wudao": (read_array, "content"),
    "wanjuan": (read_lines_or_tar, "content"),
    "skypile": (read_lines, "text"),
    "jsonl": (read_lines, "text"),
    "text": (read_text, ""),
    "csv": (read_table, "text"),
    "parquet": (read_parquet, "text"),
}


def read_part(subset: str, corpus: Corpus, part: CorpusFile) -> Iterator[Row]:
    """The rows of a file of the corpus, or of a part of one. InputError where it cannot be opened."""
    reader, field = READERS[corpus.format]
    try:
        refuse(part.path, f"corpora.{subset}.paths")
        yield from reader(part, corpus.field or field)
    except OSError as error:
        raise InputError(f"corpora.{subset}.paths: {part.path}: {error.strerror or error}") from None
