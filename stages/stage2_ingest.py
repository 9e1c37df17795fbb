"""Stage 2, before the filter: raw corpora -> shards of documents, in two parallel passes.

The first pass counts the rows of every part of a corpus and finds repeated texts; knowing both, the second cuts each
part into shards independently of the others (kun.corpora).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.corpora import index
from kun.corpora.files import find
from kun.corpora.ingest import documents, items, splitter
from kun.corpora.readers import read_part
from kun.errors import InputError
from kun.filters import length
from kun.filters.rules import base_folder
from kun.models.tokenizer import FILES
from kun.pipeline.stage import Build, Ingest, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.records import Document, Raw, Reject
from kun.store.digests import Digests, of_value

INDEX = StageSpec("stage2", "stage2_index", "artefact", version=2)
SUMMARY = "read the raw corpora and keep what is worth a model's time"
INGEST = StageSpec("stage2", "stage2_ingest", "ingest", writes=Document, summary=SUMMARY)

Unit = tuple[Config, Path, index.Unit]  # the settings of the step, the folder of the index, a part of the corpus


def stages(config: Config, digests: Digests) -> list[Stage]:
    """The two passes, each with a step per corpus."""

    def reading(name: str, *names: str) -> StepSettings:
        """The settings that decide the rows of a corpus, and those named by `names`."""
        setting = f"corpora.{name}.paths"
        files = find(name, config.corpora[name])
        digested = digests.files([file.path for file in files], setting)
        content: dict[str, Any] = {setting: [[file.name, digest] for file, digest in zip(files, digested, strict=True)]}
        if config.ingest.overlong == "split":
            names = (*names, "base_model", "filter.max_tokens")
            content |= tokenizer_content(config, digests)
        corpus = [("corpora", name, key) for key in ("paths", "format", "field")]
        return StepSettings.of(config.of_subset(name), [*corpus, *names, "ingest.overlong"], **content)

    indexed = tuple(Step(INDEX, name, partial(reading, name)) for name in config.corpora)
    cutting = ("ingest.duplicates", "ingest.shard_rows")
    ingested = tuple(Step(INGEST, step.part, partial(reading, step.part, *cutting), (step,)) for step in indexed)
    ingest = Ingest(units, read_unit, lambda settings: settings.ingest.shard_rows)
    return [Stage(INDEX, Build(partial(build_index, digests), "MB"), indexed), Stage(INGEST, ingest, ingested)]


def build_index(digests: Digests, context: StepContext, progress: Progress) -> Mapping[str, Any]:
    settings, name = context.settings, context.step.part
    corpus = settings.corpora[name]
    report = index.build(context.folder, name, corpus, partial(piece_splitter, settings), settings.workers, progress)
    for path in (file.path for file in find(name, corpus)):
        if digests.changed(path):  # since its fingerprint, which names the folder, was taken
            shutil.rmtree(context.folder)
            raise InputError(f"{path}: the file changed while it was read; run the same command again")
    return report


def units(context: StepContext) -> list[tuple[Unit, int]]:
    folder, name, settings = context.need(0), context.step.part, context.settings
    return [((settings, folder, unit), unit.items) for unit in index.units(folder, name, settings.corpora[name])]


def read_unit(unit: Unit) -> Iterator[tuple[Raw, Document | Reject]]:
    """What became of each row of one part of a corpus: a document, or a reject."""
    settings, folder, part = unit
    rows = read_part(part.subset, settings.corpora[part.subset], part.found)
    pieces = index.unchanged(folder, part, items(rows, piece_splitter(settings)))
    return documents(part.subset, pieces, index.occurrences(folder, part), settings.ingest.duplicates)


def piece_splitter(config: Config) -> Callable[[str], list[str]] | None:
    """The function that splits over-long texts, if the settings ask for it."""
    if config.ingest.overlong == "drop":
        return None
    return splitter(length.token_counter(base_folder(config), config.trust_remote_code), config.filter.max_tokens)


def tokenizer_content(config: Config, digests: Digests) -> dict[str, str]:
    """The digest of the base model's tokenizer, for the settings of a step that counts tokens."""
    folder = base_folder(config)
    files = {name: digests.path(folder / name, "base_model") for name in FILES if (folder / name).exists()}
    return {"base_model.tokenizer": of_value(files)}
