"""The command `kun status RUN`: the funnel of a run, what is stale and why, and what comes next."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from kun.cli.options import open_run
from kun.config.files import command_of_run
from kun.dataset.final import final_states
from kun.errors import BusyError
from kun.pipeline import status
from kun.pipeline.lock import check_free


def add_command(commands: Any) -> None:
    """Add `status` to the commands of kun."""
    parser = commands.add_parser("status", help="show the funnel of a run, what is stale and why, and what comes next")
    parser.add_argument("run", nargs="?", help="folder of the run (default: the one of --config)")
    parser.add_argument("--config", help="compare with this file instead of the settings that the run was made with")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="every step, with its counts and reasons of rejects")
    parser.set_defaults(function=_status)


def _status(arguments: argparse.Namespace, _: list[str]) -> int:
    config, run, stages, digests = open_run(arguments.run, arguments.config)
    states = status.survey(stages, run)
    finals = final_states(run, stages, digests, states)
    if arguments.json:
        print(msgspec.json.encode(status.as_json(states, run, finals)).decode())
    else:
        print(status.render(states, run, finals, arguments.verbose))
        following = status.next_command(states, finals)
        path = arguments.config or run.path / "config.yaml"
        try:
            check_free(run.path / "lock")
            print(f"next: {command_of_run(following, run.path, config, path)}" if following else "complete")
        except BusyError as busy:
            print(f"at work: {busy}")
    return 1 if any(state.condition == "failures" for state in states) else 0
