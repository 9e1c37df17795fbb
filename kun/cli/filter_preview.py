"""The command `kun filter-preview`: show what stage 2 would drop from a sample, and why."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from kun.cli.log import add_verbosity
from kun.cli.options import add_settings, load_settings
from kun.errors import InputError
from kun.store import atomic
from kun.text.normal import printable


def add_command(commands: Any) -> None:
    """Add `filter-preview` to the commands of kun."""
    parser = commands.add_parser(
        "filter-preview",
        allow_abbrev=False,
        help="show on a sample what stage 2 would drop and why, before it is run; settings as for run",
    )
    add_settings(parser)
    add_verbosity(parser)
    parser.add_argument("--sample", type=int, default=2000, help="rows of each corpus (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the page (default: preview, in the folder of the run)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=_filter_preview)


def _filter_preview(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kun.planning.sample import preview_corpora
    from kun.report import filter_preview as preview
    from kun.report.filter_page import page

    config = load_settings(arguments, overrides)
    if arguments.sample < 1:
        raise InputError(f"--sample {arguments.sample}: at least one row is needed")
    samples = []
    for sample in preview_corpora(config, arguments.subset, arguments.sample):
        samples.append(sample)
        if not arguments.json:
            print(printable(preview.summary(sample)), flush=True)
    path = (arguments.out or Path(config.run) / "preview") / "filter.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, page(f"Filter preview of {arguments.config}", samples).encode())
    if arguments.json:
        print(msgspec.json.encode([preview.as_json(sample) for sample in samples]).decode())
    else:
        print(f"wrote {path}: distributions, examples next to every limit, overlaps")
    return 0
