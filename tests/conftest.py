"""Settings of the process that must be made before torch is imported; what tests/test_errors.py looks back at."""

import os
import re
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests import errors_met
from tests.runs import kun, small_world

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
met = tempfile.TemporaryDirectory(prefix="kun-errors-met-")
os.environ.setdefault(errors_met.FOLDER, met.name)
errors_met.watch()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small world, small.yaml, and its whole run in `run`; for tests to copy, not to change."""
    folder = tmp_path_factory.mktemp("finished")
    done = kun(folder, "run", "all", "--config", small_world(folder))
    assert done.returncode == 0, done.stderr
    assert re.search(r"complete, \d+ rows: read run/final", done.stdout)
    return folder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back at all tests comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    items[0].config.stash[LEFT_OUT] = True


LEFT_OUT = pytest.StashKey[bool]()
