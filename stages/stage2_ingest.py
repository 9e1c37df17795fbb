"""Stage 2, before the filter: raw corpora -> shards of documents, in two parallel passes.

The first pass counts the rows of every part of a corpus and finds repeated texts; knowing both, the second cuts each
part into shards independently of the others (kun.corpora).
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from kun.config.schema import Config
from kun.corpora import index
from kun.corpora.files import find
from kun.corpora.ingest import documents, items, splitter
from kun.errors import InputError
from kun.filters import length
from kun.filters.rules import base_folder
from kun.models.tokenizer import FILES
from kun.pipeline.stage import Build, Ingest, Inputs, Slice, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.records import Document, Raw, Reject
from kun.store.digests import Digests, of_value

INDEX = StageSpec("stage2", "stage2_index", "artefact", version=2)
SUMMARY = "read the raw corpora and keep what is worth a model's time"
INGEST = StageSpec("stage2", "stage2_ingest", "ingest", writes=Document, summary=SUMMARY)

Unit = tuple[Config, Path, index.Unit]  # the settings of the step, the folder of the index, a part of the corpus


def stages(config: Config, digests: Digests) -> list[Stage]:
    """The two passes, each with a step per corpus."""

    def files(name: str) -> Inputs:
        corpus = config.corpora[name]
        try:
            found = find(name, corpus)
        except InputError as error:
            if any(_fixed_part(path).exists() for path in corpus.paths):
                raise
            return Inputs(corpus.paths, missing=str(error))
        digested = digests.files([file.path for file in found], f"corpora.{name}.paths")
        return Inputs(corpus.paths, tuple((file.name, digest) for file, digest in zip(found, digested, strict=True)))

    def reading(name: str, *names: str) -> StepSettings:
        """The settings that decide the rows of a corpus, and those named by `names`."""
        content: dict[str, Any] = {f"corpora.{name}.paths": None}  # what is in the files is input
        if config.ingest.overlong == "split":
            names = (*names, "base_model", "filter.max_tokens")
            content |= tokenizer_content(config, digests)
        corpus = [("corpora", name, key) for key in ("paths", "format", "field")]
        return StepSettings.of(config.of_subset(name), [*corpus, *names, "ingest.overlong"], **content)

    indexed = tuple(Step(INDEX, name, partial(reading, name), (), partial(files, name)) for name in config.corpora)
    cutting = ("ingest.duplicates", "ingest.shard_rows")
    ingested = tuple(Step(INGEST, step.part, partial(reading, step.part, *cutting), (step,)) for step in indexed)
    index_work = Build(partial(build_index, digests), "MB")
    return [Stage(INDEX, index_work, indexed), Stage(INGEST, Ingest(units, read_unit), ingested)]


def _fixed_part(path: str) -> Path:
    """A path, up to the first name that is a pattern."""
    return Path(*takewhile(lambda name: not glob.has_magic(name), Path(path).parts))


def build_index(digests: Digests, context: StepContext, progress: Progress) -> Mapping[str, Any]:
    settings, name = context.settings, context.step.part
    corpus = settings.corpora[name]
    paths = [file.path for file in find(name, corpus)]

    def check() -> None:
        """InputError where a file is not what it was when the run asked for its digest."""
        for path in paths:
            if digests.changed(path):
                shutil.rmtree(context.folder)
                raise InputError(f"{path}: the file changed while it was read; run the same command again")

    check()
    known = digests.files(paths, f"corpora.{name}.paths")
    split = partial(piece_splitter, settings)
    report = index.build(context.folder, name, corpus, known, split, settings.workers, progress)
    check()
    return report


def units(context: StepContext) -> list[tuple[Unit, list[Slice]]]:
    folder, name, settings = context.need(0), context.step.part, context.settings
    found = index.slices(folder, index.units(folder, name, settings.corpora[name]), settings.ingest.shard_rows)
    return [((settings, folder, unit), [Slice(*one) for one in slices]) for unit, slices in found]


def read_unit(unit: Unit) -> Iterator[tuple[Raw, Document | Reject]]:
    """What became of each row of one unit of a corpus: a document, or a reject."""
    settings, folder, part = unit
    rows = part.rows(settings.corpora[part.subset])
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
