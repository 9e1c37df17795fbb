"""Real runs of `kun`, each in a process, on a small demo world: `kun(folder, "run", "all", "--config", ...)`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import forking

REPOSITORY = Path(__file__).parent.parent
MAIN = "from tests.errors_met import watch; watch(); from kun.cli.main import main; main()"


def environment() -> dict[str, str]:
    """Of a process that runs Kun; on two threads where the tests have not fewer for themselves."""
    return {"OMP_NUM_THREADS": "2", **os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", MAIN, *map(str, arguments)]


def kun(
    folder: Path, *arguments: str | Path, timeout: float = 600, models: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `kun` in `folder` to its end; output is captured as text. Where imports or signals count: `command`.

    `models`: it needs torch, and saves the seconds of importing that.
    """
    imports = forking.kun_with_models if models else forking.kun_alone
    return forking.run(list(map(str, arguments)), folder, environment(), timeout, imports)


def small_world(folder: Path, *, seed: int = 11, documents: int = 24, seeds: int = 100) -> Path:
    """A demo world of a few documents and a configuration that trains for a few steps; gives the configuration."""
    from kun.demo.world import write_world

    world = folder / "world"
    write_world(world, seed, documents=documents, seeds=seeds)
    small = folder / "small.yaml"
    small.write_text(
        f"extends: {REPOSITORY}/configs/demo.yaml\n"
        "run: run\n"
        f"base_model: {REPOSITORY}/kun/demo/base\n"
        f"seeds: {{pairs: {world}/seeds.jsonl, judge: {world}/judge.jsonl, polish: {world}/polish.jsonl}}\n"
        "corpora:\n"
        f"  wudao: {{paths: [{world}/corpora/wudao]}}\n"
        f"  wanjuan: {{paths: [{world}/corpora/wanjuan]}}\n"
        f"  skypile: {{paths: [{world}/corpora/skypile]}}\n"
        f"filter: {{lm: {{estimate_from: {world}/clean.jsonl}}}}\n"
        "ingest: {shard_rows: 16}\n"
        "train:\n"
        "  sft: {save_steps: 10, logging_steps: 5}\n"
        "  label: {num_train_epochs: 2}\n"
        "  chat: {num_train_epochs: 1}\n"
        "score: {select: top_share, top_share: 0.8}\n"
        "polish: {sampling: {max_tokens: 160}, min_faithfulness: 0.0}\n",
        encoding="utf-8",
    )
    return small
