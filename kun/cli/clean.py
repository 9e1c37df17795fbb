"""The command `kun clean RUN`: list what no current step of a run uses, and with `--yes` remove it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import msgspec

from kun.cli.log import add_verbosity, log_into, report
from kun.config.files import load_of_run
from kun.pipeline.lock import hold
from kun.verify.leftovers import unused
from kun.verify.steps import find

DESCRIPTION = """List what no current step of a run uses: folders of older settings (going back to those would use them
again), what an unfinished --force has made, and files of killed processes. With --yes, remove it.

  kun clean runs/demo          # lists, and removes nothing
  kun clean runs/demo --yes
"""


def add_command(commands: Any) -> None:
    """Add `clean` to the commands of kun."""
    parser = commands.add_parser(
        "clean",
        help="list, and with --yes remove, what no current step of a run uses",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_verbosity(parser)
    parser.set_defaults(function=_clean)


def _clean(arguments: argparse.Namespace, _: list[str]) -> int:
    run: Path = arguments.run
    config = load_of_run(run)
    with hold(run / "lock", shlex.join(["kun", "clean", str(run)])):
        left = unused(run, *find(run))
        if arguments.yes:
            log_into(run, config)
            for leftover in left:
                leftover.remove()
    if arguments.json:
        print(msgspec.json.encode({"removed": arguments.yes, "left_over": left}, enc_hook=str).decode())
        return 0
    for leftover in left:
        report(f"{'removed' if arguments.yes else 'unused'}: {leftover}")
    freed = f"{len(left):,} with {sum(leftover.bytes for leftover in left) / 1e6:,.1f} MB"
    if not left:
        report(f"{run}: nothing is left over")
    elif arguments.yes:
        report(f"removed {freed}")
    else:
        report(f"{freed}; `kun clean {shlex.quote(str(run))} --yes` removes them")
    return 0
