"""The measures of a run on a demo world: `measure(RunFolder(path), config)`, printed by `kun demo-eval`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from kun.config.schema import Config
from kun.demo import evaluate
from kun.engines.base import ChoiceLogprobs
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.stage import StageSpec
from kun.records import Raw, Reject
from kun.store import shards
from stages.stage1_train import TRAIN
from stages.stage2_filter import FILTER
from stages.stage3_label import LABEL
from stages.stage4_score import Scoring
from stages.stage5_polish import POLISH

KEYS = {
    "filter.noise_recall": "noise caught",
    "filter.prose_loss": "prose lost",
    "label.subject_named": "instruction names the subject",
    "label.rouge_l": "instruction against gold, ROUGE-L",
    "score.auc": "good against spoiled instructions, AUC",
    "polish.facts_kept": "facts kept",
    "polish.unsupported": "numbers and names without support",
}


def measure(run: RunFolder, config: Config) -> dict[str, Any]:
    """The measures named in `KEYS`, with details. InputError where a stage has no rows yet."""
    if config.seeds.pairs is None:
        raise InputError(f"{run.path}: has no seeds, so it is no run on a demo world")
    gold_folder = Path(config.seeds.pairs).parent / "gold"
    documents = _lines(gold_folder / "documents.jsonl")
    instructions = _lines(gold_folder / "instructions.jsonl")
    kept = {_place(record) for record in _records(run, config, FILTER)}
    if others := kept - set(map(evaluate.key_of, documents)):
        subset, file, row = min(others)
        raise InputError(
            f"{run.path}: {len(others):,} rows are not in the gold key {gold_folder}, the first is row {row} of {file} "
            f"in {subset}: demo-eval needs a run on the corpora of the same `kun demo-data` as seeds.pairs"
        )
    filtered = evaluate.evaluate_filter(documents, kept)
    labelled = evaluate.evaluate_label(documents, _rows(run, config, LABEL))
    scored = evaluate.evaluate_score(instructions, score(run, config, [row["instruction"] for row in instructions]))
    polished = evaluate.evaluate_polish(documents, _rows(run, config, POLISH))
    nested = {"filter": filtered, "label": labelled, "score": scored, "polish": polished}
    return {f"{stage}.{name}": value for stage, measures in nested.items() for name, value in measures.items()}


def score(run: RunFolder, config: Config, instructions: list[str]) -> list[float]:
    """The scores that stage 4 gives these instructions, by the chat model of the run."""
    from kun.engines.cache import EngineCache
    from kun.models.chat import load_chat
    from kun.prompts import load_prompts

    folder = run.path / TRAIN.name / "chat"
    if not folder.exists():
        raise InputError(f"{folder}: there is no primary chat yet; run `kun run {TRAIN.command}` first")
    engines = EngineCache(config)
    engine = engines.open(folder)
    settings = config.score.model_copy(update={"method": "probability"})
    scoring = Scoring(load_prompts(config.prompts).score, settings, load_chat(folder), engine.window, config.seed)
    requests = [scoring.judge(instruction, None, instruction) for instruction in instructions]
    fitting = [request for request in requests if not isinstance(request, Reject)]
    answers = iter(next(iter(engine.run([fitting]))))
    engines.close()
    scores = []
    for request in requests:
        answer = None if isinstance(request, Reject) else next(answers)
        value = scoring.score(answer) if isinstance(answer, ChoiceLogprobs) else 0.0
        scores.append(value if isinstance(value, float) else 0.0)
    return scores


def render(measures: dict[str, Any]) -> str:
    """The measures as text."""
    lines = [f"{key:<22}{measures[key]:>8.4f}  {meaning}" for key, meaning in KEYS.items()]
    kinds = ", ".join(f"{kind} {row['dropped']:.0%} of {row['rows']}" for kind, row in measures["filter.kinds"].items())
    spoiled = ", ".join(f"{kind} {value:.3f}" for kind, value in measures["score.kinds"].items())
    return "\n".join([*lines, f"dropped: {kinds}", f"AUC by kind: {spoiled}"])


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; demo-eval needs the gold key of `kun demo-data`") from None
    return [msgspec.json.decode(line) for line in content.split(b"\n") if line]


def _records(run: RunFolder, config: Config, spec: StageSpec) -> Iterator[Any]:
    for subset in config.corpora:
        folder = run.path / spec.name / subset
        if not folder.exists():
            raise InputError(f"{folder}: has no rows yet; run `kun run {spec.command}` first")
        yield from shards.read_all(folder, spec.writes)


def _place(record: Raw) -> tuple[str, str, int]:
    return record.subset, record.origin.file, record.origin.row


def _rows(run: RunFolder, config: Config, spec: StageSpec) -> Iterator[dict[str, Any]]:
    for record in _records(run, config, spec):
        subset, file, row = _place(record)
        yield {**msgspec.structs.asdict(record), "subset": subset, "file": file, "row": row}
