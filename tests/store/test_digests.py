import os
from contextlib import nullcontext

import pytest

from kun.errors import InputError
from kun.store import digests
from kun.store.digests import Digests, of_value


def test_a_digest_is_of_the_content_not_of_the_path_or_time(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").write_text("text")
    os.utime(tmp_path / "b", (0, 0))
    known = Digests(tmp_path / "cache.json")
    assert known.path(tmp_path / "a", "x") == known.path(tmp_path / "b", "x")


def test_a_change_is_seen_and_the_cache_is_used_across_processes(tmp_path):
    path, cache = tmp_path / "seeds.jsonl", tmp_path / "cache.json"
    path.write_text("one")
    first = Digests(cache)
    before = first.path(path, "seeds.pairs")
    first.save()
    assert Digests(cache).path(path, "seeds.pairs") == before
    path.write_text("three")
    assert Digests(cache).path(path, "seeds.pairs") != before


def test_a_folder_is_its_files_and_their_names(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    known = Digests(tmp_path / "cache.json")
    before = known.path(folder, "base_model")
    (folder / ".cache").write_text("ignored")
    assert known.path(folder, "base_model") == before
    (folder / "config.json").rename(folder / "renamed.json")
    assert known.path(folder, "base_model") != before


def test_a_missing_file_names_file_and_setting(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: No such file.*seeds\.pairs"):
        Digests(tmp_path / "cache.json").path(tmp_path / "gone.jsonl", "seeds.pairs")


def test_large_files_are_read_side_by_side_with_a_bar(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 3_000_000)
    one_by_one = [Digests(tmp_path / "cache.json").path(path, "x") for path in paths]
    reached = []
    monkeypatch.setattr(digests, "WORTH_A_BAR", 1)
    monkeypatch.setattr(digests, "bar", lambda *_: nullcontext(lambda done, total: reached.append((done, total))))
    assert Digests(tmp_path / "cache.json").files(paths, "x") == one_by_one
    assert reached[-1] == (9, 9)


def test_a_file_that_cannot_be_read_stops_the_others(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"b" * 3_000_000)
    monkeypatch.setattr(digests, "WORTH_A_BAR", 1)
    with pytest.raises(InputError, match=r"a: Is a directory.*setting x"):
        Digests(tmp_path / "cache.json").files([tmp_path / "a", tmp_path / "b"], "x")


def test_a_damaged_cache_is_only_a_cache(tmp_path):
    (tmp_path / "cache.json").write_text("{half")
    (tmp_path / "a").write_text("text")
    assert Digests(tmp_path / "cache.json").path(tmp_path / "a", "x")


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path):
    path, known = tmp_path / "part.jsonl", Digests(tmp_path / "cache.json")
    path.write_text("one")
    before, stat = known.path(path, "x"), path.stat()
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert known.path(path, "x") != before


def test_a_wrong_digest_in_the_cache_is_not_believed(tmp_path):
    """It would make every step of the run stale."""
    path, cache = tmp_path / "seeds.jsonl", tmp_path / "cache.json"
    path.write_text("text")
    known = Digests(cache)
    digest = known.path(path, "x")
    known.save()
    cache.write_text(cache.read_text().replace(digest, digest[::-1]))
    assert Digests(cache).path(path, "x") == digest


def test_values_hash_alike_whatever_the_order_of_keys():
    assert of_value({"a": 1, "b": [2, None]}) == of_value({"b": [2, None], "a": 1})
    with pytest.raises(TypeError):
        of_value({"a": object()})


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_name_that_is_no_utf8_can_be_digested_and_remembered(tmp_path, inside):
    path = tmp_path / "corpus" / os.fsdecode("新闻".encode("gbk"))
    path.parent.mkdir()
    path.write_text("text")
    known = Digests(tmp_path / "cache.json")
    assert known.path(path.parent if inside else path, "corpora.web.paths")
    known.save()
    assert Digests(tmp_path / "cache.json").path(path, "corpora.web.paths")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"seeds\.pairs: .*pipe"):
        Digests(tmp_path / "cache").path(tmp_path / "pipe", "seeds.pairs")
