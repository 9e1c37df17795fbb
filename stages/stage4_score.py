"""Stage 4, score: the primary chat judges each instruction; the good ones are selected. `kun run stage4`

Only the instruction is judged: scoring the pair did not tell good instructions from bad. The score is the probability
of the good verdict relative to both verdicts, read from one forward pass; `method: sampled` is the paper's drawn
verdict. The cut is decided afterwards, from the scores alone (kun/checks/selection.py). Before all others the judge
scores seed instructions and spoiled copies of them, so that one that does not discriminate is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kun.checks.answers import verdict
from kun.checks.discrimination import agreement, on_copies, spread
from kun.checks.selection import best_f1, cut, read_calibration
from kun.config.schema import Config, Score
from kun.engines.base import ChoiceLogprobs, Engine, Failure, Generate, Generated, Request, ScoreChoices, request_seed
from kun.engines.cache import EngineCache, window
from kun.errors import ConfigError, KunError
from kun.models.chat import Chat, load_chat
from kun.pipeline.stage import Build, Infer, Map, Measure, Stage, StageSpec, Step, StepContext, StepSettings
from kun.progress import Progress
from kun.prompts import JudgePrompt, load_prompts
from kun.records import Labelled, Reject, Scored, extend
from kun.store import atomic, shards
from kun.store.digests import Digests
from kun.text.normal import preview
from kun.training.judging import TRIAL, Tried

SUMMARY = "let the primary chat score the instructions, and select the good ones"
MEASURES = (Measure("score", "score of instructions, before selection"),)
VERDICTS = StageSpec("stage4", "stage4_verdicts", "inference", Labelled, Scored, measures=MEASURES, summary=SUMMARY)
TRIED = StageSpec("stage4", "stage4_judge", "artefact", per_subset=False)
SPREAD = StageSpec("stage4", "stage4_spread", "artefact")
CALIBRATION = StageSpec("stage4", "stage4_calibration", "artefact", per_subset=False)
SELECTION = StageSpec("stage4", "stage4_score", "filter", Scored, Scored)


@dataclass(frozen=True)
class Scoring:
    """The ask and accept of the stage. `window`: the longest prompt plus reply, in tokens; `seed`: that of the run."""

    prompt: JudgePrompt
    settings: Score
    chat: Chat
    window: int
    seed: int

    def ask(self, record: Labelled) -> Request | Reject:
        text = record.text if self.settings.method == "pair" else None
        return self.judge(record.instruction, text, record.id)

    def accept(self, record: Labelled, answer: Generated | ChoiceLogprobs) -> Scored | Reject:
        score = self.score(answer)
        return score if isinstance(score, Reject) else extend(record, Scored, score=score)

    def judge(self, instruction: str, text: str | None, identity: str) -> Request | Reject:
        """The request for a verdict on any instruction, such as one of the calibration file."""
        tokens = self.chat.prompt(self.prompt.messages(instruction, text))
        sampled = self.settings.method == "sampled"
        shared, choices = _verdict_tokens(self.chat, self.prompt)
        room = self.settings.sampling.max_tokens if sampled else len(shared) + max(map(len, choices))
        if len(tokens) + room > self.window:
            return Reject("over_window", f"{len(tokens)} + {room} of {self.window} tokens")
        if sampled:
            return Generate(tokens, self.settings.sampling, request_seed(self.seed, identity, "score"))
        return ScoreChoices(tokens + shared, choices)

    def score(self, answer: Generated | ChoiceLogprobs) -> float | Reject:
        """The probability of the good verdict relative to both, in [0, 1]; for a drawn verdict 1 or 0."""
        if isinstance(answer, ChoiceLogprobs):
            good, bad = answer.logprobs
            if max(good, bad) == -math.inf:
                return Reject("no_verdict", "both verdicts have probability 0")
            return 1 / (1 + math.exp(min(bad - good, 700.0)))
        reply = self.chat.decode(answer.tokens)
        is_good = verdict(reply, self.prompt.good, self.prompt.bad)
        return Reject("no_verdict", preview(reply)) if is_good is None else float(is_good)


def select(record: Scored, lowest: float) -> Scored | Reject:
    """The record, if its score reaches the cut."""
    return record if record.score >= lowest else Reject("low_score", f"{record.score} is below {lowest}")


def _verdict_tokens(chat: Chat, prompt: JudgePrompt) -> tuple[list[int], tuple[tuple[int, ...], tuple[int, ...]]]:
    """The tokens that both verdicts begin with, which cancel out of the score, and the rest of each verdict."""
    good, bad = chat.encode(prompt.good), chat.encode(prompt.bad)
    shared = 0
    while good[shared : shared + 1] == bad[shared : shared + 1] != []:
        shared += 1
    if not good[shared:] or not bad[shared:]:
        raise ConfigError(
            f"prompts: in the tokens of the base model one verdict opens with the other ({prompt.good}, {prompt.bad}); "
            "choose other words for good and bad in score.yaml"
        )
    return good[:shared], (tuple(good[shared:]), tuple(bad[shared:]))


def stages(
    config: Config, digests: Digests, engines: EngineCache, primary_chat: Step, labelled: Sequence[Step]
) -> list[Stage]:
    """The trial of the judge; its verdicts, also on the calibration file if there is one; then the selection."""

    def engine(folder_of: Callable[[Step], Path]) -> Engine:
        return engines.open(folder_of(primary_chat))

    judging = partial(_judging, config)
    tried = Step(TRIED, "copies", judging, (primary_chat,))
    judged = tuple(Step(VERDICTS, step.part, judging, (step, primary_chat)) for step in labelled)
    verdicts = Stage(VERDICTS, Infer(engine, partial(scoring, primary_chat)), judged)
    trial = Stage(TRIED, Build(partial(_try_judge, engine), unit="verdicts"), (tried,))
    spreads = tuple(Step(SPREAD, step.part, partial(StepSettings.of, config, ()), (step, tried)) for step in judged)
    calibration = _calibration(config, digests, engine, primary_chat)
    deciding = calibration if config.score.select == "best_f1" else []
    needs = tuple(step for stage in deciding for step in stage.steps)
    selected = tuple(Step(SELECTION, step.part, partial(_selecting, config), (step, *needs)) for step in judged)
    selection = Stage(SELECTION, Map(open_selection, decide_cut), selected)
    return [trial, verdicts, Stage(SPREAD, Build(_measure_spread), spreads), *calibration, selection]


def scoring(primary_chat: Step, context: StepContext, engine: Engine) -> Scoring:
    settings = context.settings
    return Scoring(
        load_prompts(settings.prompts).score,
        settings.score,
        load_chat(context.folder_of(primary_chat), settings.trust_remote_code),
        engine.window,
        settings.seed if settings.score.method == "sampled" else 0,
    )


def decide_cut(context: StepContext) -> float:
    """The lowest score that a subset keeps, by its scores or by those of the calibration file."""
    score = context.settings.score
    calibration: list[tuple[float, bool]] = []
    scores: list[float] = []
    if score.select == "best_f1":
        data = (context.need(1) / "scores.json").read_bytes()
        calibration = msgspec.json.decode(data, type=list[tuple[float, bool]])
    if score.select == "top_share":
        scores = [record.score for record in shards.read_all(context.need(0), Scored)]
    return cut(scores, score, calibration)


def open_selection(_: StepContext, lowest: float) -> partial[list[Scored | Reject]]:
    """`select` for the records of a shard, with the cut of its subset."""
    return partial(_select_all, lowest=lowest)


def _judging(config: Config, *names: str, **content: Any) -> StepSettings:
    """The settings that decide a verdict, and those named by `names`, with the `content` of those that are paths."""
    drawn = ("score.sampling", "seed") if config.score.method == "sampled" else ()
    prompt = load_prompts(config.prompts).score  # only now: a run copied from elsewhere may lack the prompts
    names = ("score.method", "prompts", *drawn, *names)
    return StepSettings.of(config, names, prompts__score=prompt.digest, window=window(config), **content)


def _selecting(config: Config) -> StepSettings:
    deciding = {"threshold": ["score.threshold"], "top_share": ["score.top_share"], "best_f1": []}
    return StepSettings.of(config, ["score.select", *deciding[config.score.select]])


def _calibration(
    config: Config, digests: Digests, engine: Callable[[Callable[[Step], Path]], Engine], primary_chat: Step
) -> list[Stage]:
    """The stage that judges the calibration file, if there is one."""
    path = config.score.calibration
    if path is None or config.score.method == "pair":
        return []

    def settings() -> StepSettings:
        content = {"score.calibration": digests.path(path, "score.calibration")}
        names = [*(["score.threshold"] if config.score.select == "threshold" else []), "score.select"]
        return _judging(config, *names, "score.calibration", **content)

    calibrate = Build(partial(_calibrate, engine), unit="verdicts")
    return [Stage(CALIBRATION, calibrate, (Step(CALIBRATION, "verdicts", settings, (primary_chat,)),))]


def _calibrate(
    engine: Callable[[Callable[[Step], Path]], Engine], context: StepContext, progress: Progress
) -> Mapping[str, Any]:
    """Write [score, is good] of each judged instruction into scores.json, and tell how both agree: at the threshold, or
    at the cut with the best F1."""
    path, settings = Path(context.settings.score.calibration or ""), context.settings.score
    judged = read_calibration(path)
    asked = [(instruction, None, f"calibration-{row}") for row, (instruction, _) in enumerate(judged)]
    given = _judge_all(engine, context, asked, path, progress)
    scores = [(score, is_good) for score, (_, is_good) in zip(given, judged, strict=True) if score is not None]
    lowest = settings.threshold if settings.select == "threshold" else best_f1(scores)
    atomic.write(context.folder / "scores.json", msgspec.json.encode(scores))
    counts = {"cut": round(lowest, 4), "judged": len(judged), "without verdict": len(judged) - len(scores)}
    return counts | agreement(scores, lowest)


def _try_judge(
    engine: Callable[[Callable[[Step], Path]], Engine], context: StepContext, progress: Progress
) -> Mapping[str, Any]:
    """Judge the trial that stage 1 left with the chat model; write its scores by kind of spoiling into scores.json."""
    path = context.need(0) / TRIAL
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [msgspec.json.decode(line, type=Tried) for line in lines]
    pair = context.settings.score.method == "pair"
    asked = [(row.instruction, row.text if pair else None, f"trial-{number}") for number, row in enumerate(rows)]
    given = _judge_all(engine, context, asked, path, progress) if asked else []
    scores: dict[str, list[float]] = {}
    for score, row in zip(given, rows, strict=True):
        if score is not None:
            scores.setdefault(row.kind, []).append(score)
    report = on_copies(scores)
    atomic.write(context.folder / "scores.json", msgspec.json.encode({"AUC": report.get("AUC"), "scores": scores}))
    return report


def _measure_spread(context: StepContext, progress: Progress) -> Mapping[str, Any]:
    scores = [record.score for record in shards.read_all(context.need(0), Scored)]
    tried = msgspec.json.decode((context.need(1) / "scores.json").read_bytes())
    report = spread(scores, tried["AUC"])
    atomic.write(context.folder / "spread.json", msgspec.json.encode(report))
    return report


def _judge_all(
    engine: Callable[[Callable[[Step], Path]], Engine],
    context: StepContext,
    asked: Sequence[tuple[str, str | None, str]],
    path: Path,
    progress: Progress,
) -> list[float | None]:
    """The scores of instructions of a file, each with a text or None, and a name; None for those without a verdict.

    KunError where the engine fails: a measure of fewer rows would be another one.
    """
    opened = engine(context.folder_of)
    judge = scoring(context.step.needs[0], context, opened)
    requests = [judge.judge(*one) for one in asked]
    answers = iter(next(iter(opened.run([[one for one in requests if isinstance(one, Request)]]))))
    scores: list[float | None] = []
    for request in requests:
        answer = next(answers) if isinstance(request, Request) else request
        if isinstance(answer, Failure):
            raise KunError(f"{path}: an instruction got no answer ({answer.error}); run the same command again")
        score = None if isinstance(answer, Reject) else judge.score(answer)
        scores.append(score if isinstance(score, float) else None)
        progress(len(scores), len(requests))
    return scores


def _select_all(records: Sequence[Scored], lowest: float) -> list[Scored | Reject]:
    return [select(record, lowest) for record in records]
