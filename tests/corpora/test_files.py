"""What a path of a corpus may lead to besides files."""

import contextlib
import os
from pathlib import Path

import pytest

from kun.config.schema import Corpus
from kun.corpora import evaluation, find, read_corpus
from kun.corpora.files import CorpusFile, open_file
from kun.corpora.readers import read_part
from kun.errors import InputError

LINE = b'{"text": "a"}\n'


def names(path):
    return [found.name for found in find("web", Corpus(paths=(str(path),), format="jsonl"))]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("odd", ["pipe", "broken link", "link to itself"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, odd, folder):
    path = tmp_path / "b.jsonl"
    (tmp_path / "a.jsonl").write_bytes(LINE)
    if odd == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if odd == "link to itself" else tmp_path / "none")
    with pytest.raises(InputError, match=r"corpora\.web\.paths: .*b\.jsonl"):
        names(tmp_path if folder else path)


def test_a_device_is_no_corpus():
    with pytest.raises(InputError, match="/dev/zero: neither a file nor a folder"):
        names("/dev/zero")


def test_links_to_folders_are_followed_each_folder_once(tmp_path):
    (tmp_path / "corpus" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus" / "a" / "1.jsonl").write_bytes(LINE)
    (tmp_path / "elsewhere" / "2.jsonl").write_bytes(LINE)
    (tmp_path / "corpus" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "a" / "loop").symlink_to(tmp_path / "corpus")
    assert names(tmp_path / "corpus") == ["a/1.jsonl", "b/2.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINE)
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(InputError, match="locked: Permission denied"):
        names(tmp_path)


def test_names_with_any_bytes(tmp_path):
    for name in (b"\xff.jsonl", b"new\nline.jsonl", b"\x1b]0;x\x07.jsonl"):
        (tmp_path / os.fsdecode(name)).write_bytes(LINE)
    rows = list(read_corpus("web", Corpus(paths=(str(tmp_path),), format="jsonl")))
    assert [row.text for row in rows] == ["a"] * 3
    assert all(row.origin.file.encode() for row in rows)


def test_a_glob_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match=r"corpora\.web\.paths: .*\*\*"):
        names(tmp_path / "**.jsonl")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.ZIP", "a.jsonl.xz", "a.7z.001"])
def test_an_archive_is_not_read_as_rows(tmp_path, name):
    (tmp_path / name).write_bytes(LINE)
    with pytest.raises(InputError, match=rf"corpora\.web\.paths: .*{name}: format jsonl reads no \.\w+ file; unpack"):
        names(tmp_path / "a.*")


def test_a_folder_that_cannot_be_read_is_named_whoever_reads(tmp_path):
    """With a path that is too long, which not even root can read."""
    (tmp_path / "a.jsonl").write_bytes(LINE)
    with contextlib.chdir(tmp_path):
        for _ in range(17):  # 255 bytes each, of 4,096
            Path("x" * 255).mkdir()
            os.chdir("x" * 255)
    with pytest.raises(InputError, match=r"corpora\.web\.paths: .*xxx: File name too long"):
        names(tmp_path)


def test_a_file_that_went_away_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}/a\.jsonl: No such file or directory"):
        open_file(CorpusFile(tmp_path / "a.jsonl", "a.jsonl"))
    gone = CorpusFile(tmp_path / "a.parquet", "a.parquet")
    with pytest.raises(InputError, match=rf"corpora\.web\.paths: {tmp_path}/a\.parquet: .*No such file"):
        list(read_part("web", Corpus(paths=("a.parquet",), format="parquet"), gone))
    with pytest.raises(InputError, match=rf"decontaminate\.files: {tmp_path}/a\.parquet: .*No such file"):
        list(evaluation.read_texts(gone))
