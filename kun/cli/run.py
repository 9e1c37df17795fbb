"""The command `kun run STAGE`: bring one stage up to date, or all."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kun.cli.log import add_verbosity, log_into, report
from kun.cli.options import add_settings, load_settings
from kun.config.files import dump, load, load_of_run
from kun.config.reference import help_text
from kun.config.schema import Config
from kun.dataset.final import assemble, final_state, is_current
from kun.engines.cache import EngineCache
from kun.errors import ConfigError, KunError
from kun.execution.log import safe
from kun.pipeline import status
from kun.pipeline.lock import hold
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage, with_repair
from kun.pipeline.stage import Stage, Step
from kun.report.plots import draw
from kun.store import atomic, shards
from kun.store.digests import Digests

CONFIGS = Path(__file__).parents[2] / "configs"
_log = logging.getLogger(__name__)
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "all")


def add_command(commands: Any) -> None:
    """Add `run` to the commands of kun."""
    parser = commands.add_parser(
        "run", add_help=False, allow_abbrev=False, help="run one stage, or all; --help lists every setting"
    )
    parser.add_argument("stage", metavar="STAGE", type=_stage, help=f"{', '.join(STAGES)}; it goes before the settings")
    add_settings(parser, "only this one of the corpora, and what it needs where missing")
    add_verbosity(parser)
    parser.add_argument("--force", action="store_true", help="throw the stage's present output away and make it again")
    parser.add_argument("-h", "--help", action=_SettingsHelp, help="show this help, and every setting as an option")
    parser.set_defaults(function=_run)


def _stage(word: str) -> str:
    if word not in STAGES:
        raise argparse.ArgumentTypeError(
            f"{word!r} is none of {', '.join(STAGES)}; it goes before the settings: kun run stage2 --seed 3"
        )
    return word


class _SettingsHelp(argparse.Action):
    """`kun run --help`: the command's own options, then every setting of the chosen configuration."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        parser.print_help()
        default = namespace.config == parser.get_default("config") and not Path(namespace.config).exists()
        path = CONFIGS / "base.yaml" if default else Path(namespace.config)
        print(f"\n{help_text(load(path), f'Settings of {path}:')}", end="")
        parser.exit()


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from stages import pipeline

    config = load_settings(arguments, overrides, corpora_needed=arguments.stage != "stage1")
    run = RunFolder(Path(config.run), dump(config).encode())
    run.store.mkdir(parents=True, exist_ok=True)
    with hold(run.path / "lock", safe(shlex.join(["kun", *sys.argv[1:]]))):
        log_into(run.path, config)
        for below in ("", "*/"):  # and not in the folders of finished steps, which have none
            atomic.remove_temporaries(run.path, below)
        digests = Digests(run.store / "digests.json")
        engines = EngineCache(config)
        stages = pipeline(config, digests, engines)
        settings = run.path / "config.yaml"
        before = settings.read_bytes() if settings.exists() else None
        try:
            _make(arguments, run, stages, config, digests)
            states = status.survey(stages, run)
            final = final_state(run, stages[-1].steps, digests, states)
        except ConfigError:  # settings that are refused are not those of the run
            if before is not None:
                atomic.write(settings, before)
            raise
        finally:
            engines.close()
            digests.save()
    asked = [state for state in states if arguments.stage in ("all", state.command)]
    asked = [state for state in asked if not state.records or arguments.subset in (None, state.part)]
    following, see = status.next_command(states, final), shlex.join(["kun", "status", str(run.path)])
    if following is None:
        rows = sum(state.counts.kept for state in states if state.stage == "stage5_polish")
        left = "" if rows else ": nothing is left"
        report(f"complete, {rows:,} rows{left}: read {run.path / 'final'}, or see `{see}`")
    else:
        command = shlex.join(["kun", "run", following, "--config", arguments.config, *overrides])
        report(f"next: {command}; see also `{see}`")
    return 1 if any(state.condition == "failures" for state in asked) else 0


def _make(arguments: argparse.Namespace, run: RunFolder, stages: list[Stage], config: Config, digests: Digests) -> None:
    """Bring what was asked for up to date."""
    mend = partial(with_repair, stages=stages, run=run, workers=config.workers)
    for stage in stages:
        if arguments.stage in ("all", stage.command):
            own, shared = _narrow(stage, stages, config, arguments.subset)
            mend(partial(_run_stage, shared, run, config, force=False))
            mend(partial(_run_stage, own, run, config, arguments.force))
    if arguments.stage in ("all", "stage5"):
        if not is_current(run, stages[-1].steps, digests):
            run.keep_settings()
        mend(partial(_finish, run, stages, config, digests))
    try:
        load_of_run(run.path)
    except KunError:  # gone or damaged
        run.keep_settings()


def _by_corpus(stage: Stage, config: Config) -> bool:
    """Whether the stage has a step for each corpus; others, such as models, serve all."""
    return {step.part for step in stage.steps} == set(config.corpora)


def _narrow(stage: Stage, stages: list[Stage], config: Config, subset: str | None) -> tuple[Stage, Stage]:
    """The stage for one subset only, and for what that needs besides: a model, which serves all, or the subsets in
    which near-duplicates are looked for."""
    if subset is None:
        return stage, replace(stage, steps=())
    if not _by_corpus(stage, config):
        return replace(stage, steps=()), stage
    needed: dict[str, Step] = {}
    waiting = [step for other in stages if _by_corpus(other, config) for step in other.steps if step.part == subset]
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
        whole = run.whole(step)
        assert whole is not None
        report(f"{step.name}: {status.in_words(stage, whole) if step in made else 'nothing to do'}")
        if stage.name == "stage2_ingest" and not whole.rows:
            _log.warning("warning: corpus %s has no rows; see corpora.%s.paths", step.part, step.part)
        elif stage.name == "stage2_ingest" and not whole.kept:
            first = next(shards.rejects(run.folder(step), 0))
            _log.warning(
                f"warning: no row of {step.part} gives a document; the first: {first.reason}, {first.detail}; see "
                f"corpora.{step.part}.format and .field (text in GBK: iconv -f gb18030 -t utf-8)"
            )
    _log.info("%s: finished after %.1f s", stage.name, time.monotonic() - start)


def _finish(run: RunFolder, stages: list[Stage], config: Config, digests: Digests) -> None:
    with atomic.naming_a_full_disk(run.path):
        _assemble_and_draw(run, stages, config, digests)


def _assemble_and_draw(run: RunFolder, stages: list[Stage], config: Config, digests: Digests) -> None:
    polished = stages[-1].steps
    if assemble(run, polished, config, status.survey(stages, run), digests):
        for path in sorted((run.path / "final").glob("*.jsonl")):
            report(f"wrote {path}")
        if missing := [step.part for step in polished if run.whole(step) is None]:
            report(f"left out, not complete with these settings: {', '.join(missing)}")
    elif (run.path / "report").exists():
        return
    draw(run, status.survey(stages, run))
