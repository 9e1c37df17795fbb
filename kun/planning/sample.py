"""What stage 2 would do, on a sample of each corpus, before it is run: `kun filter-preview --config my.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kun.config.schema import Config
from kun.corpora.ingest import counted, documents, items
from kun.corpora.sampling import Taken, sample_rows
from kun.filters.perplexity import percentiles
from kun.filters.perplexity.percentiles import NO_LIMITS, Limits
from kun.filters.rules import Rules, base_folder, measure, open_filter
from kun.pipeline.lock import hold
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.records import Document, Raw, Reject
from kun.report import filter_preview as preview
from kun.report.filter_preview import CorpusSample
from kun.store.digests import Digests
from stages import stage2_evaluations, stage2_filter
from stages.stage2_ingest import piece_splitter


def preview_corpora(config: Config, subset: str | None, size: int) -> Iterator[CorpusSample]:
    """The corpora one after the other, or one of them: what becomes of `size` rows of each."""
    made = prepare(config, RunFolder(Path(config.run)))
    model = base_folder(config) if config.filter.lm.base else made.get(stage2_filter.LM.name)
    for name in [subset] if subset else config.corpora:
        yield preview_corpus(config.of_subset(name), name, model, made.get(stage2_evaluations.EVALUATIONS.name), size)


def prepare(config: Config, run: RunFolder) -> dict[str, Path]:
    """The folders of what the rules need, by stage: made in the run's store as stage 2 makes them, or found there."""
    run.store.mkdir(parents=True, exist_ok=True)
    digests = Digests(run.store / "digests.json")
    stages = [*stage2_filter.language_model(config, digests), *stage2_evaluations.stages(config, digests)]
    try:
        with hold(run.path / "lock", "kun filter-preview"):
            for stage in stages:
                run_stage(stage, run)
    finally:
        digests.save()
    return {stage.name: run.folder(stage.steps[0]) for stage in stages}


@dataclass(frozen=True)
class Sampled:
    """Rows of a corpus, what became of each piece of them when it was read, and the rules for the documents; relative
    limits are `limits`, measured on `rest_on` of them."""

    taken: Taken
    outcomes: Sequence[tuple[Raw, Document | Reject]]
    rules: Rules
    limits: Limits
    rest_on: int

    @property
    def documents(self) -> list[Document]:
        return [made for _, made in self.outcomes if isinstance(made, Document)]


def read_sample(config: Config, name: str, model: Path | None, evaluations: Path | None, size: int) -> Sampled:
    """`size` rows of the corpus `name`, read as the stage reads them, and the rules that the stage would have."""
    taken = sample_rows(name, config.corpora[name], size, config.seed)
    pieces = list(items(taken.rows, piece_splitter(config)))
    outcomes = list(documents(name, pieces, counted(pieces), config.ingest.duplicates))
    read_in = (made for _, made in outcomes if isinstance(made, Document))
    limits, rest_on = (NO_LIMITS, 0) if model is None else measure(config, read_in, model)
    return Sampled(taken, outcomes, open_filter(config, model, limits, evaluations), limits, rest_on)


def preview_corpus(config: Config, name: str, model: Path | None, evaluations: Path | None, size: int) -> CorpusSample:
    """What becomes of `size` rows of the corpus `name`: read and judged as the stage does it, by its own settings.

    Relative limits are measured on the sample; duplicates are those within it, and near-duplicates are not looked for.
    """
    sample = read_sample(config, name, model, evaluations, size)
    taken, outcomes, rules = sample.taken, sample.outcomes, sample.rules
    said = ""
    if model is not None and percentiles.needs_sample(config.filter):
        numbers = " to ".join("none" if limit is None else preview.number(limit) for limit in sample.limits)
        said = f"limits of perplexity {numbers}, measured on {sample.rest_on:,} documents of this sample; "
        said += f"the stage measures them on up to {config.filter.sample:,}"
    notes = [said] if said else []
    if config.filter.near_duplicates is not None:
        notes.append("near-duplicates, which stage 2 drops after these rules, are not looked for")
    if first := next((raw for raw, made in outcomes if isinstance(made, Reject) and made.reason != "duplicate"), None):
        why = next(made for raw, made in outcomes if raw is first and isinstance(made, Reject))
        at = f"{first.origin.file}, row {first.origin.row}"
        notes.append(f"the first row that gives no document: {at}: {why.reason}, {why.detail}")
    return CorpusSample(
        subset=name,
        how=taken.how,
        rows=len(taken.rows),
        unread=dict(Counter(made.reason for _, made in outcomes if isinstance(made, Reject))),
        bounds=rules.bounds,
        judged=preview.judge(rules, sample.documents),
        notes=tuple(notes),
        by_byte=taken.by_byte,
    )
