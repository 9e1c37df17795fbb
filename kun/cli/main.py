"""The command `kun`: `kun run stage3 --config configs/demo.yaml`, `kun status runs/demo`, `kun trace runs/demo ID`.

Ends with 0 when what was asked for is complete, 1 when failed records are left over, 2 on an error of configuration or
input, 130 when stopped by Ctrl-C or SIGTERM, 70 on an error in Kun.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import signal
import sys
import traceback
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from kun.cli import demo as demo_commands
from kun.cli import lm as lm_commands
from kun.cli import plan as plan_command
from kun.cli import verify as verify_commands
from kun.config.files import command_of_run, dump, load, load_of_run, print_settings
from kun.config.schema import Config
from kun.dataset.final import assemble, final_state, is_current
from kun.engines.cache import EngineCache
from kun.errors import BusyError, ConfigError, InputError, KunError
from kun.pipeline import status
from kun.pipeline.lock import check_free, hold
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage, with_repair
from kun.pipeline.stage import Stage, Step
from kun.report import trace
from kun.report.plots import draw
from kun.store import atomic, shards
from kun.store.digests import Digests
from kun.text.normal import printable
from stages import pipeline

CONFIGS = Path(__file__).parents[2] / "configs"
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "all")
DESCRIPTION = """Kun turns raw text and seed pairs into instruction/output data, in five stages that resume:
  stage1  train the label model and the primary chat from the seed pairs
  stage2  read the raw corpora and keep what is worth a model's time
  stage3  let the label model write the instruction to each kept text
  stage4  let the primary chat score the instructions, and select
  stage5  let the primary chat polish each text into an output; write final/
"""


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # where a script ignores SIGINT, too
    for stream in (sys.stdout, sys.stderr):  # a name may be no UTF-8, a terminal may have another encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a wrong path is an error at once, not after a search of the hub
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait starve each other where cores are shared: measured 5 times slower on two.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    try:
        arguments, overrides = _parser().parse_known_args()
        if overrides and arguments.verb not in (_run, _plan, _filter_preview):
            raise InputError(f"unknown arguments: {shlex.join(overrides)}; see kun --help")
        sys.exit(arguments.verb(arguments, overrides))
    except KunError as error:
        print(f"kun: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        print(f"kun: {printable(_explain(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one would stop what is said here
            signal.signal(number, signal.SIG_IGN)
        print("kun: stopped; what is finished is kept, run the same command to go on", file=sys.stderr)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        print("kun: an error in Kun or in a library, please report it; what is finished is kept", file=sys.stderr)
        sys.exit(70)  # EX_SOFTWARE of sysexits.h


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kun", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"kun {version('kun')}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    run = verbs.add_parser(
        "run", add_help=False, allow_abbrev=False, help="run one stage, or all; --help lists every setting"
    )
    run.add_argument("stage", metavar="STAGE", type=_stage, help=f"{', '.join(STAGES)}; it goes before the settings")
    run.add_argument("--config", default="configs/demo.yaml", help="YAML file of settings (default: %(default)s)")
    run.add_argument("--subset", help="only this one of the corpora, and what it needs where missing")
    run.add_argument("--force", action="store_true", help="throw the stage's present output away and make it again")
    run.add_argument("-h", "--help", action=_SettingsHelp, help="show this help, and every setting as an option")
    run.set_defaults(verb=_run)

    plan_command.add_command(verbs).set_defaults(verb=_plan)

    funnel = verbs.add_parser("status", help="show the funnel of a run, what is stale and why, and what comes next")
    funnel.add_argument("run", nargs="?", help="folder of the run (default: the one of --config)")
    funnel.add_argument("--config", help="compare with this file instead of the settings that the run was made with")
    funnel.add_argument("--json", action="store_true", help="print JSON")
    funnel.set_defaults(verb=_status)

    sight = verbs.add_parser(
        "filter-preview",
        allow_abbrev=False,
        help="show on a sample what stage 2 would drop and why, before it is run; settings as for run",
    )
    sight.add_argument("--config", default="configs/demo.yaml", help="YAML file of settings (default: %(default)s)")
    sight.add_argument("--subset", help="only this one of the corpora")
    sight.add_argument("--sample", type=int, default=2000, help="rows of each corpus (default: %(default)s)")
    sight.add_argument("--out", type=Path, help="folder for the page (default: preview, in the folder of the run)")
    sight.add_argument("--json", action="store_true", help="print JSON")
    sight.set_defaults(verb=_filter_preview)

    life = verbs.add_parser("trace", help="show the whole life of one record")
    life.add_argument("run", help="folder of the run")
    life.add_argument("record", help="its id, or a line of a final file such as wudao:18")
    life.add_argument("--json", action="store_true", help="print JSON")
    life.set_defaults(verb=_trace)

    lm_commands.add_commands(verbs)
    verify_commands.add_commands(verbs, _works)
    demo_commands.add_commands(verbs)
    return parser


def _stage(word: str) -> str:
    if word not in STAGES:
        raise argparse.ArgumentTypeError(
            f"{word!r} is none of {', '.join(STAGES)}; it goes before the settings: kun run stage2 --seed 3"
        )
    return word


def _works() -> dict[str, Any]:
    """What each stage does, by its name: the same in every run."""
    stages = pipeline(Config(), Digests(Path(os.devnull)), EngineCache(Config()))
    return {stage.name: stage.work for stage in stages}


class _SettingsHelp(argparse.Action):
    """`kun run --help`: the command's own options, then every setting of the chosen configuration."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest=dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        parser.print_help()
        default = namespace.config == parser.get_default("config") and not Path(namespace.config).exists()
        print_settings(CONFIGS / "base.yaml" if default else namespace.config)
        parser.exit()


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    config = load(arguments.config, overrides)
    _check_corpora(config, arguments, needed=arguments.stage != "stage1")
    run = RunFolder(Path(config.run), dump(config).encode())
    run.store.mkdir(parents=True, exist_ok=True)
    with hold(run.path / "lock", shlex.join(["kun", *sys.argv[1:]])):
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
        print(f"complete, {rows:,} rows{left}: read {run.path / 'final'}, or see `{see}`")
    else:
        command = shlex.join(["kun", "run", following, "--config", arguments.config, *overrides])
        print(f"next: {command}; see also `{see}`")
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


def _check_corpora(config: Config, arguments: argparse.Namespace, needed: bool) -> None:
    if arguments.subset is not None and arguments.subset not in config.corpora:
        known = ", ".join(config.corpora) or "none"
        raise InputError(f"{arguments.config}: there is no corpus {arguments.subset!r}; corpora: {known}")
    if needed and not config.corpora:
        raise InputError(f"{arguments.config}: corpora: none is named; stages 2 to 5 need one")
    run = Path(config.run).resolve()
    for name, corpus in config.corpora.items():
        for path in corpus.paths:
            if Path(path).is_dir() and run.is_relative_to(Path(path).resolve()):
                raise InputError(
                    f"run: {config.run} is in the folder of corpora.{name}.paths, {path}: "
                    "what Kun writes would be read as text; choose another folder"
                )


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
    made = run_stage(stage, run, config.workers, force)
    for step in stage.steps:
        whole = run.whole(step)
        assert whole is not None
        print(f"{step.name}: {status.in_words(stage, whole) if step in made else 'nothing to do'}")
        if stage.name == "stage2_ingest" and not whole.rows:
            print(f"warning: corpus {step.part} has no rows; see corpora.{step.part}.paths", file=sys.stderr)
        elif stage.name == "stage2_ingest" and not whole.kept:
            first = next(shards.rejects(run.folder(step), 0))
            print(
                f"warning: no row of {step.part} gives a document; the first: {first.reason}, "
                f"{printable(first.detail)}; see "
                f"corpora.{step.part}.format and .field (text in GBK: iconv -f gb18030 -t utf-8)",
                file=sys.stderr,
            )


def _finish(run: RunFolder, stages: list[Stage], config: Config, digests: Digests) -> None:
    with atomic.naming_a_full_disk(run.path):
        _assemble_and_draw(run, stages, config, digests)


def _assemble_and_draw(run: RunFolder, stages: list[Stage], config: Config, digests: Digests) -> None:
    polished = stages[-1].steps
    if assemble(run, polished, config, status.survey(stages, run), digests):
        for path in sorted((run.path / "final").glob("*.jsonl")):
            print(f"wrote {path}")
        if missing := [step.part for step in polished if run.whole(step) is None]:
            print(f"left out, not complete with these settings: {', '.join(missing)}")
    elif (run.path / "report").exists():
        return
    draw(run, status.survey(stages, run))


def _status(arguments: argparse.Namespace, _: list[str]) -> int:
    config, run, stages, digests = _open(arguments.run, arguments.config)
    states = status.survey(stages, run)
    final = final_state(run, stages[-1].steps, digests, states)
    if arguments.json:
        print(msgspec.json.encode(status.as_json(states, run, final)).decode())
    else:
        print(status.render(states, run, final))
        following = status.next_command(states, final)
        path = arguments.config or run.path / "config.yaml"
        try:
            check_free(run.path / "lock")
            print(f"next: {command_of_run(following, run.path, config, path)}" if following else "complete")
        except BusyError as busy:
            print(f"at work: {busy}")
    return 1 if any(state.condition == "failures" for state in states) else 0


def _open(folder: str | None, config_path: str | None) -> tuple[Config, RunFolder, list[Stage], Digests]:
    """The run in a folder, with the settings that it was made with or those of a file."""
    config = load(config_path or "configs/demo.yaml") if config_path or not folder else load_of_run(Path(folder))
    run = RunFolder(Path(folder or config.run))
    digests = Digests(run.store / "digests.json")
    return config, run, pipeline(config, digests, EngineCache(config)), digests


def _plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    config = load(arguments.config, overrides)
    _check_corpora(config, arguments, needed=True)
    return plan_command.run(arguments, overrides, config)


def _filter_preview(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kun.planning.sample import preview_corpora
    from kun.report import filter_preview as preview
    from kun.report.filter_page import page

    config = load(arguments.config, overrides)
    _check_corpora(config, arguments, needed=True)
    if arguments.sample < 1:
        raise InputError(f"--sample {arguments.sample}: at least one row is needed")
    seen = []
    for one in preview_corpora(config, arguments.subset, arguments.sample):
        seen.append(one)
        if not arguments.json:
            print(printable(preview.summary(one)), flush=True)
    path = (arguments.out or Path(config.run) / "preview") / "filter.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, page(f"Filter preview of {arguments.config}", seen).encode())
    if arguments.json:
        print(msgspec.json.encode([preview.as_json(one) for one in seen]).decode())
    else:
        print(f"wrote {path}: distributions, examples next to every limit, overlaps")
    return 0


def _trace(arguments: argparse.Namespace, _: list[str]) -> int:
    config, run, stages = _open(arguments.run, None)[:3]
    names = [stage.name for stage in stages if stage.makes_records]
    found = trace.find(run, names, list(config.corpora), arguments.record)
    print(msgspec.json.encode(found).decode() if arguments.json else trace.render(found))
    return 0


_IN_THE_WAY = "a file or folder is in the way: remove it, or choose another folder"


def _explain(error: OSError) -> str:
    """An error of the operating system with its file and the remedy."""
    name = error.filename2 or error.filename  # of a file that takes another's place: the other
    where = f"{name}: " if name else ""
    remedy = {
        errno.EEXIST: _IN_THE_WAY,
        errno.ENOTDIR: _IN_THE_WAY,
        errno.EISDIR: _IN_THE_WAY,
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EACCES: "no permission: change it, or choose another folder",
        errno.EROFS: "the file system is read-only: choose another folder",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"{where}{remedy}; what is finished is kept, run the same command to go on"
