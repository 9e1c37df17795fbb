"""The command `kun seeds check FILE...`: what would be used of seed files, what not and why; writes the pairs."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kun.cli.log import add_verbosity
from kun.config.files import load
from kun.config.schema import Config
from kun.errors import InputError
from kun.seeds.pairs import SeedPair
from kun.store import atomic
from kun.text.normal import preview, printable
from kun.training import seeds
from kun.training.seeds import BadSeed, Overview, Seed

CHECK = """Show what stage 1 would use of seed files: how each was recognised, how many pairs it gives, what is left out
and why, with examples, and fields that are not read. With --config (or --base-model) also what fits the models'
train.max_length. With --out the pairs are written in Kun's own schema, JSON lines of instruction and output.

  kun seeds check alpaca.json sharegpt.jsonl
  kun seeds check faq.csv --seeds.fields.instruction title --seeds.fields.output answer --out pairs.jsonl
  kun seeds check --config my.yaml                  # the seeds.pairs of a configuration
"""
EXAMPLES = 3
_log = logging.getLogger(__name__)


class Checked(msgspec.Struct, frozen=True):
    """What is known of a source: `models` says of each model what is used, cut and left out."""

    source: str
    rows: int
    pairs: int
    formats: dict[str, int]
    with_input: int
    with_system: int
    later_turns: int
    not_used: dict[str, int]
    not_read: dict[str, int]
    odd: dict[str, int]
    examples: list[SeedPair]
    bad: list[BadSeed]
    models: dict[str, list[str]]
    error: str = ""


def add_command(commands: Any) -> None:
    """Add `seeds`, with its command, to the commands of kun."""
    group = commands.add_parser("seeds", help="check seed files: what is used, what is not, and why")
    below = group.add_subparsers(required=True, metavar="COMMAND")
    check = below.add_parser(
        "check",
        allow_abbrev=False,
        help="what would be used of seed files, with examples",
        description=CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("files", nargs="*", metavar="FILE", help="seed files, folders, globs; default: seeds.pairs")
    check.add_argument("--config", help="YAML file of settings; every setting is an option as for `kun run`")
    check.add_argument("--out", type=Path, help="write the pairs here, as JSON lines of instruction and output")
    check.add_argument("--json", action="store_true", help="print JSON, with all rows that are not used")
    add_verbosity(check)
    check.set_defaults(function=_check, takes_settings=True)


def _check(arguments: argparse.Namespace, overrides: list[str]) -> int:
    config = load(arguments.config, overrides)
    sources = arguments.files or ([config.seeds.pairs] if config.seeds.pairs else [])
    if not sources:
        raise InputError("kun seeds check: which file? Name one, or a --config with seeds.pairs")
    if arguments.out is not None:
        _check_out(arguments.out, sources)
    every: list[SeedPair] = []
    found = [_look(config, source, every) for source in sources]
    if arguments.out is not None:
        atomic.write(arguments.out, b"".join(msgspec.json.encode(pair) + b"\n" for pair in every))
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n\n".join(_shown(checked) for checked in found))
        if arguments.out is not None:
            print(f"\nwrote {len(every):,} pairs to {arguments.out}")
    return 1 if any(checked.error for checked in found) else 0


def _check_out(out: Path, sources: Sequence[str]) -> None:
    """InputError where the pairs would take the place of what is no plain file, or of the seeds themselves."""
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise InputError(f"--out {out}: is no plain file; give another name")
    if any(out.exists() and Path(source).exists() and out.samefile(source) for source in sources):
        raise InputError(f"--out {out}: is one of the seed files, which would be lost; give another name")


def _look(config: Config, source: str, every: list[SeedPair]) -> Checked:
    bad: list[BadSeed] = []
    overview = Overview()
    pairs: list[Seed[SeedPair]] = []
    error = ""
    try:
        pairs = seeds.read_seeds(source, SeedPair, "seeds.pairs", bad, config.seeds, overview)
    except InputError as found:
        error = str(found)
    every += [seed.row for seed in pairs]
    return Checked(
        source=source,
        rows=overview.rows,
        pairs=len(pairs),
        formats=dict(overview.shapes.most_common()),
        with_input=sum(bool(seed.row.input) for seed in pairs),
        with_system=sum(bool(seed.row.system) for seed in pairs),
        later_turns=sum(bool(seed.row.history) for seed in pairs),
        not_used=dict(Counter(seed.reason for seed in bad).most_common()),
        not_read=dict(overview.unread.most_common()),
        odd=dict(overview.odd.most_common()),
        examples=[seed.row for seed in pairs[:: -(-len(pairs) // EXAMPLES) or 1]],
        bad=bad,
        models=_fit(config, source) if pairs and config.base_model else {},
        error=error,
    )


def _fit(config: Config, source: str) -> dict[str, list[str]]:
    """Of each model, what is used at train.max_length."""
    from kun.models.chat import load_chat
    from stages.stage1_train import collect

    chat = load_chat(config.base_model or "", config.trust_remote_code)
    alone = config.model_copy(
        update={"seeds": config.seeds.model_copy(update={"pairs": source, "judge": None, "polish": None})}
    )
    found = {}
    for job in ("label", "chat"):
        bad: list[BadSeed] = []
        try:
            examples = collect(alone, job, chat, bad)
            lines = seeds.told(job, examples, bad, config.train.max_length)
            found[job] = [f"{job} model: {len(examples):,} examples", *lines]
        except InputError as error:
            found[job] = [f"{job} model: {error}"]
    return found


def _shown(checked: Checked) -> str:
    lines = [f"{checked.source}: {checked.rows:,} rows, {checked.pairs:,} pairs to train on"]
    lines += [f"  read as {name}: {count:,} rows" for name, count in checked.formats.items()]
    kinds = {"with an input": checked.with_input, "with a system message": checked.with_system}
    kinds |= {"with turns before them": checked.later_turns}
    lines += [f"  {count:,} pairs {name}" for name, count in kinds.items() if count]
    for reason, count in checked.not_used.items():
        lines.append(f"  not used, {reason}: {count:,}")
        first = {seed.detail: seed for seed in reversed(checked.bad) if seed.reason == reason}  # of each detail
        some = list(first.values())[::-1][:EXAMPLES]
        lines += [f"    {_where(seed, checked.source)}: {printable(preview(seed.detail, 300))}" for seed in some]
    if checked.not_read:
        fields = ", ".join(f"{printable(preview(name, 40))} ({count:,})" for name, count in checked.not_read.items())
        lines.append(f"  fields that are not read: {preview(fields, 400)}; seeds.fields names others")
    lines += [f"  look at this: {count:,} pairs hold {what}" for what, count in checked.odd.items()]
    lines += [f"  {line}" for model in checked.models.values() for line in model]
    lines += [line for pair in checked.examples for line in _example(pair)]
    return "\n".join([*lines, f"  ERROR: {printable(checked.error)}"] if checked.error else lines)


def _where(seed: BadSeed, source: str) -> str:
    return f"line {seed.line}" if seed.file == source else f"{seed.file}:{seed.line}"


def _example(pair: SeedPair) -> list[str]:
    before = [("system", pair.system)] if pair.system else []
    before += [("before", f"{len(pair.history)} exchanges")] if pair.history else []
    parts = [*before, ("request", pair.request), ("reply", pair.output)]
    return ["  example", *(f"    {name}: {printable(preview(' '.join(text.split()), 150))}" for name, text in parts)]
