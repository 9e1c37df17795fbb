"""Stage 2, before the filter: raw corpora -> shards of documents, in two passes by all processes.

The first counts the rows of every part of a corpus and finds texts that come again; with both known, the second cuts
each part into shards by itself (kun.corpora).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kun.config.schema import Config, Corpus
from kun.corpora import index
from kun.corpora.files import find
from kun.corpora.ingest import documents, items, splitter
from kun.corpora.readers import read_part
from kun.errors import InputError
from kun.filters import length
from kun.filters.rules import base_folder
from kun.models.tokenizer import FILES
from kun.pipeline.stage import Build, Folders, Ingest, Stage, Step
from kun.progress import Progress
from kun.records import Document, Raw, Reject
from kun.store.digests import Digests, of_value


def stages(config: Config, digests: Digests) -> list[Stage]:
    """The two passes; a step per corpus in each."""
    indexing = _index(config, digests)
    return [indexing, _ingest(config, indexing.steps)]


def read_unit(config: Config, indexed: tuple[Path, index.Unit]) -> Iterator[tuple[Raw, Document | Reject]]:
    """The documents of one part of a corpus, and what gave none; by the index of the corpus in a folder."""
    folder, unit = indexed
    rows = read_part(unit.subset, config.corpora[unit.subset], unit.found)
    pieces = items(rows, piece_splitter(config.of_subset(unit.subset)))
    pieces = index.unchanged(folder, unit, pieces)
    return documents(unit.subset, pieces, index.occurrences(folder, unit), config.ingest.duplicates)


def piece_splitter(config: Config) -> Callable[[str], list[str]] | None:
    """How ingest cuts over-long texts, where the settings ask for it."""
    if config.ingest.overlong == "drop":
        return None
    return splitter(length.token_counter(base_folder(config), config.trust_remote_code), config.filter.max_tokens)


def tokenizer_decides(config: Config, digests: Digests) -> dict[str, str]:
    """The tokenizer of the base model as what decides a step's output."""
    folder = base_folder(config)
    files = {name: digests.path(folder / name, "base_model") for name in FILES if (folder / name).exists()}
    return {"tokenizer of base_model": of_value(files)}


def _index(config: Config, digests: Digests) -> Stage:
    def build(step: Step, folder: Path, folders: Folders, progress: Progress) -> Mapping[str, Any]:
        corpus = config.corpora[step.part]
        make_split = partial(piece_splitter, config.of_subset(step.part))
        report = index.build(folder, step.part, corpus, make_split, config.workers, progress)
        for path in (found.path for found in find(step.part, corpus)):
            if digests.changed(path):  # since the start: the folder has the fingerprint of what was there
                shutil.rmtree(folder)
                raise InputError(f"{path}: the file changed while it was read; run the same command again")
        return report

    def decides(name: str, corpus: Corpus) -> dict[str, Any]:
        found = find(name, corpus)
        content = digests.files([file.path for file in found], f"corpora.{name}.paths")
        files = [[file.name, digest] for file, digest in zip(found, content, strict=True)]
        settings: dict[str, Any] = {f"corpora.{name}.files": files, f"corpora.{name}.format": corpus.format}
        settings |= {f"corpora.{name}.field": corpus.field, "ingest.overlong": config.ingest.overlong}
        if config.ingest.overlong == "split":
            max_tokens = config.of_subset(name).filter.max_tokens
            settings |= {"filter.max_tokens": max_tokens, **tokenizer_decides(config, digests)}
        return settings

    corpora = config.corpora.items()
    steps = tuple(Step("stage2_index", name, partial(decides, name, corpus)) for name, corpus in corpora)
    return Stage("stage2", "stage2_index", Build(build, "MB"), steps)


def _ingest(config: Config, indexed: tuple[Step, ...]) -> Stage:
    def units(step: Step, folders: Folders) -> list[tuple[tuple[Path, index.Unit], int]]:
        folder = folders(step.needs[0])
        return [((folder, unit), unit.items) for unit in index.units(folder, step.part, config.corpora[step.part])]

    def decides() -> dict[str, Any]:
        return {"ingest.duplicates": config.ingest.duplicates, "ingest.shard_rows": config.ingest.shard_rows}

    steps = tuple(Step("stage2_ingest", step.part, decides, (step,)) for step in indexed)
    return Stage("stage2", "stage2_ingest", Ingest(units, partial(read_unit, config), config.ingest.shard_rows), steps)
