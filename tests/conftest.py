"""What all tests share: settings made before torch is imported, one finished run, and how xdist deals the tests out.

pytest            # two workers (see addopts in pyproject.toml); `pytest -n 0 FILE` runs in this process
"""

import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores; tiny models gain nothing by a second

from tests import errors_met
from tests.runs import REPOSITORY, kun, small_world

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
if errors_met.FOLDER not in os.environ:  # a worker has the folder of the process that started it
    met = tempfile.TemporaryDirectory(prefix="kun-errors-met-")
    os.environ[errors_met.FOLDER] = met.name
errors_met.watch()

# Files that stay on one worker: vLLM takes the memory and the cores of one, and the finished run is made once.
TOGETHER = {
    "vllm": re.compile(r"vllm"),
    "finished": re.compile(r"test_end_to_end|cli/test_verify|planning/test_plan\.py|test_second_pipeline|test_chaos"),
}
ERRORS = "tests/test_errors.py"
IS_WHOLE = pytest.StashKey[bool]()  # whether the session has all tests; absent where it does not have those of ERRORS
LEFT_OUT = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small world, small.yaml, and its whole run in `run`; for tests to copy, not to change."""
    folder = tmp_path_factory.mktemp("finished")
    done = kun(folder, "run", "all", "--config", small_world(folder), models=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"complete, \d+ rows: read run/final", done.stdout)
    return folder


def group(name: str) -> str:
    """What the file of a test is dealt out with: its own path, or the name of those that stay together."""
    file = name.partition("::")[0]
    return next((group for group, files in TOGETHER.items() if files.search(file)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As --dist loadfile, with the groups of TOGETHER, in the order of collection."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = group
    return scheduling


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a worker the longest first, so that both end at about the same time."""
    if hasattr(config, "workerinput"):
        slow = (group(item.nodeid) for item in items if item.get_closest_marker("slow"))
        ranks = list(dict.fromkeys([*TOGETHER, *slow]))  # no set: the workers must agree on the order
        items.sort(key=lambda item: ranks.index(name) if (name := group(item.nodeid)) in ranks else len(ranks))


def pytest_deselected(items: list[pytest.Item]) -> None:
    items[0].config.stash[LEFT_OUT] = True


def pytest_collection_finish(session: pytest.Session) -> None:
    files = {item.path for item in session.items}
    if REPOSITORY / ERRORS in files:
        whole = LEFT_OUT not in session.config.stash and files.issuperset((REPOSITORY / "tests").rglob("test_*.py"))
        session.config.stash[IS_WHOLE] = whole


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if "is_whole" in getattr(node, "workeroutput", {}):
        node.config.stash[IS_WHOLE] = node.workeroutput["is_whole"]


@pytest.hookimpl(trylast=True)  # once xdist has ended its workers
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The last test, of what all others did in all processes: it is reported as one, and fails the session as one."""
    config = session.config
    if IS_WHOLE not in config.stash or config.option.collectonly:
        return
    if hasattr(config, "workeroutput"):
        config.workeroutput["is_whole"] = config.stash[IS_WHOLE]
        return
    outcome, text = errors_met.judge(config.stash[IS_WHOLE], session.exitstatus == pytest.ExitCode.OK)
    place = (ERRORS, 1, text)
    report = pytest.TestReport(
        nodeid=f"{ERRORS}::test_every_error_is_met_by_a_test",
        location=(ERRORS, 0, "test_every_error_is_met_by_a_test"),
        keywords={},
        outcome=outcome,
        longrepr=place if outcome == "skipped" else text or None,
        when="call",
    )
    config.hook.pytest_runtest_logreport(report=report)
    if report.failed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
