"""The command `kun verify RUN`: digests, counts, order and lineage of a run, or of a data set alone."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

import msgspec

from kun.config.files import command_of_run, load_of_run
from kun.dataset.lineage import made_by
from kun.errors import InputError, KunError
from kun.pipeline.lock import check_free
from kun.pipeline.run_folder import StepManifest
from kun.verify.final import is_final, verify_final
from kun.verify.part import Problem
from kun.verify.run import Finding, Works, verify
from kun.verify.steps import StepFolder, astray, find, leftovers, made_from, other_settings, outdated, size

DESCRIPTION = """Check a run, or a data set alone, against its own digests, counts and lineage.

Needs the folder only: not the corpora, not the base model. Says which file of which step is bad, and how to make again
only that. Ends with 0 when all is well, 1 when something is bad, 2 when the folder is no run, or one that is at work.

  kun verify runs/demo
  kun verify downloads/wudao-kun        # the folder final/ of a run, alone
"""
MOST = 20  # problems of a step that are printed


def add_commands(verbs: Any, works: Any) -> None:
    """`verify`, for the parser of `kun`; `works()` gives what each stage does, by its name."""
    verb = verbs.add_parser(
        "verify",
        help="check digests, counts, order and lineage of a run that came from elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("run", type=Path, help="folder of the run, or its folder final/ alone")
    verb.add_argument("--workers", type=int, default=0, help="processes; 0: one per core (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(verb=lambda arguments, _: _verify(arguments, works()))


def _verify(arguments: argparse.Namespace, works: Works) -> int:
    path: Path = arguments.run
    if arguments.workers < 0:
        raise InputError(f"--workers {arguments.workers}: a number of processes, or 0: one per core")
    if not path.exists():
        raise InputError(f"{path}: there is no such folder; give that of a run, or the folder final/ of one")
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; give that of a run, or the folder final/ of one")
    check_free(path / "lock")
    steps, known = find(path)
    left: list[dict[str, Any]] = []
    if not steps:
        if not is_final(path):
            raise InputError(f"{path}: is neither a run of Kun (it has no steps) nor the folder final/ of one")
        findings = [verify_final(path)]
    else:
        findings = verify(path, works, arguments.workers)
        sound = {finding.folder for finding in findings if finding.state == "ok"}
        good = {key: folder for key, folder in known.items() if folder in sound}
        final = path / "final"
        if wrong := astray(path, final):
            findings.append(Finding("final", "bad", final, StepManifest(), [wrong]))
        elif final.is_dir():
            findings.append(verify_final(final, good, [(step.name, step.digest) for step in steps if step.digest]))
        elif any(step.stage == "stage5_polish" and step.whole is not None for step in steps):
            findings.append(
                Finding("final", "bad", final, StepManifest(), [Problem(".", "is not here, though stage 5 is through")])
            )
        polished = {step.name: step.digest for step in steps if step.stage == "stage5_polish"}
        old = outdated([*steps, StepFolder("final", final, polished)])
        for finding in findings:
            if above := old.get(finding.step):
                finding.notes.append(other_settings(above))
        used = {step.folder for step in steps} | {final.resolve()}
        needs = [need for step in steps for need in step.needs.items()]
        used |= {folder.resolve() for folder in made_from([*needs, *made_by(final).items()], known)}
        unclear = {step.name for step in steps if step.astray}  # any of their folders may be the present one
        used |= {folder.resolve() for (name, _), folder in known.items() if name in unclear}
        used |= {folder.resolve() for folder in (path / "store").glob("final-*") if wrong}
        left = [{"path": str(one), "what": why, "bytes": size(one)} for one, why in leftovers(path, used)]
    if arguments.json:
        print(msgspec.json.encode(_as_json(path, findings, left)).decode())
    else:
        print(render(path, findings, left))
    return 1 if any(finding.state == "bad" for finding in findings) else 0


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
        told = f"{counts.rows:,} rows, {counts.kept:,} kept" if counts.shards or counts.rows else ""
        told += f", {counts.shards:,} shards" if counts.shards else ""
        state = "BAD" if finding.state == "bad" else finding.state
        lines.append(f"{finding.step:<{width}}{state:<8}{told}".rstrip())
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
