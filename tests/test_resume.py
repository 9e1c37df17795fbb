"""A run that is killed at random moments in every stage ends in the same bytes as one that was left alone."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.runs import command, environment, kun, small_world

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
KILLS = int(os.environ.get("KUN_KILLS", "20"))
SEED = int(os.environ.get("KUN_KILL_SEED", "20261121"))


def finals(folder: Path, run: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / run / "final").iterdir() if path.suffix == ".jsonl"}


@pytest.mark.slow
def test_kill_and_resume(tmp_path):
    config = small_world(tmp_path)
    seconds = {}
    for stage in STAGES:
        start = time.monotonic()
        done = kun(tmp_path, "run", stage, "--config", config, "--run", "whole")
        assert done.returncode == 0, done.stderr
        seconds[stage] = time.monotonic() - start
    expected = finals(tmp_path, "whole")
    assert sum(content.count(b"\n") for content in expected.values()) > 0

    rng = random.Random(SEED)
    killed = 0
    for stage in STAGES:
        for _ in range(KILLS // len(STAGES)):
            process = subprocess.Popen(
                command("run", stage, "--config", config, "--run", "killed"),
                cwd=tmp_path,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(rng.uniform(0.0, seconds[stage]))
            except subprocess.TimeoutExpired:
                killed += 1
                os.killpg(process.pid, 9)
                process.wait()
        done = kun(tmp_path, "run", stage, "--config", config, "--run", "killed")
        assert done.returncode == 0, done.stderr
    assert killed >= KILLS // 2
    assert finals(tmp_path, "killed") == expected
    assert not list((tmp_path / "killed").rglob(".*.tmp"))
    again = kun(tmp_path, "run", "all", "--config", config, "--run", "killed")
    steps = [line for line in again.stdout.splitlines() if line.startswith("stage")]
    assert steps and all(line.endswith("nothing to do") for line in steps)
