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
from kun.config.schema import Config
from kun.engines.cache import EngineCache
from kun.errors import InputError, KunError
from kun.pipeline.lock import check_free
from kun.pipeline.run_folder import StepManifest
from kun.store.digests import Digests
from kun.verify.final import is_final, verify_final
from kun.verify.leftovers import Leftover, unused
from kun.verify.part import Problem
from kun.verify.run import Finding, verify
from kun.verify.steps import Key, StepFolder, find, misleading, other_settings, outdated, output_steps

DESCRIPTION = """Check a run, or a data set alone, against its own digests, counts and lineage.

Only the folder is needed, neither the corpora nor the base model. Names each bad file and its step, and the command
that makes only that again. Exit status: 0 all is well, 1 something is bad, 2 the folder is not a run, or is in use.

  kun verify runs/demo
  kun verify downloads/wudao-kun        # the folder final/ of a run, alone
"""
MOST = 20  # problems printed for each step


def add_command(commands: Any) -> None:
    """Add `verify` to the commands of kun."""
    parser = commands.add_parser(
        "verify",
        help="check digests, counts, order and lineage of a run, or of a data set alone",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run, or its folder final/ alone")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_verbosity(parser)
    parser.set_defaults(function=_verify)


def _verify(arguments: argparse.Namespace, _: list[str]) -> int:
    path: Path = arguments.run
    _check_arguments(path, arguments.workers)
    check_free(path / "lock")
    import stages  # noqa: F401  # whose modules define the types of all records

    steps, known = find(path)
    left: list[Leftover] = []
    if steps:
        findings, left = _check_run(path, steps, known, arguments.workers), unused(path, steps, known)
    elif is_final(path):
        findings = [verify_final(path)]
    else:
        raise InputError(f"{path}: is neither a run of Kun (it has no steps) nor the folder final/ of one")
    if arguments.json:
        print(msgspec.json.encode(_as_json(path, findings, left), enc_hook=str).decode())
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


def _check_run(path: Path, steps: list[StepFolder], known: dict[Key, Path], workers: int) -> list[Finding]:
    """The findings for each step, and for each data set that the steps declare."""
    findings = verify(path, workers)
    sound = {finding.folder for finding in findings if finding.state == "ok"}
    good = {key: folder for key, folder in known.items() if folder in sound}
    outputs = output_steps(path, steps)
    findings += [found for output in outputs if (found := _check_output(path, output, steps, good))]
    old = outdated([*steps, *outputs])
    for finding in findings:
        if above := old.get(finding.step):
            finding.notes.append(other_settings(above))
    return findings


def _check_output(path: Path, output: StepFolder, steps: list[StepFolder], good: dict[Key, Path]) -> Finding | None:
    """The finding for a data set; None if there is none yet."""
    wrong = misleading(path, output.folder)
    if wrong is None and output.folder.is_dir():
        present = [(step.name, step.digest) for step in steps if step.digest and step.name in output.needs]
        return msgspec.structs.replace(verify_final(output.folder, good, present), step=output.name, info=output.info)
    if wrong is None and any(step.name in output.needs and step.manifest is not None for step in steps):
        wrong = Problem(".", f"is not here, though {output.info.command} is through")
    if wrong is None:
        return None
    return Finding(output.name, "bad", output.folder, StepManifest(), [wrong], info=output.info)


def remedy(run: Path, finding: Finding) -> str | None:
    """The command that makes again what is bad in a step, and nothing else."""
    if finding.state != "bad":
        return None
    if not (run / "store").is_dir():
        if parent := _run_around(run):
            return f"`kun verify {shlex.quote(parent)}`, the run that this folder belongs to, tells how"
        return "this is a copy without its store: get the file again from where the rest came from"
    try:
        config = load_of_run(run)
        again = command_of_run(_command(finding, config), run, config, run / "config.yaml")
    except KunError as error:
        return f"{error}; without settings nothing can be made again"
    if not finding.discard:
        return again
    if finding.discard == ["."]:
        return f"rm -r {shlex.quote(str(finding.folder))} && {again}"
    names = " ".join(name if "*" in name else shlex.quote(name) for name in finding.discard)
    return f"(cd {shlex.quote(str(finding.folder))} && rm -f {names}) && {again}"


def _command(finding: Finding, config: Config) -> str:
    """The command that makes the step of a finding, by its folder or else by the pipelines."""
    if finding.info is not None and finding.info.command:
        return finding.info.command
    from stages import pipeline

    stages = pipeline(config, Digests(Path(os.devnull)), EngineCache(config))
    return next((stage.command for stage in stages if stage.name == finding.step.partition("/")[0]), "all")


def _run_around(final: Path) -> str | None:
    """The run that contains this folder final/, which may be a plain name or a folder of the store."""
    folder = final.resolve().parent
    run = folder.parent if folder.name == "store" else folder
    return os.path.relpath(run) if (run / "store").is_dir() and (run / "config.yaml").is_file() else None


def render(run: Path, findings: list[Finding], left: list[Leftover]) -> str:
    """A line for every step; below it what is wrong, and what to do."""
    lines = [str(run)]
    width = max([27, *(len(finding.step) + 1 for finding in findings)])
    for finding in findings:
        counts = finding.counts
        counted = f"{counts.rows:,} rows, {counts.kept:,} kept" if counts.shards or counts.rows else ""
        counted += f", {len(counts.shards):,} shards" if counts.shards else ""
        state = "BAD" if finding.state == "bad" else finding.state
        lines.append(f"{finding.step:<{width}}{state:<8}{counted}".rstrip())
        lines += [f"    {problem.file}: {problem.what}" for problem in finding.problems[:MOST]]
        if len(finding.problems) > MOST:
            lines.append(f"    and {len(finding.problems) - MOST:,} more (--json names all)")
        lines += [f"    {note}" for note in finding.notes]
        if again := remedy(run, finding):
            lines.append(f"    again: {again}")
    lines += [f"left over: {leftover}" for leftover in left]
    lines += [f"`kun clean {shlex.quote(str(run))}` removes what is left over"] if left else []
    bad = [finding.step for finding in findings if finding.state == "bad"]
    lines.append(f"BAD: {', '.join(bad)}" if bad else "all is well")
    return "\n".join(lines)


def _as_json(run: Path, findings: list[Finding], left: list[Leftover]) -> dict[str, Any]:
    return {
        "run": str(run),
        "ok": all(finding.state in ("ok", "absent") for finding in findings),
        "steps": [
            {
                "step": finding.step,
                "state": finding.state,
                "folder": str(finding.folder),
                "shards": len(finding.counts.shards),
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
