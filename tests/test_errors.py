"""docs/errors.md has every error that a user can meet, and every one of them is met by a test."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from kun.cli import main as cli
from kun.config import files as config_files
from kun.store.shards import DamagedError
from tests import errors_met
from tests.raise_sites import FAILURES, HOLE, REPOSITORY, sites

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


def test_errors_that_are_met_and_missed_are_told_apart():
    """Whether the tests meet them all is judged when all have ended: pytest_sessionfinish in tests/conftest.py."""
    known = [site for site in sites() if site.kind not in FAILURES]
    raised = {(str(REPOSITORY / site.file), site.end) for site in known}
    messages = {site.form.replace(HOLE, "x") for site in known}
    assert errors_met.unmet(raised, messages) == []
    assert errors_met.unmet(set(), set()) == list(map(str, known)) != []
    (some,) = {path for path, _ in raised if path.endswith("kun/pipeline/lock.py")}
    missed = errors_met.unmet({place for place in raised if place[0] != some}, messages)
    assert missed and all(site.startswith("kun/pipeline/lock.py:") for site in missed)


def test_what_was_not_run_whole_is_not_judged():
    assert errors_met.judge(whole=False, well=True) == ("skipped", "not all tests are run")
    assert errors_met.judge(whole=True, well=False)[0] == "skipped"
