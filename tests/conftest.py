"""Settings of the process that must be made before torch is imported; what tests/test_errors.py has to know."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Sequence

import pytest

from tests import errors_met

errors_met.watch()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks back at all tests comes last."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    errors_met.deselected.extend(item.nodeid for item in items)


def pytest_sessionfinish():
    import json
    if folder := os.environ.get("KUN_ERRORS_MET"):
        json.dump([list(errors_met.places), list(errors_met.messages)], open(f"{folder}/{os.getpid()}", "w"))
