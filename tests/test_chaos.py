"""The short form of `make chaos`: a dozen faults, each resumed to the same bytes as a run that was left alone."""

import subprocess
import sys

import pytest

from tests.runs import REPOSITORY, environment


@pytest.mark.slow
def test_a_dozen_faults_end_in_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "tests.chaos", "12", "--short", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 faults, 0 ended wrong; rows lost 0, doubled 0; all files identical: yes" in done.stdout
