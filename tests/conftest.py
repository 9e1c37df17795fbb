"""Settings of the process that must be made before torch is imported; what tests/test_errors.py looks back at."""

import os
import tempfile
from collections.abc import Sequence

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests import errors_met

met = tempfile.TemporaryDirectory(prefix="kun-errors-met-")
os.environ.setdefault(errors_met.FOLDER, met.name)
errors_met.watch()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back at all tests comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    items[0].config.stash[LEFT_OUT] = True


LEFT_OUT = pytest.StashKey[bool]()
