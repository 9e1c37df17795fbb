"""Stage 4, score: the primary chat judges each instruction; the good ones are selected. `kun run stage4`

Kun judges the instruction only: scoring the pair did not tell good instructions from bad. The score is the probability
of the good verdict over both verdicts, read from one forward pass; the paper's drawn verdict is `method: sampled`.
Where to cut is decided afterwards, from the scores alone (kun/checks/selection.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec

from kun.checks.answers import verdict
from kun.checks.selection import cut, read_calibration
from kun.config.schema import Config, Score
from kun.engines.base import ChoiceLogprobs, Engine, Failure, Generate, Generated, Request, ScoreChoices, request_seed
from kun.engines.cache import EngineCache, window
from kun.errors import ConfigError, KunError
from kun.models.chat import Chat, load_chat
from kun.pipeline.run_folder import read_manifest
from kun.pipeline.stage import Build, Folders, Infer, Map, Stage, Step, flatten_settings
from kun.progress import Progress
from kun.prompts import JudgePrompt, load_prompts
from kun.records import Labelled, Reject, Scored, extend
from kun.store import atomic, shards
from kun.store.digests import Digests
from kun.text.normal import preview


@dataclass(frozen=True)
class Scoring:
    """Both halves of the stage. `window`: longest prompt plus reply, in tokens; `seed`: that of the run."""

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
        """The question for the verdict on any instruction, such as one of the calibration file."""
        tokens = self.chat.prompt(self.prompt.messages(instruction, text))
        sampling = self.settings.sampling
        sampled = self.settings.method == "sampled"
        shared, choices = _verdict_tokens(self.chat, self.prompt)
        room = sampling.max_tokens if sampled else len(shared) + max(map(len, choices))
        if len(tokens) + room > self.window:
            return Reject("over_window", f"{len(tokens)} + {room} of {self.window} tokens")
        if sampled:
            return Generate(tokens, sampling, request_seed(self.seed, identity, "score"))
        return ScoreChoices(tokens + shared, choices)

    def score(self, answer: Generated | ChoiceLogprobs) -> float | Reject:
        """The share of the good verdict, in [0, 1]; 1 or 0 for a drawn verdict."""
        if isinstance(answer, ChoiceLogprobs):
            good, bad = answer.logprobs
            if max(good, bad) == -math.inf:
                return Reject("no_verdict", "both verdicts have probability 0")
            return 1 / (1 + math.exp(min(bad - good, 700.0)))
        reply = self.chat.decode(answer.tokens)
        is_good = verdict(reply, self.prompt.good, self.prompt.bad)
        return Reject("no_verdict", preview(reply)) if is_good is None else float(is_good)


def select(record: Scored, lowest: float) -> Scored | Reject:
    """The record where its score reaches the cut."""
    return record if record.score >= lowest else Reject("low_score", f"{record.score} is below {lowest}")


def _verdict_tokens(chat: Chat, prompt: JudgePrompt) -> tuple[list[int], tuple[tuple[int, ...], tuple[int, ...]]]:
    """The tokens that both verdicts open with, and what follows in each: the former cancel out of the score."""
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
    """The verdicts of the primary chat of stage 1 (on the calibration file too, if that decides); the selection."""
    settings = config.score
    prompt = cache(lambda: load_prompts(config.prompts).score)  # not here: a run that was received may lack the folder
    asked: dict[str, Any] = {"score.method": settings.method}
    if settings.method == "sampled":
        asked |= {**flatten_settings("score.sampling", settings.sampling), "seed": config.seed}

    def decides() -> Mapping[str, Any]:
        return {**asked, "prompts.score": prompt().digest, "window": window(config)}

    def scoring(folders: Folders, engine: Engine) -> Scoring:
        return Scoring(
            prompt(), settings, load_chat(folders(primary_chat), config.trust_remote_code), engine.window, config.seed
        )

    verdicts = Stage(
        "stage4",
        "stage4_verdicts",
        Infer(
            reads=Labelled,
            writes=Scored,
            engine=lambda folders: engines.open(folders(primary_chat)),
            asker=lambda step, folders, engine: scoring(folders, engine),
        ),
        tuple(Step("stage4_verdicts", step.part, decides, (step, primary_chat)) for step in labelled),
    )
    calibrations = []
    chosen: dict[str, Any] = {"score.select": settings.select}
    if settings.select == "best_f1" and settings.calibration:
        path = Path(settings.calibration)

        def calibrate(step: Step, folder: Path, folders: Folders, progress: Progress) -> Mapping[str, Any]:
            engine = engines.open(folders(primary_chat))
            return _calibrate(scoring(folders, engine), engine, path, folder, progress)

        def given() -> dict[str, Any]:
            calibration = digests.path(path, "score.calibration")
            return {**decides(), "score.calibration": calibration}

        step = Step("stage4_calibration", "verdicts", given, (primary_chat,))
        calibrations = [Stage("stage4", "stage4_calibration", Build(calibrate), (step,))]
    elif settings.select == "threshold":
        chosen["score.threshold"] = settings.threshold
    else:
        chosen["score.top_share"] = settings.top_share
    needs = tuple(step for stage in calibrations for step in stage.steps)
    selection = Stage(
        "stage4",
        "stage4_score",
        Map(reads=Scored, writes=Scored, open=partial(_selector, settings)),
        tuple(Step("stage4_score", step.part, lambda: chosen, (step, *needs)) for step in verdicts.steps),
    )
    return [verdicts, *calibrations, selection]


def _calibrate(scoring: Scoring, engine: Engine, path: Path, folder: Path, progress: Progress) -> Mapping[str, Any]:
    """Score the judged instructions into `folder`/scores.json: [score, is good]; those without one are counted.

    KunError where the engine fails: a cut on fewer rows would be another cut.
    """
    judged = read_calibration(path)
    asked = [scoring.judge(instruction, None, f"calibration-{row}") for row, (instruction, _) in enumerate(judged)]
    requests = [item for item in asked if isinstance(item, Request)]
    answers = iter(next(iter(engine.run([requests]))))
    scores: list[tuple[float, bool]] = []
    for item, (_, is_good) in zip(asked, judged, strict=True):
        answer = next(answers) if isinstance(item, Request) else item
        if isinstance(answer, Failure):
            raise KunError(f"{path}: an instruction got no answer ({answer.error}); run the same command again")
        score = None if isinstance(answer, Reject) else scoring.score(answer)
        if isinstance(score, float):
            scores.append((score, is_good))
        progress(len(scores), len(judged))
    lowest = cut([], scoring.settings, scores)
    atomic.write(folder / "scores.json", msgspec.json.encode(scores))
    return {"cut": round(lowest, 4), "judged": len(judged), "without verdict": len(judged) - len(scores)}


def _selector(settings: Score, step: Step, folders: Folders) -> partial[list[Scored | Reject]]:
    """`select` with the cut of the step's subset, for the records of a shard."""
    source, *calibration = step.needs
    judged: list[tuple[float, bool]] = []
    scores: list[float] = []
    if calibration:
        judged = msgspec.json.decode(
            (folders(calibration[0]) / "scores.json").read_bytes(), type=list[tuple[float, bool]]
        )
    if settings.select == "top_share":
        folder = folders(source)
        whole = read_manifest(folder)
        rows = (shards.read_kept(folder, index, Scored) for index in range(whole.shards if whole else 0))
        scores = [record.score for records in rows for record in records]
    return partial(_select_all, lowest=cut(scores, settings, judged))


def _select_all(records: Sequence[Scored], lowest: float) -> list[Scored | Reject]:
    return [select(record, lowest) for record in records]
