"""Where a run stands: `print(render(survey(stages, run)))`: the funnel, what is stale and why, what comes next."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from kun.errors import KunError
from kun.pipeline.run_folder import RunFolder, StepManifest
from kun.pipeline.stage import WARNING, Stage, Step
from kun.store import atomic, shards
from kun.text.normal import printable

NOTES = 5  # reasons why something is not complete, and warnings: more of them only with --verbose
LAST = "last_command.json"
Condition = Literal["complete", "failures", "partial", "stale", "waiting", "blocked"]


@dataclass(frozen=True)
class State:
    """One step. `counts` are those of its current folder or, if it is stale or waiting, of the folder to which its
    plain name still points; `why` explains stale and blocked. `first`: its rows are those of a corpus."""

    command: str
    stage: str
    part: str
    condition: Condition
    why: tuple[str, ...]
    counts: StepManifest
    records: bool
    first: bool = False


@dataclass(frozen=True)
class Final:
    """A data set of the run: its folder, the command that writes it, its number of rows. `stale`: not made from what
    its steps hold now, or damaged; `blocked`: unknown, because a step is blocked."""

    folder: str
    command: str
    condition: Literal["current", "stale", "missing", "blocked"]
    rows: int = 0


def survey(stages: list[Stage], run: RunFolder) -> list[State]:
    """The state of every step, in the order of the pipeline."""
    return [_state(stage, step, run) for stage in stages for step in stage.steps]


def next_command(states: Sequence[State], finals: Sequence[Final]) -> str | None:
    """The command to run next, None if all is complete; what is blocked comes after all that can be run."""
    waiting = [state.command for state in states if state.condition not in ("complete", "blocked")]
    waiting += [state.command for state in states if state.condition == "blocked"]
    # All steps may be done and the final files not: after a change of settings and back, or a kill.
    waiting += [final.command for final in finals if final.condition in ("missing", "stale")]
    return waiting[0] if waiting else None


def _state(stage: Stage, step: Step, run: RunFolder) -> State:
    records = stage.makes_records
    counts = StepManifest()
    try:
        counts = run.manifest(run.link(step)) or counts
        condition, why = _condition(step, run)
        if condition in ("complete", "failures"):
            counts = run.manifest(run.folder(step)) or counts
        elif condition == "partial" and records:
            counts = run.progress(step)
    except KunError as error:
        condition, why = "blocked", (str(error),)
    first = stage.spec.role == "ingest"
    return State(stage.command, stage.name, step.part, condition, why, counts, records, first)


def _condition(step: Step, run: RunFolder) -> tuple[Condition, tuple[str, ...]]:
    inputs = run.inputs(step)
    manifest = run.current(step)
    if manifest is not None:
        missing = inputs.missing if inputs else ""
        note = f"corpus {step.part} is not here, what was read of it stands in ({missing})"
        return ("failures" if manifest.failed else "complete"), (note,) if missing else ()
    if why := run.why(step):
        return "stale", tuple(why)
    return ("partial" if run.folder(step).exists() else "waiting"), ()


class LastCommand(msgspec.Struct, frozen=True):
    """The last command that made something, and how many records it asked of a model, by step."""

    command: str
    asked: dict[str, int]


def remember_command(run: RunFolder, command: str) -> None:
    last = LastCommand(command, dict(run.asked))
    atomic.write(run.path / LAST, msgspec.json.encode(last))


def last_command(run: RunFolder) -> LastCommand | None:
    try:
        return msgspec.json.decode((run.path / LAST).read_bytes(), type=LastCommand)
    except (OSError, ValueError):
        return None


def why_none(state: State, run: RunFolder) -> str:
    """Why a step kept no row: the most frequent reason, its first reject, and what to look at."""
    if not state.counts.rows:
        return "none: it had no rows"
    text = f"{state.counts.rows:,} rows ({_reasons(state.counts) or 'all failed'})"
    folder = run.path / state.stage / state.part
    first = next((row for key in state.counts.shards for row in shards.rejects(folder, key)), None)
    text += f"; the first: {first.reason}, {first.detail}" if first else ""
    reading = f"corpora.{state.part}.paths, .format and .field" if state.first else f"the settings of {state.command}"
    return f"{text}; see {reading}, and `kun show {run.path} {state.stage}/{state.part} --rejects`"


def as_json(states: Sequence[State], run: RunFolder, finals: Sequence[Final]) -> dict[str, Any]:
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
                "shards": len(state.counts.shards),
                "seconds": state.counts.seconds,
                **({} if state.records else {"report": state.counts.report}),
            }
            for state in states
        ],
        "last_command": last_command(run),
        "outputs": {final.folder: {"state": final.condition, "rows": final.rows} for final in finals},
        "next": next_command(states, finals),
    }


def render(states: Sequence[State], run: RunFolder, finals: Sequence[Final], verbose: bool = False) -> str:
    """The run as text for a terminal: a table of subsets by stages, and why what is not complete is not; `verbose`:
    the counts and the reasons of rejects of every step."""
    lines = [f"{run.path}", *(_funnel(states) if verbose else _table(states))]
    notes: dict[str, list[State]] = {}  # one missing file blocks many steps; it is named once
    for state in states:
        warning = state.counts.report.get(WARNING)
        for note in [f"{state.condition}: {reason}" for reason in state.why] + [f"warning: {warning}"] * bool(warning):
            notes.setdefault(note, []).append(state)
    for note, named in list(notes.items())[: None if verbose else NOTES]:
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        lines.append(f"{named[0].stage}/{named[0].part}{more}: {note}")
    if len(notes) > NOTES and not verbose:
        lines.append(f"and {len(notes) - NOTES} other reasons and warnings: --verbose")
    for final in finals:
        lines.append(f"{final.folder}: {final.condition}" + (f", {final.rows:,} rows" if final.rows else ""))
    return printable("\n".join(lines))


def _table(states: Sequence[State]) -> list[str]:
    """A line per step that serves all subsets, then one per subset with what each stage kept, or its condition."""
    subsets = {state.part for state in states if state.records}
    lines = [f"{state.stage}/{state.part}: {state.condition}" for state in states if state.part not in subsets]
    cells: dict[str, dict[str, str]] = {}
    for state in states:
        if state.records:
            kept = f"{state.counts.kept:,}"
            other = f"{kept} {state.condition}" if state.counts.kept else state.condition
            marks = {"complete": kept, "failures": f"{kept} +{state.counts.failed:,}!", "partial": f"{kept}..."}
            cells.setdefault(state.part, {})[state.stage] = marks.get(state.condition, other)
    stages = list(dict.fromkeys(state.stage for state in states if state.records))
    heads = ["kept", *(stage.replace("_", " ").replace("stage", "", 1) for stage in stages)]
    rows = [heads, *([part, *(found.get(stage, "") for stage in stages)] for part, found in cells.items())]
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    for name, *values in rows if cells else []:
        right = (" " * (width - _columns(value)) + value for value, width in zip(values, widths[1:], strict=True))
        lines.append("  ".join([name + " " * (widths[0] - _columns(name)), *right]))
    return lines


def _columns(text: str) -> int:
    """The width of a text in a terminal: Chinese characters take two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _funnel(states: Sequence[State]) -> list[str]:
    width = max([27, *(len(f"{state.stage}/{state.part}") + 1 for state in states)])
    lines = [f"{'step':<{width}}{'state':<10}{'in':>11}{'kept':>11}{'rejected':>10}{'failed':>8}"]
    for state in states:
        counts = state.counts
        start = f"{state.stage}/{state.part}".ljust(width) + f"{state.condition:<10}"
        if not state.records:
            lines.append(start + _report(counts))
            continue
        rejected = sum(counts.rejected.values())
        lines.append(f"{start}{counts.rows:>11,}{counts.kept:>11,}{rejected:>10,}{counts.failed:>8,}")
        lines += [f"    {_reasons(counts)}"] if counts.rejected else []
    return lines


def in_words(stage: Stage, manifest: StepManifest) -> str:
    """`1,000 in, 900 kept, 100 rejected (too_short 60, duplicate 40)`, or the report of a build."""
    if not stage.makes_records:
        return _report(manifest)
    rejected, reasons = sum(manifest.rejected.values()), _reasons(manifest)
    text = f"{manifest.rows:,} in, {manifest.kept:,} kept, {rejected:,} rejected" + (f" ({reasons})" if reasons else "")
    return text + (f", {manifest.failed:,} FAILED: run the stage again to retry them" if manifest.failed else "")


def _reasons(counts: StepManifest) -> str:
    """The reasons of rejects, the most frequent first."""
    ordered = sorted(counts.rejected.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in ordered)


def _report(counts: StepManifest) -> str:
    told = {name: value for name, value in counts.report.items() if name != WARNING}
    values = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in told.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())
