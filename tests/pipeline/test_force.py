"""--force makes a step again in a folder beside its own: the old output stays until the new one is whole."""

from __future__ import annotations

import pytest

from kun.pipeline.run_folder import ANEW, RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.status import survey
from kun.verify.leftovers import unused
from kun.verify.steps import find
from tests.small_pipeline import CountingEngine, Small

TEXTS = {"wudao": ["一" * n for n in range(2, 20, 2)]}


@pytest.fixture
def made(tmp_path):
    small = Small(tmp_path, TEXTS)
    small.go()
    return small


def killed(made: Small, dies_after: int) -> Small:
    """The last stage, made again by force, and killed after so many answers."""
    other = Small(made.path, TEXTS, CountingEngine(dies_after=dies_after))
    with pytest.raises(KeyboardInterrupt):
        run_stage(other.stages()[2], other.run, force=True)
    return other


def files(small: Small) -> dict[str, bytes]:
    folder = small.run.link(small.stages()[2].steps[0]).resolve()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_there_is_current_while_it_is_made_again(made):
    before = files(made)
    killed(made, dies_after=4)
    assert files(made) == before
    assert [state.condition for state in survey(made.stages(), made.run)] == ["complete"] * 3
    assert made.go() == [False] * 3


def test_it_goes_on_where_it_was_killed_and_takes_the_place_of_the_old(made):
    killed(made, dies_after=4)
    step = made.stages()[2].steps[0]
    before = made.run.folder(step).stat().st_ino
    again = Small(made.path, TEXTS)
    run_stage(again.stages()[2], again.run, force=True)
    assert again.engine.asked == [14, 16, 18]  # two shards of three were made before
    assert made.run.folder(step).stat().st_ino != before
    assert made.run.link(step).resolve() == made.run.folder(step).resolve()
    assert not list(made.run.store.glob(f"*{ANEW}"))


def test_killed_between_the_old_and_the_new_one(made):
    """The old folder is gone, and the new one not yet in its place: the next run puts it there."""
    step = made.stages()[2].steps[0]
    folder = made.run.folder(step)
    folder.rename(folder.with_name(folder.name + ANEW))
    again = Small(made.path, TEXTS)
    assert again.go() == [False, False, True]
    assert again.engine.asked == [] and made.run.current(step) is not None


def test_what_an_unfinished_force_made_is_left_over(made):
    killed(made, dies_after=4)
    assert [(one.path.name.endswith(ANEW), one.why) for one in unused(made.path, *find(made.path))] == [
        (True, "of an unfinished --force")
    ]


def test_all_subsets_change_places_together(tmp_path):
    """A stage is made again as one: a subset that was ready early waits for the others."""
    texts = {"wudao": ["两字"], "skypile": ["四个字符"]}
    small = Small(tmp_path, texts)
    small.go()
    old = [small.run.folder(step).stat().st_ino for step in small.stages()[2].steps]
    other = Small(tmp_path, texts, CountingEngine(dies_after=1))
    with pytest.raises(KeyboardInterrupt):
        run_stage(other.stages()[2], other.run, force=True)
    assert [small.run.folder(step).stat().st_ino for step in small.stages()[2].steps] == old
    run_stage(Small(tmp_path, texts).stages()[2], RunFolder(tmp_path), force=True)
    assert all(small.run.current(step) is not None for step in small.stages()[2].steps)
