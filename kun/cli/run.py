"""The command `kun run STAGE`: bring one stage, or all, up to date."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kun.cli.log import add_verbosity, log_into, report
from kun.cli.options import add_settings, load_settings, refuse_old_layout
from kun.config.files import dump, load, load_of_run
from kun.config.reference import help_text
from kun.config.schema import Config
from kun.corpora.files import find
from kun.corpora.first_rows import NOT_UTF8, check_first_rows
from kun.dataset.final import assemble, final_states, is_current, with_output
from kun.engines.cache import EngineCache
from kun.errors import ConfigError, InputError, KunError
from kun.execution.log import safe
from kun.pipeline import status
from kun.pipeline.lock import hold
from kun.pipeline.run_folder import RunFolder, StepManifest
from kun.pipeline.runner import run_stage, with_repair
from kun.pipeline.stage import WARNING, Stage, Step
from kun.report.plots import draw
from kun.store import atomic, shards
from kun.store.digests import Digests

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = "all"
_log = logging.getLogger(__name__)


def add_command(commands: Any) -> None:
    """Add `run` to the commands of kun."""
    parser = commands.add_parser(
        "run", add_help=False, allow_abbrev=False, help="run one stage, or all; --help lists stages and settings"
    )
    parser.add_argument("stage", metavar="STAGE", help=f"one of those below, or {ALL}; it goes before the settings")
    add_settings(parser, "only this corpus, and what it needs that is missing")
    add_verbosity(parser)
    parser.add_argument("--force", action="store_true", help="make the stage again; old rows stay until that is done")
    parser.add_argument("-h", "--help", action=_Help, help="show this help, the stages, and every setting as an option")
    parser.set_defaults(function=_run)


class _Help(argparse.Action):
    """`kun run --help`: the command's own options, the stages, then every setting of the chosen configuration."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        default = namespace.config == parser.get_default("config") and not Path(namespace.config).exists()
        path = CONFIGS / "base.yaml" if default else Path(namespace.config)
        parser.print_help()
        config = load(path)
        print("\nStages:")
        for command, summary in _commands(_stages(config)).items():
            print(f"  {command:<21} {summary}")
        print(f"\n{help_text(config, f'Settings of {path}:')}", end="")
        parser.exit()


def _stages(config: Config, digests: Digests | None = None, engines: EngineCache | None = None) -> list[Stage]:
    from stages import pipeline

    return pipeline(config, digests or Digests(Path(config.run)), engines or EngineCache(config))


def _commands(stages: Sequence[Stage]) -> dict[str, str]:
    """What can be run, with its summary."""
    commands = dict.fromkeys((stage.command for stage in stages), "")
    return commands | {stage.command: stage.spec.summary for stage in stages if stage.spec.summary}


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    try:
        config = load_settings(arguments, overrides, corpora_needed=False)
    except KunError:
        _stages_of(arguments.stage, _stages(Config()))  # a setting in place of the stage is the error to speak of
        raise
    engines = EngineCache(config)
    run = RunFolder(Path(config.run), dump(config).encode())
    digests = Digests(run.store / "digests.json")
    stages = _stages(config, digests, engines)
    chosen = _chosen(arguments, config, stages)
    run.store.mkdir(parents=True, exist_ok=True)
    with hold(run.path / "lock", safe(shlex.join(["kun", *sys.argv[1:]]))):
        log_into(run.path, config)
        for below in ("", "*/"):  # and not in the folders of finished steps, which have none
            atomic.remove_temporaries(run.path, below)
        settings = run.path / "config.yaml"
        before = settings.read_bytes() if settings.exists() else None
        refuse_old_layout(run.path)
        try:
            _make(arguments, run, stages, chosen, config, digests)
            states = status.survey(stages, run)
            finals = final_states(run, stages, digests, states)
        except ConfigError:  # settings that are refused are not those of the run
            if before is not None:
                atomic.write(settings, before)
            raise
        finally:
            engines.close()
            digests.save()
            status.remember_command(run, shlex.join(["kun", *sys.argv[1:]]))
    _report_asked(run, chosen)
    _report_next(arguments, overrides, run, states, finals)
    ours = [state for state in states if state.command in {stage.command for stage in chosen}]
    ours = [state for state in ours if not state.records or arguments.subset in (None, state.part)]
    nothing = _report_nothing(ours, run)
    return 1 if nothing or any(state.condition == "failures" for state in ours) else 0


def _chosen(arguments: argparse.Namespace, config: Config, stages: list[Stage]) -> list[Stage]:
    """The stages that the typed command runs. InputError if there is none, or no corpus for it."""
    chosen = _stages_of(arguments.stage, stages)
    if not config.corpora and any(stage.spec.per_subset for stage in chosen):
        raise InputError(f"{arguments.config}: corpora: none is named; {arguments.stage} needs one")
    return chosen


def _stages_of(word: str, stages: list[Stage]) -> list[Stage]:
    chosen = [stage for stage in stages if word in (ALL, stage.command)]
    if not chosen:
        first, *others = _commands(stages)
        known = ", ".join([first, *others, ALL])
        raise InputError(f"{word!r} is none of {known}; it goes before the settings: kun run {first} --seed 3")
    return chosen


def _make(
    arguments: argparse.Namespace,
    run: RunFolder,
    stages: list[Stage],
    chosen: list[Stage],
    config: Config,
    digests: Digests,
) -> None:
    """Bring the chosen stages up to date."""
    for step in (step for stage in chosen if stage.spec.role == "ingest" for step in stage.steps):
        if arguments.subset in (None, step.part) and run.current(step) is None:
            corpus = config.corpora[step.part]
            check_first_rows(step.part, corpus, find(step.part, corpus))  # before a model is trained
    repairing = partial(with_repair, stages=stages, run=run, workers=config.workers)
    for stage in chosen:
        own, shared = _narrow(stage, stages, arguments.subset)
        repairing(partial(_run_stage, shared, run, config, force=False))
        repairing(partial(_run_stage, own, run, config, arguments.force))
    for stage in with_output(chosen):
        if not is_current(run, stage, digests):
            run.keep_settings()
        repairing(partial(_finish, run, stage, stages, config, digests))
    try:
        load_of_run(run.path)
    except KunError:  # gone or damaged
        run.keep_settings()


def _narrow(stage: Stage, stages: list[Stage], subset: str | None) -> tuple[Stage, Stage]:
    """The stage for one subset only, and for what that needs as well: a model, which serves all, or the other subsets
    in which near-duplicates are looked up."""
    if subset is None:
        return stage, replace(stage, steps=())
    if not stage.spec.per_subset:
        return replace(stage, steps=()), stage
    needed: dict[str, Step] = {}
    waiting = [step for other in stages if other.spec.per_subset for step in other.steps if step.part == subset]
    while waiting:
        step = waiting.pop()
        if step.name not in needed:
            needed[step.name] = step
            waiting += step.needs
    own = tuple(step for step in stage.steps if step.part == subset)
    shared = tuple(step for step in stage.steps if step.part != subset and step.name in needed)
    return replace(stage, steps=own), replace(stage, steps=shared)


def _run_stage(stage: Stage, run: RunFolder, config: Config, force: bool) -> None:
    if not stage.steps:
        return
    start = time.monotonic()
    _log.info("%s: started%s: %s", stage.name, " with --force" if force else "", ", ".join(s.part for s in stage.steps))
    made = run_stage(stage, run, config.workers, force)
    for step in stage.steps:
        manifest = run.current(step)
        assert manifest is not None
        report(f"{step.name}: {status.in_words(stage, manifest) if step in made else 'nothing to do'}")
        if step not in made and stage.name not in run.unread:
            run.unread.append(stage.name)
        if WARNING in manifest.report:
            _log.warning("warning: %s: %s", step.name, manifest.report[WARNING])
        if (inputs := run.inputs(step)) is not None and inputs.missing:
            _log.warning("warning: %s: its corpus is not here, what was read stands in (%s)", step.name, inputs.missing)
        if stage.spec.role == "ingest" and not manifest.kept:
            _warn_of_no_documents(step, manifest, run)
    _log.info("%s: finished after %.1f s", stage.name, time.monotonic() - start)


def _warn_of_no_documents(step: Step, manifest: StepManifest, run: RunFolder) -> None:
    if not manifest.rows:
        _log.warning("warning: corpus %s has no rows; see corpora.%s.paths", step.part, step.part)
        return
    folder = run.folder(step)
    first = next(row for key in manifest.shards for row in shards.rejects(folder, key))
    _log.warning(
        f"warning: no row of {step.part} gives a document; the first: {first.reason}, {first.detail}; see "
        f"corpora.{step.part}.format and .field {NOT_UTF8}"
    )


def _report_nothing(states: Sequence[status.State], run: RunFolder) -> bool:
    """Say where all rows went, if the command ends with none."""
    records = [state for state in states if state.records]
    last = [state for state in records if state.stage == records[-1].stage]
    if not last or any(state.counts.kept or state.condition not in ("complete", "failures") for state in last):
        return False
    for part in dict.fromkeys(state.part for state in last):
        ended = next(state for state in records if state.part == part and not state.counts.kept)
        _log.error("kun: nothing is left of %s: %s kept none of %s", part, ended.stage, status.why_none(ended, run))
    return True


def _report_asked(run: RunFolder, chosen: Sequence[Stage]) -> None:
    asked = ", ".join(f"{step} {count:,} records" for step, count in run.asked.items() if count)
    if asked or any(stage.spec.role == "inference" for stage in chosen):
        report(f"asked of a model: {asked or 'nothing'}")


def _finish(run: RunFolder, stage: Stage, stages: list[Stage], config: Config, digests: Digests) -> None:
    with atomic.naming_a_full_disk(run.path):
        _assemble_and_draw(run, stage, stages, config, digests)


def _assemble_and_draw(run: RunFolder, stage: Stage, stages: list[Stage], config: Config, digests: Digests) -> None:
    assert stage.spec.output is not None
    if assemble(run, stage, config, status.survey(stages, run), digests):
        for path in sorted((run.path / stage.spec.output.folder).glob("*.jsonl")):
            report(f"wrote {path}")
        if missing := [step.part for step in stage.steps if run.current(step) is None]:
            report(f"left out, not complete with these settings: {', '.join(missing)}")
    elif (run.path / "report").exists():
        return
    draw(run, stages, status.survey(stages, run))


def _report_next(
    arguments: argparse.Namespace,
    overrides: list[str],
    run: RunFolder,
    states: list[status.State],
    finals: list[status.Final],
) -> None:
    following, see = status.next_command(states, finals), shlex.join(["kun", "status", str(run.path)])
    if following is not None:
        command = shlex.join(["kun", "run", following, "--config", arguments.config, *overrides])
        report(f"next: {command}; see also `{see}`")
        return
    rows = sum(final.rows for final in finals)
    left = "" if rows else ": nothing is left"
    if run.unread:
        report(
            f"not read again: {', '.join(run.unread)}; `kun verify {shlex.quote(str(run.path))}` looks at their files"
        )
    where = ", ".join(str(run.path / final.folder) for final in finals)
    report(f"complete, {rows:,} rows{left}: read {where}, or see `{see}`")
