"""The parser of `kun`: `arguments, overrides = parse()`; `arguments.function(arguments, overrides)` runs the command.

A command is a module with `add_command(commands)`, which adds its options and its function to the parser.
"""

from __future__ import annotations

import argparse
import shlex
from importlib.metadata import version

from kun.cli import demo, filter_preview, lm, plan, run, status, trace, verify
from kun.errors import InputError

COMMANDS = (run, plan, status, filter_preview, trace, lm, verify, demo)  # in the order of --help
DESCRIPTION = """Kun turns raw text and seed pairs into instruction/output data, in five stages that resume:
  stage1  train the label model and the primary chat from the seed pairs
  stage2  read the raw corpora and keep what is worth a model's time
  stage3  let the label model write the instruction to each kept text
  stage4  let the primary chat score the instructions, and select
  stage5  let the primary chat polish each text into an output; write final/
"""


def parse() -> tuple[argparse.Namespace, list[str]]:
    """What was typed: the options of the command, and those that are settings. InputError where it takes none."""
    parser = argparse.ArgumentParser(
        prog="kun", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"kun {version('kun')}")
    parser.set_defaults(takes_settings=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_command(commands)
    arguments, overrides = parser.parse_known_args()
    if overrides and not arguments.takes_settings:
        raise InputError(f"unknown arguments: {shlex.join(overrides)}; see kun --help")
    return arguments, overrides
