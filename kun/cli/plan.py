"""The command `kun plan`: its options, and the plan printed. The measuring is in kun/planning/plan.py."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

import msgspec

from kun.cli.log import add_verbosity
from kun.cli.options import add_settings, load_settings
from kun.errors import InputError
from kun.planning.figures import Rates

if TYPE_CHECKING:
    from kun.planning.plan import Options

DESCRIPTION = """\
Estimate what a run will take, before it is run: rows at each stage, tokens to prefill and to decode, hours, cost, disk.

Only the configuration, the tokenizer and config.json of the base model, prompts, seeds and corpora are needed. A sample
of each corpus goes through the stages' own reading, rules and prompts; nothing is written into the run. Results of the
run so far replace assumptions, so a pilot on a part of the corpora (with the same names and `run`) makes the plan of
the whole run a good one. The plan names the basis of each figure.
"""
EPILOG = """\
Any setting is an option, as for `kun run`: --filter.ppl-max x4, --polish.sampling.max-tokens 512.

  kun plan --config my.yaml                                     # rows, tokens and disk
  kun plan --config my.yaml --prefill-rate 20000 --decode-rate 3000 --gpus 8 --price 2.5
  kun plan --config my.yaml --probe 60                          # measures both rates here first; needs the weights
  kun plan --config my.yaml --kept 0.9 0.5 0.8                  # what if stages 3, 4 and 5 keep these shares
"""


def add_command(commands: Any) -> None:
    """Add `plan` to the commands of kun."""
    parser = commands.add_parser(
        "plan",
        allow_abbrev=False,
        help="estimate rows, tokens, hours, cost and disk of a run from a sample, before it is run",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(parser)
    add_verbosity(parser)
    parser.add_argument("--sample", type=int, default=500, help="rows of each corpus (default: %(default)s)")
    parser.add_argument("--prefill-rate", type=float, metavar="N", help="prompt tokens a second of one GPU")
    parser.add_argument("--decode-rate", type=float, metavar="N", help="reply tokens a second of one GPU, all requests")
    parser.add_argument(
        "--probe",
        type=float,
        nargs="?",
        const=30.0,
        metavar="SECONDS",
        help="measure both rates with the configured engine, here, in about so many seconds (default: 30)",
    )
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs at work side by side (default: 1)")
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="price of one GPU for one hour")
    parser.add_argument(
        "--kept",
        type=float,
        nargs=3,
        metavar=("LABEL", "SCORE", "POLISH"),
        help="shares that stages 3, 4 and 5 keep, instead of measured or assumed ones",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=_plan)


def _plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from kun.planning.plan import plan
    from kun.planning.table import as_json, render

    config = load_settings(arguments, overrides)
    names = [arguments.subset] if arguments.subset else list(config.corpora)
    estimate = plan(config, names, options_of(arguments))
    if arguments.json:
        print(msgspec.json.encode(as_json(estimate)).decode())
    else:
        subset = ["--subset", arguments.subset] if arguments.subset else []
        print(render(estimate, arguments.config, [*subset, *overrides]))
    return 0


def options_of(arguments: argparse.Namespace) -> Options:
    """The options of the plan. InputError names one that makes no sense."""
    from kun.planning.plan import Options

    rates = _rates(arguments)
    if arguments.sample < 1:
        raise InputError(f"--sample {arguments.sample}: at least one row is needed")
    if arguments.gpus < 1:
        raise InputError(f"--gpus {arguments.gpus}: at least one is needed")
    if arguments.price is not None and not 0 <= arguments.price < math.inf:
        raise InputError(f"--price {arguments.price}: dollars for one hour of one GPU, not below 0")
    if arguments.kept is not None and not all(0 <= share <= 1 for share in arguments.kept):
        raise InputError(f"--kept {' '.join(map(str, arguments.kept))}: three shares from 0 to 1")
    kept = None if arguments.kept is None else tuple(arguments.kept)
    return Options(arguments.sample, rates, arguments.probe, arguments.gpus, arguments.price, kept)


def _rates(arguments: argparse.Namespace) -> Rates | None:
    for name in ("prefill_rate", "decode_rate", "probe"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < math.inf:
            unit = "seconds" if name == "probe" else "tokens a second"
            raise InputError(f"--{name.replace('_', '-')} {value:g}: {unit}, above 0")
    rates = (arguments.prefill_rate, arguments.decode_rate)
    if rates == (None, None):
        return None
    if arguments.probe is not None:
        raise InputError("--probe measures both rates; give it or --prefill-rate and --decode-rate, not both")
    if None in rates:
        raise InputError("--prefill-rate and --decode-rate go together; --probe measures both")
    return Rates(*rates, "given", "--prefill-rate, --decode-rate")
