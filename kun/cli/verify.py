"""The command `kun verify RUN`: digests, counts, order and lineage of a run, or of a data set alone."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

import msgspec

from kun.cli.log import add_verbosity
from kun.config.files import command_of_run, load_of_run
from kun.dataset.lineage import made_by
from kun.errors import InputError, KunError
from kun.pipeline.lock import check_free
from kun.pipeline.run_folder import StepManifest
from kun.verify.final import is_final, verify_final
from kun.verify.part import Problem
from kun.verify.run import Finding, Works, verify
from kun.verify.steps import Key, StepFolder, astray, find, leftovers, made_from, other_settings, outdated, size

DESCRIPTION = """Check a run, or a data set alone, against its own digests, counts and lineage.

Needs the folder only: not the corpora, not the base model. Says which file of which step is bad, and how to make again
only that. Ends with 0 when all is well, 1 when something is bad, 2 when the folder is no run, or one that is at work.

  kun verify runs/demo
  kun verify downloads/wudao-kun        # the folder final/ of a run, alone
"""
MOST = 20  # problems of a step that are printed


def add_command(commands: Any) -> None:
    """Add `verify` to the commands of kun."""
    parser = commands.add_parser(
        "verify",
        help="check digests, counts, order and lineage of a run that came from elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run, or its folder final/ alone")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_verbosity(parser)
    parser.set_defaults(function=_verify)


def _works() -> Works:
    """What each stage does, by its name: the same in every run."""
    from stages import pipeline

    stages = pipeline(Config(), Digests(Path(os.devnull)), EngineCache(Config()))
    return {stage.name: stage.work for stage in stages}


def _verify(arguments: argparse.Namespace, _: list[str]) -> int:
    path: Path = arguments.run
    _check_arguments(path, arguments.workers)
    check_free(path / "lock")
    steps, known = find(path)
    left: list[dict[str, Any]] = []
    if steps:
        findings, wrong_final = _check_run(path, steps, known, arguments.workers)
        used = _used(path, steps, known, wrong_final)
        left = [{"path": str(one), "what": why, "bytes": size(one)} for one, why in leftovers(path, used)]
    elif is_final(path):
        findings = [verify_final(path)]
    else:
        raise InputError(f"{path}: is neither a run of Kun (it has no steps) nor the folder final/ of one")
    if arguments.json:
        print(msgspec.json.encode(_as_json(path, findings, left)).decode())
    else:
        print(render(path, findings, left))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def _check_arguments(path: Path, workers: int) -> None:
    if workers < 0:
        raise InputError(f"--workers {workers}: a number of processes, or 0: one per core")
    if not path.exists():
        raise InputError(f"{path}: there is no such folder; give that of a run, or the folder final/ of one")
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; give that of a run, or the folder final/ of one")


def _check_run(
    path: Path, steps: list[StepFolder], known: dict[Key, Path], workers: int
) -> tuple[list[Finding], Problem | None]:
    """What is found of each step and of the data set; and whether its plain name leads elsewhere."""
    findings = verify(path, _works(), workers)
    sound = {finding.folder for finding in findings if finding.state == "ok"}
    wrong = astray(path, path / "final")
    final = _check_final(path, steps, {key: folder for key, folder in known.items() if folder in sound}, wrong)
    findings += [final] if final else []
    polished = {step.name: step.digest for step in steps if step.stage == "stage5_polish"}
    old = outdated([*steps, StepFolder("final", path / "final", polished)])
    for finding in findings:
        if above := old.get(finding.step):
            finding.notes.append(other_settings(above))
    return findings, wrong


def _check_final(path: Path, steps: list[StepFolder], good: dict[Key, Path], wrong: Problem | None) -> Finding | None:
    """What is found of the data set of a run; None where it has none yet."""
    final = path / "final"
    if wrong is None and final.is_dir():
        return verify_final(final, good, [(step.name, step.digest) for step in steps if step.digest])
    finished = any(step.stage == "stage5_polish" and step.whole is not None for step in steps)
    if wrong is None and finished:
        wrong = Problem(".", "is not here, though stage 5 is through")
    return Finding("final", "bad", final, StepManifest(), [wrong]) if wrong else None


def _used(path: Path, steps: list[StepFolder], known: dict[Key, Path], wrong_final: Problem | None) -> set[Path]:
    """The folders that something still points at, or may."""
    final = path / "final"
    used = {step.folder for step in steps} | {final.resolve()}
    needs = [need for step in steps for need in step.needs.items()]
    used |= {folder.resolve() for folder in made_from([*needs, *made_by(final).items()], known)}
    unclear = {step.name for step in steps if step.astray}  # any of their folders may be the present one
    used |= {folder.resolve() for (name, _), folder in known.items() if name in unclear}
    return used | {folder.resolve() for folder in (path / "store").glob("final-*") if wrong_final}


def remedy(run: Path, finding: Finding) -> str | None:
    """The command that makes again what is bad of a step, and nothing else."""
    if finding.state != "bad":
        return None
    if not (run / "store").is_dir():
        if whole := _run_around(run):
            return f"`kun verify {shlex.quote(whole)}`, the run that this folder is of, tells how"
        return "this is a copy without its store: get the file again from where the rest came from"
    stage = "stage5" if finding.step == "final" else finding.step.split("_")[0]
    try:
        again = command_of_run(stage, run, load_of_run(run), run / "config.yaml")
    except KunError as error:
        return f"{error}; without settings nothing can be made again"
    if not finding.discard:
        return again
    if finding.discard == ["."]:
        return f"rm -r {shlex.quote(str(finding.folder))} && {again}"
    names = " ".join(name if "*" in name else shlex.quote(name) for name in finding.discard)
    return f"(cd {shlex.quote(str(finding.folder))} && rm -f {names}) && {again}"


def _run_around(final: Path) -> str | None:
    """The run that a folder final/, by its plain name or in the store, is still a part of."""
    folder = final.resolve().parent
    run = folder.parent if folder.name == "store" else folder
    return os.path.relpath(run) if (run / "store").is_dir() and (run / "config.yaml").is_file() else None


def render(run: Path, findings: list[Finding], left: list[dict[str, Any]]) -> str:
    """A line for every step, what is wrong below it, then what to do."""
    lines = [str(run)]
    width = max([27, *(len(finding.step) + 1 for finding in findings)])
    for finding in findings:
        counts = finding.counts
        counted = f"{counts.rows:,} rows, {counts.kept:,} kept" if counts.shards or counts.rows else ""
        counted += f", {counts.shards:,} shards" if counts.shards else ""
        state = "BAD" if finding.state == "bad" else finding.state
        lines.append(f"{finding.step:<{width}}{state:<8}{counted}".rstrip())
        lines += [f"    {problem.file}: {problem.what}" for problem in finding.problems[:MOST]]
        if len(finding.problems) > MOST:
            lines.append(f"    and {len(finding.problems) - MOST:,} more (--json names all)")
        lines += [f"    {note}" for note in finding.notes]
        if again := remedy(run, finding):
            lines.append(f"    again: {again}")
    lines += [f"left over: {one['path']} ({one['bytes'] / 1e6:,.1f} MB), {one['what']}" for one in left]
    bad = [finding.step for finding in findings if finding.state == "bad"]
    lines.append(f"BAD: {', '.join(bad)}" if bad else "all is well")
    return "\n".join(lines)


def _as_json(run: Path, findings: list[Finding], left: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "run": str(run),
        "ok": all(finding.state in ("ok", "absent") for finding in findings),
        "steps": [
            {
                "step": finding.step,
                "state": finding.state,
                "folder": str(finding.folder),
                "shards": finding.counts.shards,
                "in": finding.counts.rows,
                "kept": finding.counts.kept,
                "problems": finding.problems,
                "notes": finding.notes,
                "remedy": remedy(run, finding),
            }
            for finding in findings
        ],
        "left_over": left,
    }
