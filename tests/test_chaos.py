"""The short form of `make chaos`: a dozen faults, each resumed to the same bytes as a run that was left alone."""

import pytest

from tests import forking
from tests.runs import REPOSITORY, environment

CHAOS = "import runpy; runpy.run_module('tests.chaos', run_name='__main__', alter_sys=True)"


@pytest.mark.slow
def test_a_dozen_faults_end_in_the_same_bytes(tmp_path):
    arguments = ["12", "--short", "--folder", str(tmp_path)]
    done = forking.run(arguments, REPOSITORY, environment(), 600, forking.kun_with_models, CHAOS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 faults, 0 ended wrong; rows lost 0, doubled 0; all files identical: yes" in done.stdout
