"""docs/errors.md has every error that a user can meet, and every one of them is met by a test."""

from __future__ import annotations

import errno
import importlib.util
import re
from pathlib import Path

import pytest

from kun.cli import main as cli
from kun.config import files as config_files
from kun.filters.perplexity.lmplz import find_program
from kun.store.shards import DamagedError
from tests import errors_met
from tests.conftest import LEFT_OUT
from tests.raise_sites import FAILURES, HOLE, REPOSITORY, Site, sites

DOCUMENT = (REPOSITORY / "docs/errors.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^- (`{1,2})(.+)\1$", re.MULTILINE)  # the line of a message; what to do is on those below


def test_the_page_lists_all_messages_and_no_others():
    listed = {re.sub("<[^<>]+>", HOLE, text.strip()) for _, text in ENTRY.findall(DOCUMENT)}
    made = {site.form for site in sites()} | _of_the_system() | _of_the_configuration() | _of_shards()
    listed, made = ({_plain(form) for form in forms if re.search(r"\w", form)} for forms in (listed, made))
    assert sorted(made - listed) == [], "these are not in docs/errors.md"
    assert sorted(listed - made) == [], "these are in docs/errors.md, and nowhere in Kun"


def _plain(form: str) -> str:
    return re.sub(f"({HOLE})+", HOLE, form)


def _of_the_system() -> set[str]:
    """What the command line makes of the operating system's errors."""
    return {cli.explain(OSError(number, HOLE, HOLE)) for number in errno.errorcode}


def _of_the_configuration() -> set[str]:
    """Words of Kun's own for what pydantic finds."""
    return {"unknown setting", *config_files._PLAINLY.values()}


def _of_shards() -> set[str]:
    said = str(DamagedError(Path("stage3_label-wudao-0/part-00000.jsonl"), HOLE))
    return {re.sub(r"\S*part-\S+[^:\s]|(?<=kun verify )[^`]+", HOLE, said)}


@pytest.mark.last
def test_every_error_is_met_by_a_test(request):
    """Only a whole session in one process (`make test`) can tell."""
    files = {item.path for item in request.session.items}
    if LEFT_OUT in request.config.stash or not files.issuperset((REPOSITORY / "tests").rglob("test_*.py")):
        pytest.skip("not all tests are run")
    if hasattr(request.config, "workerinput") or request.session.testsfailed:
        pytest.skip("the tests are spread over processes, or one has failed")
    if importlib.util.find_spec("vllm") is None or find_program("lmplz") is None:
        pytest.skip("without vLLM and lmplz their errors are not met")
    places, messages = errors_met.read()
    missed = [site for site in sites() if site.kind not in FAILURES and not _is_met(site, places, messages)]
    assert list(map(str, missed)) == []


def _is_met(site: Site, places: set[tuple[str, int]], messages: set[str]) -> bool:
    if site.kind == "ValueError":  # of a validator: pydantic makes it part of a ConfigError's message
        said = re.compile(".+".join(map(re.escape, site.form.split(HOLE))))
        return any(map(said.search, messages))
    return any((str(REPOSITORY / site.file), line) in places for line in range(site.line, site.end + 1))
