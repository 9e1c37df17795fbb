"""The command `kun show RUN STEP`: the records of a step, whole, as JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from kun.cli.options import refuse_old_layout
from kun.config.files import load_of_run
from kun.errors import InputError
from kun.records import Raw, record_type
from kun.store import shards
from kun.verify.steps import StepFolder, find

DESCRIPTION = """Print the records of a step as JSON lines, with all that is known of each.

  kun show runs/demo STEP --subset wudao --limit 20
  kun show runs/demo STEP/wudao --rejects --fields id,reason,text
"""


def add_command(commands: Any) -> None:
    """Add `show` to the commands of kun."""
    parser = commands.add_parser(
        "show",
        help="print the records of a step, whole, as JSON lines",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("step", metavar="STEP", help="a stage by its name in `kun status`, or one step of it")
    parser.add_argument("--rejects", action="store_true", help="the records that it dropped, with reason and detail")
    parser.add_argument("--fields", help="only these fields, such as id,text")
    parser.add_argument("--limit", type=int, help="at most so many records")
    parser.add_argument("--subset", help="only this corpus")
    parser.set_defaults(function=_show)


def _show(arguments: argparse.Namespace, _: list[str]) -> int:
    import stages  # noqa: F401  # whose modules define the types of all records

    load_of_run(arguments.run)
    refuse_old_layout(arguments.run)
    steps = _chosen(arguments)
    if arguments.limit is not None and arguments.limit < 0:
        raise InputError(f"--limit {arguments.limit}: must not be below 0")
    records = (record for step in steps for record in records_of(step, arguments.rejects))
    fields = arguments.fields.split(",") if arguments.fields else None
    for record in islice(records, arguments.limit):
        if fields and (unknown := [name for name in fields if name not in record]):
            raise InputError(f"--fields {arguments.fields}: no field {unknown[0]}; fields: {', '.join(record)}")
        shown = {name: record[name] for name in fields} if fields else record
        sys.stdout.buffer.write(msgspec.json.encode(shown) + b"\n")
    return 0


def _chosen(arguments: argparse.Namespace) -> list[StepFolder]:
    steps = [step for step in find(arguments.run)[0] if step.makes_records]
    found = [
        step
        for step in steps
        if arguments.step in (step.stage, step.name) and arguments.subset in (None, step.info.part)
    ]
    if not found:
        known = ", ".join(dict.fromkeys(step.name for step in steps)) or "none"
        raise InputError(f"{arguments.run}: no records of {arguments.step} here; steps with records: {known}")
    return found


def records_of(step: StepFolder, rejects: bool = False) -> Iterator[dict[str, Any]]:
    """The kept records of a step, or those that it dropped, each with all that is known of it."""
    for key in shards.order(step.folder) or sorted(shards.finished(step.folder)):
        if not rejects:
            kind = record_type(step.info.writes) or Raw
            yield from (msgspec.to_builtins(record) for record in shards.read_kept(step.folder, key, kind))
            continue
        done = shards.marker(step.folder, key)
        dropped = shards.dropped(step.folder, key)
        if done is not None and done.above and dropped:
            above, kind = shards.above_of(step.folder, done.above), record_type(step.info.reads) or Raw
            known = {record.id: record for record in shards.read_kept(above, key, kind)}
            dropped = [msgspec.to_builtins(known[row["id"]]) | row for row in dropped]
        yield from dropped
