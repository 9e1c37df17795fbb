"""What a run will take, from averages of a sample: arithmetic only; `kun.planning.plan` measures.

work = flow(subset)                      # rows and tokens of each model stage, one after the other
hours = gpu_hours(work[0], rates)        # of one GPU
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

Basis = Literal["counted", "sample", "seeds", "run", "probe", "given", "setting", "assumed"]
NORMAL_95 = 1.96  # standard deviations on each side of 95 % of a normal distribution
TRAINING = 3.0  # a token of training costs as many of prefill: forwards, and backwards about twice as much
REASON_BYTES = 100  # of a rejected row beside its record: reason, detail, brackets


class Figure(msgspec.Struct, frozen=True):
    """A number, what it rests on, and in words how, or which option or setting changes it. `low` to `high` is a 95 %
    interval, where there is one."""

    value: float
    basis: Basis
    how: str
    low: float | None = None
    high: float | None = None


class StageLoad(msgspec.Struct, frozen=True):
    """What a model stage is asked for each row that comes to it, in tokens on average; `repeated` are those of
    the prompt that all prompts open with, `kept` is the share of rows that go on.

    `cached`: the engine computes what is repeated once. `bytes`: of a kept record, of one as it came.
    """

    stage: str
    prompt: Figure
    repeated: float
    reply: Figure
    kept: Figure
    cached: bool
    bytes: tuple[float, float]


class Subset(msgspec.Struct, frozen=True):
    """A corpus: its rows, the share that the filter keeps, what the model stages are asked, in order.

    `filter_bytes` are on the disk for each row read, `final_bytes` for each row of the end; `filter_seconds` of one
    core, for each row read.
    """

    name: str
    rows: Figure
    filtered: Figure
    filter_seconds: Figure
    filter_bytes: float
    final_bytes: float
    asked: tuple[StageLoad, ...]


class Training(msgspec.Struct, frozen=True):
    """The training of one model, a step of the stage that `command` runs: `tokens` are those of all epochs."""

    step: str
    command: str
    examples: int
    epochs: float
    tokens: float


class Work(msgspec.Struct, frozen=True):
    """What a model stage does for a subset: rows in and out, tokens of prompts, those of them that an engine which
    remembers prompts computes but once, tokens of replies, bytes on the disk."""

    stage: str
    subset: str
    rows: float
    kept: float
    prefill: float
    repeated: float
    cached: bool
    decode: float
    bytes: float


class Rates(msgspec.Struct, frozen=True):
    """Tokens a second of one GPU."""

    prefill: float
    decode: float
    basis: Basis
    how: str


class Space(msgspec.Struct, frozen=True):
    """Bytes that something will take on the disk."""

    what: str
    bytes: float
    how: str


def flow(subset: Subset) -> list[Work]:
    """The model stages of a subset; each gets the rows that the one before it keeps."""
    rows, found = subset.rows.value * subset.filtered.value, []
    for asked in subset.asked:
        kept = rows * asked.kept.value
        after, before = asked.bytes
        found.append(
            Work(
                stage=asked.stage,
                subset=subset.name,
                rows=rows,
                kept=kept,
                prefill=rows * asked.prompt.value,
                repeated=rows * asked.repeated,
                cached=asked.cached,
                decode=rows * asked.reply.value,
                bytes=kept * after + (rows - kept) * (before + REASON_BYTES),
            )
        )
        rows = kept
    return found


def gpu_hours(work: Work, rates: Rates) -> float:
    """Hours of one GPU: prefill and decode share its time, so theirs add up."""
    prefill = work.prefill - (work.repeated if work.cached else 0)
    return (prefill / rates.prefill + work.decode / rates.decode) / 3600


def training_hours(training: Training, rates: Rates) -> float:
    """Hours of one GPU, by the assumed cost of a token of training."""
    return training.tokens * TRAINING / rates.prefill / 3600


def rows_of(weights: Sequence[float], counted: bool, everywhere: bool, how: str) -> Figure:
    """The rows of a corpus: the sum of what the sampled ones stand for.

    With an interval where it is estimated by rows from everywhere; beginnings of files do not tell how far the rest is
    like them.
    """
    total, number = sum(weights), len(weights)
    if counted:
        return Figure(total, "counted", how)
    if not everywhere:
        return Figure(total, "sample", how)
    mean = total / number if number else 0.0
    spread = sum((weight - mean) ** 2 for weight in weights) * number / max(number - 1, 1)
    half = NORMAL_95 * math.sqrt(spread)
    return Figure(total, "sample", how, max(total - half, float(number)), total + half)


def share_of(weights: Sequence[float], kept: Sequence[bool], how: str) -> Figure:
    """The weighted share of what is kept, with Wilson's 95 % interval for as many equal weights as would be as good.

    Of a corpus that the sample is nearly all of, the interval closes.
    """
    total = sum(weights)
    if not total:
        return Figure(0.0, "sample", how)
    share = sum(weight for weight, one in zip(weights, kept, strict=True) if one) / total
    unseen = 1 - len(weights) / max(total, len(weights))
    if unseen < 1e-9:
        return Figure(share, "counted", how)
    number = total**2 / sum(weight**2 for weight in weights) / unseen
    z = NORMAL_95**2 / number
    centre = (share + z / 2) / (1 + z)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / number + z / (4 * number)) / (1 + z)
    return Figure(share, "sample", how, max(centre - half, 0.0), min(centre + half, 1.0))


def mean(weights: Sequence[float], values: Sequence[float]) -> float:
    """The weighted mean, 0 of nothing."""
    total = sum(weights)
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / total if total else 0.0


class Plan(msgspec.Struct, frozen=True):
    """All that `kun plan` says. Hours are None without rates, the cost without a price too; `free` and `held` are bytes
    on the disk of the run, free and taken by the run already."""

    run: str
    sample: int
    filter_stage: str
    subsets: tuple[Subset, ...]
    training: tuple[Training, ...]
    work: tuple[Work, ...]
    disk: tuple[Space, ...]
    free: int
    held: int
    cores: int
    gpus: int
    rates: Rates | None
    price: float | None
    notes: tuple[str, ...]

    @property
    def filter_hours(self) -> float:
        """Of one core."""
        return sum(subset.rows.value * subset.filter_seconds.value for subset in self.subsets) / 3600

    @property
    def gpu_hours(self) -> float | None:
        """Of one GPU, training included."""
        if self.rates is None:
            return None
        asked = sum(gpu_hours(work, self.rates) for work in self.work)
        return asked + sum(training_hours(model, self.rates) for model in self.training)

    @property
    def wall_hours(self) -> float | None:
        """With all GPUs at work; training takes one."""
        if self.rates is None or self.gpu_hours is None:
            return None
        training = sum(training_hours(model, self.rates) for model in self.training)
        return training + (self.gpu_hours - training) / self.gpus

    @property
    def cost(self) -> float | None:
        hours = self.gpu_hours
        return None if hours is None or self.price is None else hours * self.price

    @property
    def needed(self) -> float:
        """Bytes on the disk."""
        return sum(space.bytes for space in self.disk)

    @property
    def fits(self) -> bool:
        return self.needed <= self.free + self.held
