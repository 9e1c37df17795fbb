"""The commands `kun demo-data` and `kun demo-eval`: write a demo world, and measure a run on it."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

import msgspec

from kun.config.files import load_of_run
from kun.errors import InputError
from kun.pipeline.run_folder import RunFolder
from kun.store import atomic

DEMO = Path(__file__).parents[1] / "demo"
CONFIGS = DEMO.parent.parent / "configs"


def add_command(commands: Any) -> None:
    """Add `demo-data` and `demo-eval` to the commands of kun."""
    world = commands.add_parser("demo-data", help="write a small Chinese world: seeds, corpora, gold key")
    world.add_argument("--seed", type=int, default=7, help="another seed gives another world (default: %(default)s)")
    world.add_argument("--out", type=Path, required=True, help="folder to write to")
    world.set_defaults(function=_demo_data)

    measures = commands.add_parser("demo-eval", help="measure a run on a demo world against the world's gold key")
    measures.add_argument("run", help="folder of the run")
    measures.add_argument("--json", action="store_true", help="print JSON")
    measures.set_defaults(function=_demo_eval)


def _demo_data(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.demo.world import SUBSETS, write_world
    from kun.filters.perplexity.lmplz import find_program

    out, config = arguments.out, arguments.out / "config.yaml"
    if (out.exists() and not out.is_dir()) or (out / "store").exists():
        raise InputError(f"--out {out}: is a {'run' if out.is_dir() else 'file'}; give another folder for the world")
    write_world(out, arguments.seed)
    lm = f"{{estimate_from: {_yaml(out / 'clean.jsonl')}}}"
    if find_program("lmplz") is None:
        lm = f"{{estimate_from: null, model: {_yaml(DEMO / 'lm')}}}"
        print("lmplz is not installed (`make setup` builds it): this world is filtered with a small shipped model")
    corpora = "\n".join(f"  {name}: {{paths: [{_yaml(out / 'corpora' / name)}]}}" for name in SUBSETS)
    text = f"""# The world of seed {arguments.seed}, with the settings of the demo.
extends: {_yaml(os.path.relpath(CONFIGS / "demo.yaml", out))}
run: {_yaml(Path("runs", out.resolve().name))}
base_model: {_yaml(DEMO / "base")}
seeds:
  pairs: {_yaml(out / "seeds.jsonl")}
  judge: {_yaml(out / "judge.jsonl")}
  polish: {_yaml(out / "polish.jsonl")}
corpora:
{corpora}
filter:
  lm: {lm}
"""
    atomic.write(config, text.encode())
    print(f"wrote a world to {out}: seeds, corpora, gold key")
    print(f"next: kun run all --config {shlex.quote(str(config))}")
    return 0


def _yaml(path: str | Path) -> str:
    """A path as a YAML value, whatever characters it has."""
    return msgspec.json.encode(str(path)).decode()


def _demo_eval(arguments: argparse.Namespace, _: list[str]) -> int:
    from kun.demo.measure import measure, render

    config = load_of_run(Path(arguments.run))
    measures = measure(RunFolder(Path(arguments.run)), config)
    print(msgspec.json.encode(measures).decode() if arguments.json else render(measures))
    return 0
