import pytest

from kun.store import markers, shards


def test_a_marker_is_read_back_or_is_none(tmp_path):
    path = tmp_path / "part-00000.done.json"
    assert markers.read(path, shards.Done) is None
    done = shards.Done(12, 8, {"ppl_high": 4}, 0, "abc", {"kept": "def"}, 0.125)
    written = markers.write(path, done)
    assert markers.read(path, shards.Done) == written
    assert (written.rows, written.rejected) == (12, {"ppl_high": 4})


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data.replace(b"12", b"13"), lambda data: b"\0"]
)
def test_a_damaged_marker_is_none(tmp_path, damage):
    path = tmp_path / "part-00000.done.json"
    markers.write(path, shards.Done(12, 12, {}, 0, "abc", {}))
    path.write_bytes(damage(path.read_bytes()))
    assert markers.read(path, shards.Done) is None
