"""One corpus for the plan, by a sample through the functions of the stages: `measure(given, "wudao", lm, index, 500)`.

A row of the sample counts for as many rows as it stands for, so that all means are those of the corpus.
"""

from __future__ import annotations

import io
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from kun.config.schema import Config, Label, Polish
from kun.corpora.ingest import documents, items
from kun.dataset.final import row
from kun.engines.base import Request, ScoreChoices
from kun.engines.batches import shared_prefix
from kun.filters.duplicates import signatures
from kun.models.chat import Chat
from kun.planning.evidence import Evidence
from kun.planning.figures import Figure, StageLoad, Subset, mean, rows_of, share_of
from kun.planning.sample import Sampled, read_sample
from kun.records import Filtered, Labelled, Polished, Raw, Reject, Scored, extend
from kun.store.shards import line, row_digest
from stages.stage2_filter import FILTER, QUALITY
from stages.stage2_ingest import INGEST, piece_splitter
from stages.stage3_label import LABEL
from stages.stage4_score import SELECTION, VERDICTS, Scoring
from stages.stage5_polish import FINAL, POLISH
from stages.writing import WritingTask

# What models keep, where nothing is measured: as on the demo world of seed 7 (docs/measurements.md). It is the
# upper end, so that no run is dearer than its plan; COIG-Kun gives no shares.
KEPT = {LABEL.name: 1.0, SELECTION.name: 1.0, POLISH.name: 0.97}
INSTRUCTION = "请用三段话介绍一下这件事情的来历、经过和影响，并说明人们今天怎样看待它。"  # where there are no seeds
INDEX_BYTES, SIGNATURE_BYTES = 16, 439  # of a row in stage2_index, of a document in stage2_duplicates (measurements.md)
REMEMBERING = ("vllm", "server")  # engines that compute what prompts open with once; transformers where it only chooses


@dataclass(frozen=True)
class PlanContext:
    """What all corpora have in common. `growth`: tokens of a polished reply for each of its text; `kept`: shares of
    stages 3 to 5 from the command line."""

    config: Config
    evidence: Evidence
    chat: Chat
    labelling: WritingTask[Label]
    scoring: Scoring
    polishing: WritingTask[Polish]
    instructions: Sequence[str]
    instructions_from: str
    growth: Figure
    kept: tuple[float, ...] | None


@dataclass(frozen=True)
class CorpusEstimate:
    """The corpus, the prompts of stage 3 for the sampled texts, and what to tell of the sample."""

    subset: Subset
    prompts: list[list[int]]
    notes: list[str]


class StageSample(NamedTuple):
    """A model stage on the kept texts: its requests, a reply in tokens on average and at most, and the bytes of a kept
    record and of one as it came."""

    stage: str
    requests: Sequence[Request | Reject]
    reply: Figure
    most: int
    written: tuple[float, float]


def measure(given: PlanContext, name: str, model: Path | None, evaluations: Path | None, size: int) -> CorpusEstimate:
    """What `size` rows of the corpus `name` tell of all of it. `model`, `evaluations`: as for the filter's preview."""
    config, evidence = given.config.of_subset(name), given.evidence
    sample = read_sample(config, name, model, evaluations, size)
    weight_of = {
        (row.origin.file, row.origin.row): weight
        for row, weight in zip(sample.taken.rows, sample.taken.weights, strict=True)
    }
    outcomes = sample.rules(sample.documents)
    decided = {document.id: made for document, made in zip(sample.documents, outcomes, strict=True)}
    weights, kept = [], []
    filter_bytes = 0.0
    near = config.filter.near_duplicates is not None
    for raw, read in sample.outcomes:
        weight = weight_of[raw.origin.file, raw.origin.row]
        made = read if isinstance(read, Reject) else decided[read.id]
        weights.append(weight)
        kept.append(not isinstance(made, Reject))
        written = len(line(raw, read, whole=True))
        if not isinstance(read, Reject):
            written += len(line(read, made))
        if near and not isinstance(made, Reject):
            written += len(line(made, made)) + SIGNATURE_BYTES
        filter_bytes += weight * (written + INDEX_BYTES)
    counted = sample.taken.counted and config.ingest.overlong == "drop"  # a row that is split counts as its pieces
    rows = rows_of(weights, counted, sample.taken.everywhere, sample.taken.how)
    filtered = _filtered(evidence, name, share_of(weights, kept, f"{len(weights):,} rows"))
    texts = [made for made in outcomes if isinstance(made, Filtered)]
    stands_for = [weight for weight, one in zip(weights, kept, strict=True) if one]
    asked, prompts, final_bytes = _asked(given, config, name, texts, stands_for)
    seconds = Figure(_seconds(config, sample, texts), "sample", "processor time")
    notes = _notes(name, sample, texts)
    total = max(sum(weights), 1.0)
    return CorpusEstimate(
        Subset(name, rows, filtered, seconds, filter_bytes / total, final_bytes, asked), prompts, notes
    )


def _filtered(evidence: Evidence, name: str, of_sample: Figure) -> Figure:
    """The share that stage 2 keeps: by the run, where its settings are the present ones, for it sees all duplicates."""
    read, left = evidence.counts(INGEST.name, name), evidence.finished(FILTER.name, name)
    if read is None or left is None or any(evidence.changed(one.name, name) for one in (INGEST, QUALITY, FILTER)):
        return of_sample
    return Figure(left.kept / read.rows, "run", f"{read.rows:,} rows, near-duplicates left out")


def _asked(
    given: PlanContext, config: Config, name: str, texts: Sequence[Filtered], weights: Sequence[float]
) -> tuple[tuple[StageLoad, ...], list[list[int]], float]:
    """The model stages on the kept texts; prompts of stage 3; bytes of a row of the final files and their lineage."""
    done = given.evidence.records(LABEL.name, name, Labelled)
    rng = random.Random(f"kun plan {config.seed} {name}")
    instructions = rng.choices([record.instruction for record in done] or given.instructions, k=len(texts))
    labelled = [extend(text, Labelled, instruction=one) for text, one in zip(texts, instructions, strict=True)]
    scored = [extend(record, Scored, score=0.9876543210987654) for record in labelled]
    polished = [extend(record, Polished, output=_grown(record.text, given), faithfulness=1.0) for record in scored]
    steps = ((texts, labelled), (labelled, scored), (scored, polished))
    kept_bytes = [_bytes(before, after, weights) for before, after in steps]
    bare = [_bytes(before, before, weights) for before, _ in steps]
    identity = mean(weights, [len(line(text, text)) for text in texts])
    said = Figure(0, "assumed", "one short paragraph; seeds.pairs would tell")
    if given.instructions_from:
        said = Figure(0, "seeds", given.instructions_from)
    if done:
        said = Figure(0, "run", f"{len(done):,} labels")
    short = mean(weights, [given.chat.count(one) + 1 for one in instructions])
    score = config.score
    verdict = [given.chat.count(word) + 1 for word in (given.scoring.prompt.good, given.scoring.prompt.bad)]
    grown = mean(weights, [given.growth.value * text.tokens + 1 for text in texts])
    drawn = Figure(0, "setting", f"score.method: {score.method} draws nothing")
    if score.method == "sampled":
        drawn = Figure(sum(verdict) / 2, "assumed", "the verdict and no more")
    label = StageSample(
        LABEL.name,
        [given.labelling.ask(text) for text in texts],
        msgspec.structs.replace(said, value=short),
        config.label.sampling.max_tokens,
        (kept_bytes[0], bare[0]),
    )
    judge = StageSample(
        SELECTION.name,
        [given.scoring.ask(record) for record in labelled],
        drawn,
        score.sampling.max_tokens,
        (kept_bytes[1] + identity, kept_bytes[1] + identity),  # verdicts, and the selection of them
    )
    polish = StageSample(
        POLISH.name,
        [given.polishing.ask(record) for record in scored],
        Figure(grown, given.growth.basis, f"{given.growth.value:.2f} of the text's; {given.growth.how}"),
        config.polish.sampling.max_tokens,
        (kept_bytes[2], bare[2]),
    )
    found = tuple(_stage(given, config, name, outline, weights) for outline in (label, judge, polish))
    prompts = [one.prompt for one in label.requests if not isinstance(one, Reject)]
    return found, prompts, _final_bytes(polished, weights)


def _stage(given: PlanContext, config: Config, name: str, outline: StageSample, weights: Sequence[float]) -> StageLoad:
    """What a stage is asked; prompts over the window are not asked, and none of them is kept."""
    stage, requests, reply, most, written = outline
    fit = [not isinstance(one, Reject) for one in requests]
    asked = mean(weights, fit) if requests else 1.0
    tokens = [0 if isinstance(one, Reject) else len(one.prompt) + _choice(one) for one in requests]
    prompts = [one.prompt for one in requests if not isinstance(one, Reject)]
    repeated = shared_prefix(prompts) if len(prompts) > 1 else 0
    counts = given.evidence.counts(stage, name)
    cut = counts.rejected.get("unfinished", 0) / counts.rows if counts else 0.0
    length = asked * ((1 - cut) * min(reply.value, most) + cut * most)
    how = f"{reply.how}; {cut:.0%} of the run's are cut off at {most}" if cut else reply.how
    kept = _kept(given, config, stage, name)
    if kept.basis in ("assumed", "setting") and asked < 1:
        why = f"{kept.how}; {1 - asked:.1%} of the sample is over the window"
        kept = msgspec.structs.replace(kept, value=kept.value * asked, how=why)
    chooses = any(isinstance(one, ScoreChoices) for one in requests)
    return StageLoad(
        stage=stage,
        prompt=Figure(mean(weights, tokens), "sample", "prompts of the kept texts"),
        repeated=repeated * asked,
        reply=msgspec.structs.replace(reply, value=length, how=how),
        kept=kept,
        cached=config.engine.kind in REMEMBERING or chooses,
        bytes=written,
    )


def _choice(request: Request) -> int:
    return max(map(len, request.choices)) - 1 if isinstance(request, ScoreChoices) else 0


def _kept(given: PlanContext, config: Config, stage: str, name: str) -> Figure:
    """The share of rows that one of the three stages keeps: as asked for, by a setting, by the run, or assumed."""
    if given.kept is not None:
        return Figure(given.kept[list(KEPT).index(stage)], "given", "--kept")
    if stage == SELECTION.name and config.score.select == "top_share":
        return Figure(config.score.top_share, "setting", "score.top_share")
    found = given.evidence.share(stage, name)
    if found and stage == SELECTION.name and (verdicts := given.evidence.share(VERDICTS.name, name)):
        found = msgspec.structs.replace(found, value=found.value * verdicts.value)
    return found or Figure(KEPT[stage], "assumed", "as on the demo's world, the upper end; --kept changes it")


def _grown(text: str, given: PlanContext) -> str:
    """A reply of the length that polishing gives it."""
    length = max(round(len(text) * given.growth.value), 1)
    return (text * math.ceil(length / max(len(text), 1)))[:length]


def _bytes(before: Sequence[Raw], after: Sequence[Raw], weights: Sequence[float]) -> float:
    """Of the line of a row that a model's step has kept, or rejected, apart from the reason."""
    sizes = [len(line(record, made, of=row_digest(record))) for record, made in zip(before, after, strict=True)]
    return mean(weights, sizes)


def _final_bytes(records: Sequence[Polished], weights: Sequence[float]) -> float:
    """Bytes of a row of `<subset>.jsonl`, and of `lineage.parquet`, compressed as it is there."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if not records:
        return 0.0
    pairs = [len(row(one, FINAL.fields)) for one in records]
    table = pa.Table.from_pylist(
        [{"id": one.id, "instruction": one.instruction, "text": one.text, "ppl": one.ppl} for one in records]
    )
    parquet.write_table(table, file := io.BytesIO(), compression="zstd")
    texts = [len(one.text.encode()) for one in records]
    return mean(weights, pairs) + mean(weights, texts) * file.tell() / sum(texts)


def _seconds(config: Config, sample: Sampled, kept: Sequence[Filtered]) -> float:
    """Processor seconds for each row read: reading (twice), rules and signatures, of what is warm by now."""
    if not sample.taken.rows:
        return 0.0
    rounds = []
    for _ in range(2):  # the first one loads what it needs
        start = time.process_time()
        for _ in range(2):  # the index, and the documents
            read = list(items(sample.taken.rows, piece_splitter(config)))
        deque(documents("", read, [0] * len(read), "keep"), maxlen=0)
        for made in sample.rules(sample.documents):
            msgspec.json.encode(made)
        if config.filter.near_duplicates is not None and kept:
            signatures.sign([text.text for text in kept])
        rounds.append(time.process_time() - start)
    return min(rounds) / len(sample.taken.rows)


def _notes(name: str, sample: Sampled, texts: Sequence[Filtered]) -> list[str]:
    """What to say where there is nothing to plan with."""
    if texts:
        return []
    if not sample.taken.rows:
        return [f"{name}: has no rows"]
    note = f"{name}: the filter keeps nothing of the sample, so nothing is planned after it"
    first = next((made for _, made in sample.outcomes if isinstance(made, Reject)), None)
    return [note + (f"; the first row: {first.reason}, {first.detail}" if first else "")]
