"""Options that several commands share: `--config` and `--subset` with their checks, and opening a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from kun.config.files import load, load_of_run
from kun.config.schema import Config
from kun.engines.cache import EngineCache
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.stage import Stage
from kun.store.digests import Digests


def add_settings(parser: argparse.ArgumentParser, subset: str = "only this one of the corpora") -> None:
    """For a command that takes settings as options: `--config`, `--subset`, and every setting by its name."""
    parser.add_argument("--config", default="configs/demo.yaml", help="YAML file of settings (default: %(default)s)")
    parser.add_argument("--subset", help=subset)
    parser.set_defaults(takes_settings=True)


def load_settings(arguments: argparse.Namespace, overrides: list[str], corpora_needed: bool = True) -> Config:
    """The configuration that the options of `add_settings` name. ConfigError, InputError."""
    config = load(arguments.config, overrides)
    if arguments.subset is not None and arguments.subset not in config.corpora:
        known = ", ".join(config.corpora) or "none"
        raise InputError(f"{arguments.config}: there is no corpus {arguments.subset!r}; corpora: {known}")
    if corpora_needed and not config.corpora:
        raise InputError(f"{arguments.config}: corpora: none is named; this command needs one")
    run = Path(config.run).resolve()
    for name, corpus in config.corpora.items():
        for path in corpus.paths:
            if Path(path).is_dir() and run.is_relative_to(Path(path).resolve()):
                raise InputError(
                    f"run: {config.run} is in the folder of corpora.{name}.paths, {path}: "
                    "what Kun writes would be read as text; choose another folder"
                )
    return config


def refuse_old_layout(run: Path) -> None:
    """InputError where the run has shards as earlier versions of Kun wrote them, numbered and with whole records."""
    old = next(run.glob("*/*/part-00000.done.json"), None)
    if old is not None and b'"source":"' in old.read_bytes():  # it is a mapping now
        raise InputError(
            f"{old.parent}: was made by an earlier version of Kun, whose shards are laid out otherwise; choose another "
            f"folder by --run, or delete {run}/store, with the models in it, and run it again"
        )


def open_run(folder: str | None, config_path: str | None) -> tuple[Config, RunFolder, list[Stage], Digests]:
    """The run in a folder, with its own settings or those of a file."""
    from stages import pipeline

    config = load(config_path or "configs/demo.yaml") if config_path or not folder else load_of_run(Path(folder))
    run = RunFolder(Path(folder or config.run))
    refuse_old_layout(run.path)
    digests = Digests(run.store / "digests.json")
    return config, run, pipeline(config, digests, EngineCache(config)), digests
