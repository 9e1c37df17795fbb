import os

import pytest

from kun.errors import InputError
from kun.store.digests import Digests, of_value


def test_a_digest_is_of_the_content_not_of_the_path_or_time(tmp_path):
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").write_text("text")
    os.utime(tmp_path / "b", (0, 0))
    digests = Digests(tmp_path / "cache.json")
    assert digests.path(tmp_path / "a", "x") == digests.path(tmp_path / "b", "x")


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
    digests = Digests(tmp_path / "cache.json")
    before = digests.path(folder, "base_model")
    (folder / ".cache").write_text("ignored")
    assert digests.path(folder, "base_model") == before
    (folder / "config.json").rename(folder / "renamed.json")
    assert digests.path(folder, "base_model") != before


def test_a_missing_file_names_file_and_setting(tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: No such file.*seeds\.pairs"):
        Digests(tmp_path / "cache.json").path(tmp_path / "gone.jsonl", "seeds.pairs")


def test_a_damaged_cache_is_only_a_cache(tmp_path):
    (tmp_path / "cache.json").write_text("{half")
    (tmp_path / "a").write_text("text")
    assert Digests(tmp_path / "cache.json").path(tmp_path / "a", "x")


def test_values_hash_alike_whatever_the_order_of_keys():
    assert of_value({"a": 1, "b": [2, None]}) == of_value({"b": [2, None], "a": 1})
    with pytest.raises(TypeError):
        of_value({"a": object()})


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_name_that_is_no_utf8_can_be_digested_and_remembered(tmp_path, inside):
    path = tmp_path / "corpus" / os.fsdecode("新闻".encode("gbk"))
    path.parent.mkdir()
    path.write_text("text")
    digests = Digests(tmp_path / "cache.json")
    assert digests.path(path.parent if inside else path, "corpora.web.paths")
    digests.save()
    assert Digests(tmp_path / "cache.json").path(path, "corpora.web.paths")
