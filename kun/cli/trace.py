"""The command `kun trace RUN RECORD`: the whole life of one record."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from kun.cli.options import open_run


def add_command(commands: Any) -> None:
    """Add `trace` to the commands of kun."""
    parser = commands.add_parser("trace", help="show the whole life of one record")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("record", help="its id, or a line of a final file such as wudao:18")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=_trace)


def _trace(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.report import trace

    config, run, stages = open_run(arguments.run, None)[:3]
    names = [stage.name for stage in stages if stage.makes_records]
    found = trace.find(run, names, list(config.corpora), arguments.record)
    print(msgspec.json.encode(found).decode() if arguments.json else trace.render(found))
    return 0
