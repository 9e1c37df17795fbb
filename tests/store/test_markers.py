import pytest

from kun.pipeline.run_folder import StepManifest
from kun.store import markers, shards


def test_a_marker_is_read_back_or_is_none(tmp_path):
    path = tmp_path / "part-00000.done.json"
    assert markers.read_marker(path, shards.ShardManifest) is None
    done = shards.ShardManifest(12, 8, {"ppl_high": 4}, 0, {"shard": "abc"}, {"kept": "def"}, "012")
    written = markers.write_marker(path, done)
    assert markers.read_marker(path, shards.ShardManifest) == written
    assert (written.rows, written.rejected) == (12, {"ppl_high": 4})


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data.replace(b"12", b"13"), lambda data: b"\0"]
)
def test_a_damaged_marker_is_none(tmp_path, damage):
    path = tmp_path / "part-00000.done.json"
    markers.write_marker(path, shards.ShardManifest(12, 12, {}, 0, {}, {}, ""))
    path.write_bytes(damage(path.read_bytes()))
    assert markers.read_marker(path, shards.ShardManifest) is None


@pytest.mark.parametrize(
    "marker",
    [
        shards.ShardManifest(12, 8, {"ppl_high": 4}, 0, {"shard": "abc"}, {"kept": "def"}, "012"),
        StepManifest(shards=["a"], rows=11),
    ],
)
def test_every_damaged_bit_and_every_cut_of_a_marker_is_seen(tmp_path, marker):
    path = tmp_path / "done.json"
    markers.write_marker(path, marker)
    data = path.read_bytes()
    for place in range(len(data)):
        for flip in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << flip]) + data[place + 1 :])
            assert markers.read_marker(path, type(marker)) is None, data[place:]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert markers.read_marker(path, type(marker)) is None, length


def test_a_marker_of_no_rows_is_read_back(tmp_path):
    whole = markers.write_marker(tmp_path / "done.json", StepManifest(seconds=0))
    assert markers.read_marker(tmp_path / "done.json", StepManifest) == whole
