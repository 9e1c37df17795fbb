"""A plan for people and for machines: `print(render(plan, "my.yaml"))`, `as_json(plan)`. At most 100 columns."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kun.planning.figures import Figure, Plan, gpu_hours, training_hours

WIDTH = 100
BASES = {
    "counted": "counted",
    "sample": "measured on the sample",
    "seeds": "measured on the seeds",
    "run": "measured in the run",
    "probe": "measured by the probe",
    "given": "given",
    "setting": "set",
    "assumed": "ASSUMED",
}
FORMULA = (
    "GPU hours = (prefill tokens / prefill rate + decode tokens / decode rate) / 3600; give both rates, tokens a "
    "second of one GPU, by --prefill-rate and --decode-rate, or let --probe measure them on this machine"
)


def render(plan: Plan, source: str, overrides: Sequence[str] = ()) -> str:
    """The plan as text for a terminal; `source` is the file of the configuration, `overrides` its options."""
    lines = [f"plan of {source} for {plan.run}: up to {plan.sample:,} rows of each corpus looked at", ""]
    lines += [*_rows(plan), "", *_tokens(plan), "", *_hours(plan), "", *_disk(plan), "", "what this rests on"]
    lines += [line for text in _basis(plan) for line in _wrapped(text)]
    lines += [line for note in plan.notes for line in _wrapped(f"note: {note}")]
    settings = shlex.join(["--config", source, *overrides])
    if not plan.fits:
        lines.append(f"next: free some space, or take another folder: kun plan {settings} --run /larger/disk/run")
    elif plan.rates is None:
        lines.append(f"next: kun plan {settings} --probe, or with both rates, for the hours")
    else:
        lines.append(f"next: kun run all {settings}")
    return "\n".join(lines)


def as_json(plan: Plan) -> dict[str, Any]:
    """What `kun plan --json` prints: all figures with what they rest on, and the sums."""
    sums = {"filter_hours": plan.filter_hours, "gpu_hours": plan.gpu_hours, "wall_hours": plan.wall_hours}
    sums |= {"cost": plan.cost, "needed": plan.needed, "fits": plan.fits}
    return {**msgspec.to_builtins(plan), "total": sums}


def _rows(plan: Plan) -> Iterator[str]:
    heads = ("rows", "read", "filtered", "labelled", "selected", "final")
    table = []
    for subset in plan.subsets:
        work = [one for one in plan.work if one.subset == subset.name]
        filtered = subset.rows.value * subset.filtered.value
        table.append([subset.rows.value, filtered, *(one.kept for one in work)])
    names = [subset.name for subset in plan.subsets]
    if len(table) > 1:
        table.append([sum(column) for column in zip(*table, strict=True)])
        names.append("all")
    cells = [[name, *map(count, row)] for name, row in zip(names, table, strict=True)]
    yield from _table([list(heads), *cells])


def _tokens(plan: Plan) -> Iterator[str]:
    table = [["tokens", "requests", "prefill", "of it repeated", "decode", "GPU hours"]]
    for model in plan.training:
        hours = None if plan.rates is None else training_hours(model, plan.rates)
        name, examples = _words(model.step), f"{model.examples:,} x {model.epochs:g}"
        table.append([name, examples, f"{count(model.tokens)} trained", "", "", _hour(hours)])
    for stage in dict.fromkeys(one.stage for one in plan.work):
        work = [one for one in plan.work if one.stage == stage]
        hours = None if plan.rates is None else sum(gpu_hours(one, plan.rates) for one in work)
        sums = (count(sum(getattr(one, name) for one in work)) for name in ("rows", "prefill", "repeated", "decode"))
        table.append([_words(stage), *sums, _hour(hours)])
    yield from _table(table)
    cached = sorted({_words(one.stage) for one in plan.work if one.cached})
    once = f"the engine computes once in {', '.join(cached)}" if cached else "this engine computes each time"
    yield from _wrapped(f"repeated: what all prompts of a stage open with, which {once}")


def _hours(plan: Plan) -> Iterator[str]:
    cores = f"{_hour(plan.filter_hours)} processor hours, {_hour(plan.filter_hours / plan.cores)} on {plan.cores} cores"
    yield f"{_words(plan.filter_stage)}: {cores}"
    if plan.rates is None or plan.gpu_hours is None or plan.wall_hours is None:
        yield from _wrapped(FORMULA)
        return
    gpus = "1 GPU" if plan.gpus == 1 else f"{plan.gpus} GPUs (training takes one)"
    line = f"models: {_hour(plan.gpu_hours)} GPU hours, {_hour(plan.wall_hours)} on {gpus}"
    yield line + ("; --price gives the cost" if plan.cost is None else f", {plan.cost:,.2f} dollars")


def _disk(plan: Plan) -> Iterator[str]:
    yield from _table([["disk", "size"], *([space.what, size(space.bytes)] for space in plan.disk)])
    line = f"{size(plan.needed)} in all; {size(plan.free)} are free at {plan.run}"
    yield line + (f", and {size(plan.held)} are its own already" if plan.held else "")
    if not plan.fits:
        yield "WARNING: it does not fit"


def _basis(plan: Plan) -> Iterator[str]:
    if plan.training:
        yield f"{plan.training[0].command}, tokens: counted (every seed; examples x epochs of train)"
    for subset in plan.subsets:
        yield _figure(f"{subset.name}, rows", count, subset.rows)
        yield _figure(f"{subset.name}, filtered", _percent, subset.filtered)
    yield _each(
        "filter, microseconds a row", lambda v: f"{v * 1e6:,.0f}", [(s.name, s.filter_seconds) for s in plan.subsets]
    )
    for stage in dict.fromkeys(one.stage for one in plan.work):
        asked = [(subset.name, one) for subset in plan.subsets for one in subset.asked if one.stage == stage]
        name = _words(stage)
        yield _each(f"{name}, tokens of a prompt", lambda v: f"{v:,.0f}", [(n, one.prompt) for n, one in asked])
        yield _each(f"{name}, tokens of a reply", lambda v: f"{v:,.0f}", [(n, one.reply) for n, one in asked])
        yield _each(f"{name}, share kept", _percent, [(n, one.kept) for n, one in asked])
    if plan.rates is not None:
        rates = f"prefill {plan.rates.prefill:,.0f}, decode {plan.rates.decode:,.0f} tokens a second"
        yield f"rates: {rates}: {BASES[plan.rates.basis]} ({plan.rates.how})"
        if plan.training:
            yield "training: a token costs as three of prefill: ASSUMED (--prefill-rate changes it)"
    for how in dict.fromkeys(space.how for space in plan.disk):
        yield f"disk, {', '.join(space.what for space in plan.disk if space.how == how)}: {how}"


def _each(what: str, show: Any, figures: Sequence[tuple[str, Figure]]) -> str:
    """One line for all corpora where their figures rest on the same."""
    if len({(figure.basis, figure.how) for _, figure in figures}) == 1:
        shown = {name: show(figure.value) for name, figure in figures}
        alike = len(set(shown.values())) == 1
        values = min(shown.values()) if alike else ", ".join(f"{name} {value}" for name, value in shown.items())
        return f"{what}: {values}: {BASES[figures[0][1].basis]} ({figures[0][1].how})"
    return f"{what}: " + "; ".join(
        f"{name} {show(figure.value)}: {BASES[figure.basis]} ({figure.how})" for name, figure in figures
    )


def _figure(what: str, show: Any, figure: Figure) -> str:
    between = ""
    if figure.low is not None and figure.high is not None:
        between = f", 95 % between {show(figure.low)} and {show(figure.high)}"
    return f"{what} {show(figure.value)}{between}: {BASES[figure.basis]} ({figure.how})"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *others = row
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def count(number: float) -> str:
    """A whole number below a million; three digits with M, B or T from there."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}" if number < 1000 * limit else f"{number / limit:,.0f} {unit}"
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes, in decimal units as disks are sold."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= limit:
            return f"{number / limit:,.3g} {unit}" if number < 1000 * limit else f"{number / limit:,.0f} {unit}"
    return f"{number / 1e3:,.1f} kB"


def _words(name: str) -> str:
    """The name of a stage or a step, for people."""
    return name.replace("_", " ").replace("/", " ")


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _hour(hours: float | None) -> str:
    if hours is None:
        return "?"
    if 0 < hours < 0.005:
        return "<0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"
