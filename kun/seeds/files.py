"""The rows of seed files, in whatever form people have them: `for item in read_items("seeds.csv", settings): ...`.

A source is a file, a folder or a glob of files (JSON lines, a JSON array or document, CSV, TSV, Parquet; texts also .gz
and .zst), a folder that the datasets library has saved, or `owner/name` of a data set in the local hub cache. JSON is
told by its content, tables by the ending. What cannot be read for certain is an InputError.
"""

from __future__ import annotations

import glob
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from kun.config.schema import Seeds
from kun.corpora import arrays
from kun.corpora.files import COMPRESSIONS, PACKED, ROW_LIMIT, CorpusFile, damaged, expand, lines, open_file
from kun.errors import InputError
from kun.records import Reject
from kun.seeds.encodings import WrongEncodingError, find_encoding, utf8
from kun.seeds.pairs import Fault, Reason
from kun.seeds.tables import BrokenTableError, delimiter_of, is_quoted, read_csv, read_parquet, read_tsv
from kun.store.digests import Digests, of_value
from kun.text.normal import preview

SETTING = "seeds.pairs"
ENDINGS = (
    ".parquet",
    *(e + more for e in (".jsonl", ".ndjson", ".json", ".csv", ".tsv") for more in ("", *COMPRESSIONS)),
)
HEAD = 2**20  # bytes that tell the encoding and the form
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_log = logging.getLogger(__name__)


class Item(NamedTuple):
    """A row of a file; `line` counts from 1: lines, elements of an array, rows of a table."""

    file: str
    line: int
    value: Any


def read_items(source: str, settings: Seeds, setting: str = SETTING) -> Iterator[Item]:
    """The rows of a source, in order; a Fault in place of a value that cannot be read."""
    if is_saved_dataset(source) or _is_hub_name(source):
        for number, row in enumerate(_dataset_rows(source, settings, setting), start=1):
            yield Item(source, number, row)
        return
    files = expand([source], ENDINGS, setting)
    for found in files:
        name = source if len(files) == 1 else str(found.path)
        try:
            for number, value in _rows(found, settings, setting):
                yield Item(name, number, value)
        except BrokenTableError as error:
            raise InputError(f"{setting}: {found.path}: {error}") from None
        except WrongEncodingError as error:
            raise InputError(
                f"{setting}: {found.path}: is not {error} to its end; name its encoding in seeds.encoding"
            ) from None
        except Exception as error:
            if (reject := damaged(error)) is not None:
                raise _broken(setting, found, reject) from None
            raise


def digest(source: str, digests: Digests, setting: str = SETTING) -> str:
    """The digest of a source by its content."""
    if _is_hub_name(source):
        return digests.path(_snapshot(source, setting), setting)
    if not Path(source).exists() and glob.has_magic(source):
        return of_value(digests.files([found.path for found in expand([source], ENDINGS, setting)], setting))
    return digests.path(source, setting)


def is_saved_dataset(source: str) -> bool:
    """Whether this is a folder that `save_to_disk` of the datasets library has made."""
    return any((Path(source) / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _rows(found: CorpusFile, settings: Seeds, setting: str) -> Iterator[tuple[int, Any]]:
    name = found.path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    if (ending := Path(name).suffix) in (*PACKED, ".xlsx", ".xls", ".docx", ".pdf"):
        remedy = "save the sheet as CSV (UTF-8)" if ending.startswith(".xls") else "unpack it, or save it as JSON lines"
        raise InputError(f"{setting}: {found.path}: Kun does not read {ending} files of seeds; {remedy}")
    with closing(open_file(found)) as stream:
        head = stream.read(HEAD)
    if head.startswith(b"PAR1"):
        yield from read_parquet(found.path)
        return
    if not head:
        return
    encoding = settings.encoding or _encoding(head, found, setting)
    text = head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    if name.endswith((".csv", ".tsv")):
        yield from _table(found, encoding, name.endswith(".tsv"), text, settings.header, setting)
    elif text.startswith("["):
        with closing(_open(found, encoding)) as stream:
            yield from _decoded(arrays.elements(stream), found, setting)
    elif (document := _document(found, encoding, text)) is not None:
        yield from enumerate(document, start=1)
    else:
        with closing(_open(found, encoding)) as stream:
            filled = (
                (number, line) for number, line in lines(stream, found) if isinstance(line, Reject) or line.strip()
            )
            yield from _decoded(filled, found, setting)


def _encoding(head: bytes, found: CorpusFile, setting: str) -> str:
    encoding, told = find_encoding(head, whole=len(head) < HEAD)
    if encoding is None:
        raise InputError(
            f"{setting}: {found.path}: is not UTF-8, nor certainly of any other encoding; name its own in "
            "seeds.encoding (Chinese files of Windows: gb18030; traditional ones: big5; Western ones: cp1252), or "
            "save it as UTF-8"
        )
    if told:
        _log.warning("%s: %s %s; if that is wrong, set seeds.encoding", setting, found.path, told)
    return encoding


def _open(found: CorpusFile, encoding: str) -> IO[bytes]:
    return utf8(open_file(found), encoding)


def _table(found: CorpusFile, encoding: str, tabs: bool, head: str, header: bool, setting: str) -> Iterator[Any]:
    quoted = True
    if tabs:
        with closing(_open(found, encoding)) as stream:
            quoted = is_quoted(lines(stream, found))
    with closing(_open(found, encoding)) as stream:
        source = lines(stream, found)
        rows = read_csv(source, "\t" if tabs else delimiter_of(head), header) if quoted else read_tsv(source, header)
        for number, value in rows:
            yield number, _fault(value, found, setting) if isinstance(value, Reject) else value


def _document(found: CorpusFile, encoding: str, head: str) -> list[Any] | None:
    """The rows of one JSON document over several lines: its one list, such as `data`, or itself; None for lines."""
    if not head.startswith("{") or _loads(head.split("\n", 1)[0].encode("utf-8", "surrogateescape")) is not None:
        return None
    with closing(_open(found, encoding)) as stream:
        whole = stream.read(ROW_LIMIT + 1)
    document = _loads(whole) if len(whole) <= ROW_LIMIT else None
    if not isinstance(document, dict):
        return None
    lists = [value for value in document.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return lists[0] if len(document) == 1 and lists else [document]


def _decoded(pieces: Iterable[tuple[int, bytes | Reject]], found: CorpusFile, setting: str) -> Iterator[Any]:
    for number, data in pieces:
        yield number + 1, _fault(data, found, setting) if isinstance(data, Reject) else decode(data)


def _fault(reject: Reject, found: CorpusFile, setting: str) -> Fault:
    """A row that cannot be read. InputError where the file is broken from here on."""
    if reject.reason not in ("not_json", "not_csv", "not_utf8", "too_big"):
        raise _broken(setting, found, reject)
    return Fault(cast(Reason, reject.reason), reject.detail)


def decode(data: bytes) -> Any:
    """The value of a row of JSON, or the Fault. NaN, which Python writes for what is missing, is null."""
    try:
        return msgspec.json.decode(data)
    except UnicodeDecodeError as error:
        return Fault("not_utf8", f"{error.reason} at byte {error.start}; if the file is in another, set seeds.encoding")
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        value = _loads(data)
        return Fault("not_json", str(error)) if value is None else value


def _loads(data: bytes) -> Any:
    """The value of JSON as Python reads it; None where it is none, or has characters that cannot be written."""
    try:
        value = json.loads(data, strict=False, parse_constant=lambda name: None)
        msgspec.json.encode(value)
    except (ValueError, RecursionError, TypeError):
        return None
    return value


def _dataset_rows(source: str, settings: Seeds, setting: str) -> Iterator[Any]:
    """The rows of a saved folder, or of a data set in the hub cache: its split `seeds.dataset.split`, or `train`."""
    import datasets

    options = dict(settings.dataset)
    split = options.pop("split", None)
    datasets.disable_progress_bars()
    try:
        if is_saved_dataset(source):
            loaded = datasets.load_from_disk(source)
        else:
            loaded = datasets.load_dataset(str(_snapshot(source, setting)), **options)
    except InputError:
        raise
    except Exception as error:  # the library raises anything
        told = preview(" ".join(str(error).split()), 400)
        raise InputError(
            f"{setting}: {source}: the datasets library cannot load it ({told}); see seeds.dataset"
        ) from None
    if isinstance(loaded, dict):
        name = str(split or ("train" if "train" in loaded else next(iter(loaded))))
        if name not in loaded or (split is None and name != "train" and len(loaded) > 1):
            raise InputError(
                f"{setting}: {source}: which split? It has {', '.join(map(str, loaded))}; set seeds.dataset.split"
            )
        loaded = loaded[name]
    yield from loaded


def _is_hub_name(source: str) -> bool:
    return HUB_NAME.fullmatch(source) is not None and not Path(source).exists() and not source.endswith(ENDINGS)


def _snapshot(name: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        raise InputError(
            f"{setting}: {name} is neither a file or folder nor a data set in the local hub cache; "
            f"`hf download --repo-type dataset {name}`"
        ) from None


def _broken(setting: str, found: CorpusFile, reject: Reject) -> InputError:
    return InputError(f"{setting}: {found.path}: {reject.reason}: {reject.detail}; mend the file, or get it again")
