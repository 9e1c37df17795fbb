"""The command `kun trace RUN RECORD`: the history of one record."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from kun.config.files import load_of_run
from kun.pipeline.run_folder import RunFolder


def add_command(commands: Any) -> None:
    """Add `trace` to the commands of kun."""
    parser = commands.add_parser("trace", help="show the history of one record")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("record", help="its id, or a line of a final file such as wudao:18")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=_trace)


def _trace(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.report import trace

    load_of_run(Path(arguments.run))  # an error if it is not a run
    life = trace.find(RunFolder(Path(arguments.run)), arguments.record)
    print(msgspec.json.encode(life).decode() if arguments.json else trace.render(life))
    return 0
