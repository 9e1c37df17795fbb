"""Small files that unpack to large ones: each in a process of its own, the growth of whose memory is measured."""

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

SCRIPT = """
import json, resource, sys
from collections import Counter
from kun.config import Corpus
from kun.corpora import read
from kun.corpora.ingest import items
import pyarrow.parquet, zstandard
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
rows = items(read("web", Corpus(paths=(sys.argv[1],), format=sys.argv[2])))
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
    else:
        with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as file:
            for piece in pieces:
                file.write(piece)
    return path


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["skypile", "wudao", "text"])
def test_one_row_of_120_mb_is_too_big_and_costs_only_itself(tmp_path, kind, packing):
    opening, closing, name = {
        "skypile": (b'{"text": "', b'"}\n{"text": "b"}\n', "a.jsonl"),
        "wudao": (b'[{"content": "', b'"}, {"content": "b"}]', "a.json"),
        "text": (b"", b"\n\nb\n", "a.txt"),
    }[kind]
    path = packed(tmp_path / (name + packing), [opening, *[b"x" * 2**20] * 120, closing])
    assert path.stat().st_size < 2_000_000
    rows, grown = growth(path, kind)
    assert rows == {"too_big": 1, "kept": 1} and grown < 200


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
