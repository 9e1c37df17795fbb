"""The parser of `kun`: `arguments, overrides = parse()`; `arguments.function(arguments, overrides)` runs the command.

A command is a module with `add_command(commands)`, which adds its options and its function to the parser.
"""

from __future__ import annotations

import argparse
import shlex
from importlib.metadata import version

from kun.cli import clean, demo, filter_preview, lm, plan, run, seeds, show, status, trace, verify
from kun.errors import InputError

COMMANDS = (run, plan, status, filter_preview, show, trace, verify, clean, seeds, lm, demo)  # in the order of --help
DESCRIPTION = """Kun turns raw text and seed pairs into instruction/output data, in resumable stages. `kun run --help`
lists the stages, and every setting."""


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The options of the command, and those that are settings. InputError if the command takes no settings."""
    parser = argparse.ArgumentParser(prog="kun", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"kun {version('kun')}")
    parser.set_defaults(takes_settings=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(commands)
    arguments, overrides = parser.parse_known_args()
    if overrides and not arguments.takes_settings:
        raise InputError(f"unknown arguments: {shlex.join(overrides)}; see kun --help")
    return arguments, overrides
