"""Files that are, or unpack to, far more than a row should be: each is read in a process of its own, the growth of
whose memory is measured."""

import gzip
import json
import subprocess
import sys
import tarfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kun.config.schema import Corpus
from kun.corpora import read_corpus

SCRIPT = """
import json, resource, sys
from collections import Counter
from kun.config.schema import Corpus
from kun.corpora import read_corpus
from kun.corpora.ingest import items
import pyarrow.parquet, zstandard
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
rows = items(read_corpus("web", Corpus(paths=(sys.argv[1],), format=sys.argv[2])))
print(json.dumps([Counter(row.reject.reason if row.reject else "kept" for row in rows), peak() - before]))
"""


def growth(path, kind):
    """What became of the rows, and by how many MB the process grew."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path), kind], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def packed(path, pieces):
    """Written without ever being in memory as a whole."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.writelines(pieces)
    elif path.suffix != ".zst":
        with path.open("wb") as plain:
            plain.writelines(pieces)
    else:
        with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as file:
            for piece in pieces:
                file.write(piece)
    return path


def of_one_row(folder, kind, packing, inside):
    """A file with a row of some MB of `inside`, and a row `b` after it."""
    opening, closing, name = {
        "skypile": (b'{"text": "', b'"}\n{"text": "b"}\n', "a.jsonl"),
        "wanjuan": (b'{"content": "', b'"}\n{"content": "b"}\n', "a.jsonl"),
        "wudao": (b'[{"content": "', b'"}, {"content": "b"}]', "a.json"),
        "text": (b"", b"\n\nb\n", "a.txt"),
    }[kind]
    return packed(folder / (name + packing), [opening, *inside, closing])


@pytest.mark.parametrize(  # every format and every packing; what unpacks knows nothing of the format
    ("kind", "packing"), [("skypile", ""), ("wanjuan", ".gz"), ("wudao", ""), ("wudao", ".zst"), ("text", ".gz")]
)
def test_one_row_of_120_mb_is_too_big_and_costs_only_itself(tmp_path, kind, packing):
    path = of_one_row(tmp_path, kind, packing, [b"x" * 2**20] * 120)
    assert not packing or path.stat().st_size < 2_000_000
    rows, grown = growth(path, kind)
    assert rows == {"too_big": 1, "kept": 1} and grown < 200


@pytest.mark.parametrize("inside", [b"x", b'\\"', b"\\u957f", "长".encode()])
@pytest.mark.parametrize("kind", ["skypile", "wudao"])
def test_time_is_linear_in_the_size_of_a_row(tmp_path, kind, inside):
    """Four times the row, about four times the time: quadratic would be 16 times."""
    seconds = []
    for megabytes in (20, 80):
        path = of_one_row(tmp_path, kind, ".gz", [inside * (2**20 // len(inside))] * megabytes)
        start = time.process_time()
        assert [row.text for row in read_corpus("web", Corpus(paths=(str(path),), format=kind))] == ["", "b"]
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0] + 0.3


def test_lines_without_end_are_one_document_in_flat_memory(tmp_path):
    rows, grown = growth(packed(tmp_path / "a.txt.gz", [b"a\n" * 2**19] * 20), "text")
    assert rows == {"too_big": 1} and grown < 120


def test_frames_that_ask_for_gigabytes_of_memory_are_damage(tmp_path):
    make = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=False, compression_level=1)
    )
    with (tmp_path / "a.jsonl.zst").open("wb") as raw, make.stream_writer(raw) as file:
        file.write(b'{"text": "a"}\n')
    rows, grown = growth(tmp_path, "skypile")
    assert rows == {"damaged": 1} and grown < 100


def test_a_hundred_thousand_members_take_no_memory(tmp_path):
    header = tarfile.TarInfo("a.txt").tobuf()
    packed(tmp_path / "a.tar.gz", [header * 1000] * 100 + [bytes(1024)])
    rows, grown = growth(tmp_path, "wanjuan")
    assert rows == {} and grown < 40


def test_a_table_of_one_long_text_again_and_again(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(150, np.int32)), pa.array(["长" * 600_000]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    rows, grown = growth(tmp_path, "parquet")
    assert rows == {"kept": 150} and grown < 200


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_nesting_is_one_bad_row(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(f'{text}\n{{"text": "b", "more": {text}}}\n{{"text": "c"}}\n')
    start = time.process_time()
    rows, grown = growth(tmp_path, "skypile")
    assert rows.pop("kept") == 1 and sum(rows.values()) == 2 and grown < 100
    assert time.process_time() - start < 5


def test_a_document_longer_than_any_book_is_too_big():
    from kun.corpora.ingest import LONGEST, items
    from kun.corpora.rows import Row
    from kun.records import Origin

    rows = [Row(Origin("a", n), "长" * size) for n, size in enumerate((LONGEST, LONGEST + 1))]
    assert [item.reject and item.reject.reason for item in items(rows)] == [None, "too_big"]
    halves = items(rows[1:], lambda text: [text[:LONGEST], text[LONGEST:]])
    assert [item.reject for item in halves] == [None, None]
