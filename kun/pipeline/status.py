"""Where a run stands: `print(render(survey(stages, run)))`: the funnel, what is stale and why, what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kun.errors import KunError
from kun.pipeline.run_folder import RunFolder, StepManifest, read_manifest
from kun.pipeline.stage import Stage, Step
from kun.text.normal import printable

Condition = Literal["complete", "failures", "partial", "stale", "waiting", "blocked"]


@dataclass(frozen=True)
class State:
    """One step. `counts` are those of its present folder, or, where it is stale or waits, of the one that its plain
    name still points at; `why` explains stale and blocked."""

    command: str
    stage: str
    part: str
    condition: Condition
    why: tuple[str, ...]
    counts: StepManifest
    records: bool


@dataclass(frozen=True)
class Final:
    """The data set of a run, with the rows that are in it. `stale`: not what stage 5 holds now, or damaged; `blocked`:
    that cannot be told, since a step is."""

    condition: Literal["current", "stale", "missing", "blocked"]
    rows: int = 0


def survey(stages: list[Stage], run: RunFolder) -> list[State]:
    """The state of every step, in the order of the pipeline."""
    return [_state(stage, step, run) for stage in stages for step in stage.steps]


def next_command(states: list[State], final: Final) -> str | None:
    """The stage to run next, None where all is complete."""
    done = final.condition in ("current", "blocked")  # if not: another setting was the last one, or a kill
    last = None if done or not states else states[-1].command
    return next((state.command for state in states if state.condition != "complete"), last)


def _state(stage: Stage, step: Step, run: RunFolder) -> State:
    records = stage.makes_records
    counts = StepManifest()
    try:
        counts = read_manifest(run.link(step)) or counts
        condition, why = _condition(step, run)
        if condition in ("complete", "failures"):
            counts = read_manifest(run.folder(step)) or counts
        elif condition == "partial" and records:
            counts = run.progress(step)
    except KunError as error:
        condition, why = "blocked", (str(error),)
    return State(stage.command, stage.name, step.part, condition, why, counts, records)


def _condition(step: Step, run: RunFolder) -> tuple[Condition, tuple[str, ...]]:
    whole = run.whole(step)
    if whole is not None:
        return ("failures" if whole.failed else "complete"), ()
    why = run.why_stale(step)
    if why:
        return "stale", tuple(why)
    if read_manifest(run.folder(step)) is not None:
        return "stale", (f"{step.needs[0].name} has new content",)
    return ("partial" if run.folder(step).exists() else "waiting"), ()


def as_json(states: list[State], run: RunFolder, final: Final) -> dict[str, Any]:
    """What `kun status --json` prints."""
    return {
        "run": str(run.path),
        "stages": [
            {
                "stage": state.stage,
                "subset" if state.records else "part": state.part,
                "state": state.condition,
                "why": list(state.why),
                "in": state.counts.rows,
                "kept": state.counts.kept,
                "rejected": state.counts.rejected,
                "failed": state.counts.failed,
                "shards": state.counts.shards,
                "seconds": state.counts.seconds,
                **({} if state.records else {"report": state.counts.report}),
            }
            for state in states
        ],
        "final": {"state": final.condition, "rows": final.rows},
        "next": next_command(states, final),
    }


def render(states: list[State], run: RunFolder, final: Final) -> str:
    """The funnel as text for a terminal."""
    width = max([27, *(len(f"{state.stage}/{state.part}") + 1 for state in states)])
    lines = [f"{run.path}", f"{'step':<{width}}{'state':<10}{'in':>11}{'kept':>11}{'rejected':>10}{'failed':>8}"]
    told: set[str] = set()  # one missing file blocks many steps; it is named once
    for state in states:
        counts = state.counts
        name = f"{state.stage}/{state.part}"
        if not state.records:
            lines.append(f"{name:<{width}}{state.condition:<10}{_report(counts)}")
        else:
            rejected = sum(counts.rejected.values())
            row = f"{counts.rows:>11,}{counts.kept:>11,}{rejected:>10,}{counts.failed:>8,}"
            lines.append(f"{name:<{width}}{state.condition:<10}{row}")
            if counts.rejected:
                lines.append(
                    "    " + ", ".join(f"{reason} {count:,}" for reason, count in _most_first(counts.rejected))
                )
        lines += [f"    why: {reason}" for reason in state.why if reason not in told]
        told |= set(state.why)
    rows = f"{'':>11}{final.rows:>11,}" if final.rows else ""
    lines.append(f"{'final':<{width}}{final.condition:<10}{rows}".rstrip())
    return printable("\n".join(lines))


def in_words(stage: Stage, whole: StepManifest) -> str:
    """`1,000 in, 900 kept, 100 rejected (too_short 60, duplicate 40)`, or what a build has to report."""
    if not stage.makes_records:
        return _report(whole)
    rejected = sum(whole.rejected.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in _most_first(whole.rejected))
    text = f"{whole.rows:,} in, {whole.kept:,} kept, {rejected:,} rejected" + (f" ({reasons})" if reasons else "")
    return text + (f", {whole.failed:,} FAILED: run the stage again to retry them" if whole.failed else "")


def _most_first(reasons: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def _report(counts: StepManifest) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in counts.report.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
