"""Parquet files whose footer says something else than what is in them, or more than any corpus has."""

import re
import struct
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun.config.schema import Corpus
from kun.corpora import evaluation, read_corpus
from kun.corpora.files import CorpusFile
from kun.corpora.units import cut
from kun.errors import InputError
from tests.corpora.test_bombs import growth

ROWS = 100_003  # a number that comes nowhere else in the footer
NUMBERS = range(4)  # rows of the file and values of the column, in both of its places, then rows of the group
HUGE = 10**9


def varint(number):
    """As Thrift's compact protocol has a number."""
    number = 2 * number if number >= 0 else -2 * number - 1
    data = b""
    while number > 127:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def declare(path, numbers):
    """Rewrite numbers in the footer of a file of one group of ROWS rows."""
    data = path.read_bytes()
    (size,) = struct.unpack("<I", data[-8:-4])
    pieces = data[-8 - size : -8].split(varint(ROWS))
    assert len(pieces) == len(NUMBERS) + 1
    footer = pieces[0] + b"".join(varint(numbers.get(n, ROWS)) + piece for n, piece in enumerate(pieces[1:]))
    path.write_bytes(data[: -8 - size] + footer + struct.pack("<I", len(footer)) + b"PAR1")


@pytest.fixture(params=["texts", "nulls"])
def path(tmp_path, request):
    texts = pa.nulls(ROWS, pa.string()) if request.param == "nulls" else pa.array([f"文{n}" for n in range(ROWS)])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", write_statistics=False, store_schema=False)
    return tmp_path / "a.parquet"


def rows(path):
    """How many rows are read, and what is said of the file."""
    found = list(read_corpus("web", Corpus(paths=(str(path),), format="parquet")))
    said = [row.reject.detail for row in found if row.reject and row.reject.reason == "damaged"]
    return len(found) - len(said), said


def test_a_footer_that_is_changed_without_need_changes_nothing(path):
    declare(path, {})
    assert rows(path) == (ROWS, [])


@pytest.mark.parametrize(
    ("numbers", "read", "said"),
    [
        (dict.fromkeys(NUMBERS, HUGE), 0, "it declares 1,000,000,000 rows in .* bytes; none is read"),
        (dict.fromkeys(NUMBERS, 2**62), 0, "it declares 4,611,686,018,427,387,904 rows in .* bytes; none is read"),
        (dict.fromkeys(NUMBERS, -5), 0, "it declares -5 rows, and its row groups -5"),
        (dict.fromkeys(NUMBERS, ROWS + 1), ROWS, "it declares 100,004 rows, and has 100,003"),
        ({0: HUGE}, 0, "it declares 1,000,000,000 rows, and its row groups 100,003"),
        ({3: 7}, 0, "it declares 100,003 rows, and its row groups 7"),
        ({1: -5}, 0, "it declares 100,003 rows, and has 0"),
        ({1: 7}, 20_000, "it declares 100,003 rows, and has 20,000"),  # a page
    ],
)
def test_a_footer_that_lies_is_damage(path, numbers, read, said):
    declare(path, numbers)
    count, details = rows(path)
    assert count == read
    assert len(details) == 1 and re.search(said, details[0])
    with pytest.raises(InputError, match=f"a.parquet: row {read}: no whole Parquet file: {said}"):
        list(evaluation.read_texts(CorpusFile(path, "a.parquet")))


def test_rows_that_no_footer_declares_are_not_there(path):
    declare(path, dict.fromkeys(NUMBERS, 7))
    assert rows(path) == (7, [])


def test_a_billion_nulls_in_two_megabytes(tmp_path):
    """Read to their end they would take hours, and hundreds of gigabytes of rejects."""
    group = pa.table({"text": pa.nulls(HUGE // 100, pa.string())})
    with pq.ParquetWriter(tmp_path / "a.parquet", group.schema) as file:
        for _ in range(100):
            file.write_table(group, row_group_size=len(group))
    assert (tmp_path / "a.parquet").stat().st_size < 2_000_000
    start = time.monotonic()
    found, grown = growth(tmp_path, "parquet")
    assert found == {"damaged": 1} and grown < 100 and time.monotonic() - start < 30


def test_a_table_of_few_texts_is_no_bomb(tmp_path):
    table = pa.table({"text": pa.nulls(300_000, pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 3_000
    assert rows(tmp_path) == (300_000, [])


def test_row_groups_that_lie_are_one_part(tmp_path, monkeypatch):
    """Parts are numbered by what the footer says."""
    monkeypatch.setattr("kun.corpora.units.PART_BYTES", 100)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"文{n}" for n in range(100)]}), path, row_group_size=10)
    assert len(list(cut(CorpusFile(path, "a.parquet"), "parquet"))) == 10
    data = path.read_bytes()
    (size,) = struct.unpack("<I", data[-8:-4])
    footer = data[-8 - size :].replace(varint(100), varint(90), 1)
    path.write_bytes(data[: -8 - size] + footer)
    assert pq.read_metadata(path).num_rows == 90
    assert len(list(cut(CorpusFile(path, "a.parquet"), "parquet"))) == 1
    assert rows(path) == (0, ["no whole Parquet file: it declares 90 rows, and its row groups 100"])
