import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from kun.errors import InputError
from kun.store import atomic


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "part.jsonl"
    atomic.write(path, b"old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["part.jsonl"]


def test_a_full_disk_is_named_by_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kun.store.atomic.os.fsync", full)
    with pytest.raises(OSError) as caught:
        atomic.write(tmp_path / "part.jsonl", b"rows")
    assert caught.value.filename == str(tmp_path / "part.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_disk_does_not_give_is_named():
    with pytest.raises(OSError, match="Input/output error: '/proc/self/mem'"), atomic.naming(Path("/proc/self/mem")):
        Path("/proc/self/mem").read_bytes()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("I/O error: No space left on device (os error 28)"),  # safetensors
        OSError("100 requested and 3 written"),  # numpy
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_a_library_says_of_a_full_disk_is_named_by_the_folder(tmp_path, monkeypatch, error):
    if "No space" not in str(error):
        monkeypatch.setattr("kun.store.atomic.shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(OSError) as caught, atomic.naming_a_full_disk(tmp_path):
        raise error
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))


@pytest.mark.parametrize("error", [InputError("seeds.jsonl:3: no JSON"), ValueError("a bug"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic.naming_a_full_disk(tmp_path):
        raise error
    assert caught.value is error


def test_a_link_moves_in_one_step_and_stays_relative(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "stage3_label" / "wudao"
    atomic.point(link, tmp_path / "one")
    atomic.point(link, tmp_path / "two")
    assert link.resolve() == tmp_path / "two"
    assert not link.readlink().is_absolute()


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / f".part-00000.jsonl{atomic.SUFFIX}").write_bytes(b"half")
    (tmp_path / f".report{atomic.SUFFIX}").mkdir()
    (tmp_path / f".wudao{atomic.SUFFIX}").symlink_to("nowhere")
    (tmp_path / "part-00001.jsonl").write_bytes(b"whole")
    atomic.remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["part-00001.jsonl"]


def test_a_folder_that_was_half_discarded_is_gone_and_leaves_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "stage3_label-wudao-abc"
    folder.mkdir()
    (folder / "done.json").write_bytes(b"{}")

    def killed(path, **_):
        if path.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kun.store.atomic.shutil.rmtree", killed)
        atomic.discard(folder)
    assert not folder.exists()
    folder.mkdir()
    atomic.remove_temporaries(folder)
    assert list(tmp_path.iterdir()) == [folder]
    atomic.discard(folder)
    assert list(tmp_path.iterdir()) == []
