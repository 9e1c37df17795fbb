"""A corpus that changes under a run: whatever happens to a file, no row is lost, doubled, or under a wrong name."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kun.config.schema import Config, Corpus
from kun.corpora import index
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.records import Document
from kun.store import shards
from kun.store.digests import Digests
from stages import stage2_ingest

TEXTS = [f"第{number}篇文章。" for number in range(12)]
AGAIN = "run the same command again"


def lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def write_parquet(path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": texts}), path)


WRITE: dict[str, Callable[[Path, list[str]], object]] = {
    "jsonl": lambda path, texts: path.write_bytes(lines(texts)),
    "jsonl.gz": lambda path, texts: path.write_bytes(gzip.compress(lines(texts))),
    "parquet": write_parquet,
}


@dataclass
class Ingest:
    """Two files of a corpus, and what `kun run stage2` does with them first; `b` is the one that changes."""

    folder: Path
    ending: str

    @property
    def b(self) -> Path:
        return self.folder / "corpus" / f"b.{self.ending}"

    def write(self, path: Path, texts: list[str]) -> None:
        WRITE[self.ending](path, texts)

    def run(self, between: Callable[[], object] = lambda: None) -> list[str]:
        """The texts that come out, in order. `between` is called after the index and before the ingest."""
        kind = "parquet" if self.ending == "parquet" else "jsonl"
        corpora = {"web": Corpus(paths=(str(self.folder / "corpus"),), format=kind)}
        config = Config(run=str(self.folder / "run"), corpora=corpora, workers=1, ingest={"shard_rows": 4})
        run = RunFolder(self.folder / "run")
        run.store.mkdir(parents=True, exist_ok=True)
        indexing, ingesting = stage2_ingest.stages(config, Digests(run.store / "digests.json"))
        run_stage(indexing, run)
        run.fingerprint(ingesting.steps[0])  # as `kun run` asks for, before it begins
        between()
        run_stage(ingesting, run)
        folder = run.folder(ingesting.steps[0])
        return [record.text for key in shards.order(folder) for record in shards.read_kept(folder, key, Document)]


@pytest.fixture(params=WRITE)
def ingest(tmp_path: Path, request: pytest.FixtureRequest) -> Ingest:
    (tmp_path / "corpus").mkdir()
    ingest = Ingest(tmp_path, request.param)
    ingest.write(tmp_path / "corpus" / f"a.{request.param}", TEXTS[:4])
    ingest.write(ingest.b, TEXTS[4:10])
    return ingest


CHANGES: dict[str, Callable[[Ingest], object]] = {
    "grows": lambda ingest: ingest.write(ingest.b, TEXTS[4:]),
    "shrinks": lambda ingest: ingest.write(ingest.b, TEXTS[4:9]),
    "is empty": lambda ingest: ingest.write(ingest.b, []),
    "is replaced": lambda ingest: ingest.write(ingest.b, [*TEXTS[4:9], TEXTS[10]]),
    "has texts of the other": lambda ingest: ingest.write(ingest.b, TEXTS[:4] + TEXTS[4:6]),
    "is cut off": lambda ingest: os.truncate(ingest.b, ingest.b.stat().st_size - 9),
}
NOW = {
    "grows": TEXTS,
    "shrinks": TEXTS[:9],
    "is empty": TEXTS[:4],
    "is replaced": [*TEXTS[:9], TEXTS[10]],
    "has texts of the other": TEXTS[:6],
}


@pytest.mark.parametrize("change", CHANGES)
def test_between_index_and_ingest_it_is_an_error_and_the_next_run_reads_it_again(ingest: Ingest, change: str) -> None:
    with pytest.raises(InputError, match=rf"{ingest.b}: the file changed while it was read; {AGAIN}"):
        ingest.run(between=lambda: CHANGES[change](ingest))
    if change in NOW:
        assert ingest.run() == NOW[change]
    ingest.write(ingest.b, TEXTS[4:10])
    assert ingest.run() == TEXTS[:10]  # the shards of the first run, and the one that it did not come to


@pytest.mark.parametrize("change", NOW)
def test_between_two_runs_it_is_read_again(ingest: Ingest, change: str) -> None:
    assert ingest.run() == TEXTS[:10]
    CHANGES[change](ingest)
    assert ingest.run() == NOW[change]


def test_a_file_that_vanishes(ingest: Ingest) -> None:
    with pytest.raises(InputError, match=rf"corpora.web.paths: there were 2 files .* and are 1 now; {AGAIN}"):
        ingest.run(between=ingest.b.unlink)
    assert ingest.run() == TEXTS[:4]


def test_a_file_that_comes_in_addition(ingest: Ingest) -> None:
    c = ingest.b.with_name(f"c.{ingest.ending}")
    with pytest.raises(InputError, match=rf"corpora.web.paths: there were 2 files .* and are 3 now; {AGAIN}"):
        ingest.run(between=lambda: ingest.write(c, TEXTS[10:]))
    assert ingest.run() == TEXTS


def test_a_change_while_it_is_indexed_leaves_no_index(ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    build = index.build

    def change_and_build(*arguments: object) -> dict[str, int]:
        ingest.write(ingest.b, TEXTS[4:])
        return build(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(InputError, match=rf"{ingest.b}: the file changed .*; {AGAIN}"):
        patch.setattr(index, "build", change_and_build)
        ingest.run()
    ingest.write(ingest.b, TEXTS[4:10])
    assert ingest.run() == TEXTS[:10]
    ingest.write(ingest.b, TEXTS[4:])
    assert ingest.run() == TEXTS


def test_a_line_of_100_mb_in_many_parts_of_a_file_is_one_reject(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    ingest = Ingest(tmp_path, "jsonl")
    with ingest.b.open("wb") as file:
        file.write(lines(TEXTS[:1]) + b'{"text": "')
        file.writelines([b"x" * 2**20] * 100)
        file.write(b'"}\n' + lines(TEXTS[1:]))
    assert ingest.run() == TEXTS
    index = next((tmp_path / "run/store").glob("stage2_index-*"))
    assert len(list(index.glob("*.digests"))) > 1
