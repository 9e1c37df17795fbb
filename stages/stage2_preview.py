"""What stage 2 would do, on a sample of each corpus, before it is run: `kun filter-preview --config my.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kun.config import Config
from kun.corpora.ingest import documents
from kun.corpora.sampling import sample_rows
from kun.filters import percentiles, preview
from kun.filters.percentiles import NO_LIMITS
from kun.filters.preview import Seen
from kun.records import Document, Reject
from kun.runner import run_stage
from kun.runs import RunFolder
from kun.store.digests import Digests
from kun.store.lock import hold
from stages import stage2_filter


def language_model(config: Config, run: RunFolder) -> Path | None:
    """The artefact of the language model, made in the run's store as stage 2 makes it, or found there."""
    run.store.mkdir(parents=True, exist_ok=True)
    digests = Digests(run.store / "digests.json")
    stage = next((one for one in stage2_filter.stages(config, digests) if one.name == "stage2_lm"), None)
    if stage is None:
        return None
    try:
        if run.whole(stage.steps[0]) is None:
            with hold(run.path / "lock", "kun filter-preview"):
                run_stage(stage, run)
    finally:
        digests.save()
    return run.folder(stage.steps[0])


def look(config: Config, name: str, model: Path | None, size: int) -> Seen:
    """What becomes of `size` rows of the corpus `name`: read and judged as the stage does it.

    Percentiles and the like are measured on the sample; duplicates are those within it.
    """
    taken = sample_rows(name, config.corpora[name], size, config.seed)
    split = stage2_filter.piece_splitter(config)
    items = list(documents(name, iter(taken.rows), duplicates=config.ingest.duplicates, split=split))
    read_in = [made for _, made in items if isinstance(made, Document)]
    limits, rest_on = (NO_LIMITS, 0) if model is None else stage2_filter.measure(config, read_in, model)
    rules = stage2_filter.open_filter(config, model, limits)
    said = ""
    if model is not None and percentiles.needs_sample(config.filter):
        numbers = " to ".join("none" if limit is None else preview.number(limit) for limit in limits)
        said = f"limits of perplexity {numbers}, measured on {rest_on:,} documents of this sample; "
        said += f"the stage measures them on up to {config.filter.sample:,}"
    return Seen(
        subset=name,
        how=taken.how,
        rows=len(taken.rows),
        unread=dict(Counter(made.reason for _, made in items if isinstance(made, Reject))),
        bounds=rules.bounds,
        judged=preview.judge(rules, read_in),
        limits=said,
        by_byte=taken.by_byte,
    )


def look_at_all(config: Config, subset: str | None, size: int) -> Iterator[Seen]:
    """The corpora one after the other, or one of them."""
    model = language_model(config, RunFolder(Path(config.run)))
    for name in [subset] if subset else config.corpora:
        yield look(config, name, model, size)
