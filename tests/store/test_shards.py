import pickle

import msgspec
import pytest

from kun.records import Document, Filtered, Origin, Reject, extend
from kun.store import shards
from kun.store.shards import Failed

HOSTILE = [
    "，。！？「」",
    "繁體中文與简体",
    "表情🙂👨‍👩‍👧",
    "行\u2028分\u2029隔\x85符",
    '<|im_end|></s>{"id":"x"}\n\\',
    "עברית 한국어",
]


def documents(texts=HOSTILE):
    return [
        Document(id=f"{i:016x}", subset="wudao", text=text, origin=Origin("a.json", i)) for i, text in enumerate(texts)
    ]


def outcomes(records):
    """The first is kept, the second rejected, the third failed, and so on."""
    for i, record in enumerate(records):
        kept = extend(record, Filtered, ppl=None, tokens=3)
        yield record, (kept, Reject("ppl_high", "ppl 9,120"), Failed("out of memory"))[i % 3]


def test_what_is_published_is_read_back_as_it_was(tmp_path):
    records = documents()
    done = shards.publish(tmp_path, "00000", outcomes(records), rows=6, source={"shard": "abc"})
    assert (done.rows, done.kept, done.rejected, done.failed) == (6, 2, {"ppl_high": 2}, 2)
    assert shards.marker(tmp_path, "00000") == done
    assert [r.text for r in shards.read_kept(tmp_path, "00000", Filtered)] == [HOSTILE[0], HOSTILE[3]]
    assert [row.id for row in shards.rejects(tmp_path, "00000")] == [records[1].id, records[4].id]
    assert [row.error for row in shards.failures(tmp_path, "00000")] == ["out of memory"] * 2


def test_chinese_is_written_as_chinese(tmp_path):
    shards.publish(tmp_path, "00000", outcomes(documents()[:1]), rows=1, source={})
    assert "，。！？「」".encode() in shards.part(tmp_path, "00000").read_bytes()


def test_a_record_that_is_not_accounted_for_stops_the_shard(tmp_path):
    records = documents()
    with pytest.raises(AssertionError, match="6 rows in, 5 accounted for"):
        shards.publish(tmp_path, "00000", outcomes(records[:5]), rows=6, source={})
    assert shards.marker(tmp_path, "00000") is None


def test_without_the_marker_the_shard_is_not_there(tmp_path):
    shards.publish(tmp_path, "00000", outcomes(documents()), rows=6, source={})
    shards.part(tmp_path, "00000", "done").unlink()
    assert shards.marker(tmp_path, "00000") is None


def test_what_was_asked_before_is_taken_over_without_the_failed(tmp_path):
    records = documents()
    digests = [shards.row_digest(record) for record in records]
    shards.publish(tmp_path, "00000", outcomes(records), rows=6, source={}, above="x", asked_of=digests)
    settled = {row["id"]: (digest, row) for digest, row in shards.answers(tmp_path, "00000")}
    assert {name: digest for name, (digest, _) in settled.items()} == {
        records[i].id: digests[i] for i in (0, 1, 3, 4)
    }  # fmt: skip
    kept, rejected = (shards.settle(records[i], settled[records[i].id][1], Filtered) for i in (0, 1))
    assert kept == extend(records[0], Filtered, ppl=None, tokens=3) and rejected == Reject("ppl_high", "ppl 9,120")


def test_a_step_stores_what_it_adds(tmp_path):
    """And reading joins it with what is above: texts lie on the disk once, unless they were changed."""
    records = documents()
    base, below, last = (tmp_path / "store" / name for name in ("read-web-1", "clean-web-1", "ids-web-1"))
    shards.publish(base, "00000", [(record, record) for record in records], rows=6, source={})
    cleaned = [extend(record, Filtered, ppl=None, tokens=3) for record in records]
    cleaned[3] = msgspec.structs.replace(cleaned[3], text="干净", cleaned=("encoding",))
    shards.publish(below, "00000", zip(records, cleaned, strict=True), rows=6, source={}, above=base.name)
    shards.publish(last, "00000", ((one, one) for one in cleaned[2:]), rows=4, source={}, above=below.name)
    assert shards.read_kept(last, "00000", Filtered) == cleaned[2:]
    lines = shards.part(below, "00000").read_bytes().splitlines()
    assert lines[0] == b'{"id":"%s","ppl":null,"tokens":3}' % records[0].id.encode()
    assert "干净".encode() in lines[3]
    assert shards.part(last, "00000").read_bytes().splitlines()[0] == b'{"id":"%s"}' % records[2].id.encode()
    copy = tmp_path / "copy"
    for folder in (base, below, last):
        (copy / folder.name.partition("-")[0]).mkdir(parents=True)
        folder.rename(copy / folder.name.partition("-")[0] / "web")
    assert shards.read_kept(copy / "ids" / "web", "00000", Filtered) == cleaned[2:]


def test_failures_that_were_mended_leave_no_file(tmp_path):
    records = documents()
    shards.publish(tmp_path, "00000", outcomes(records), rows=6, source={})
    shards.publish(
        tmp_path, "00000", ((r, extend(r, Filtered, ppl=None, tokens=1)) for r in records), rows=6, source={}
    )
    assert not shards.part(tmp_path, "00000", "failed").exists()


def one_byte_other(data: bytes) -> bytes:
    return data.replace("，".encode(), "、".encode(), 1)  # the JSON is as good as before


def longer(data: bytes) -> bytes:
    return data + b'{"id":"half'


@pytest.mark.parametrize("damage", [one_byte_other, longer, lambda data: data[: len(data) // 2], lambda data: b""])
@pytest.mark.parametrize("kind", ["", "rejects", "failed"])
def test_a_damaged_shard_is_named_with_the_remedy(tmp_path, damage, kind):
    folder = tmp_path / "x/store/stage3_label-wudao-abc"
    texts = HOSTILE[:1] * 3
    shards.publish(folder, "00000", outcomes(documents(texts)), rows=3, source={})
    path = shards.part(folder, "00000", kind)
    path.write_bytes(damage(path.read_bytes()))
    what = rf"jsonl: the shard is damaged.*; `kun verify {tmp_path}/x` tells how to make it again"
    read = {
        "": lambda: shards.read_kept(folder, "00000", Filtered),
        "rejects": lambda: list(shards.rejects(folder, "00000")),
    }
    read["failed"] = lambda: list(shards.failures(folder, "00000"))
    with pytest.raises(shards.DamagedError, match=what):
        read[kind]()


def test_a_shard_without_its_file_or_its_marker_is_damaged(tmp_path):
    for kind, why in (("done", "without its marker"), ("", "gone")):
        shards.publish(tmp_path, "00000", outcomes(documents()), rows=6, source={})
        shards.part(tmp_path, "00000", kind).unlink()
        with pytest.raises(shards.DamagedError, match=why):
            shards.read_kept(tmp_path, "00000", Filtered)


@pytest.mark.parametrize("above", ["../elsewhere", "/etc", "."])
def test_a_shard_is_made_from_none_outside_of_the_store(tmp_path, above):
    folder = tmp_path / "store" / "labels-web-1"
    shards.publish(folder, "00000", [(record, record) for record in documents()], rows=6, source={}, above=above)
    with pytest.raises(shards.DamagedError, match="which is not of this run"):
        shards.read_kept(folder, "00000", Filtered)


def test_a_key_is_no_path(tmp_path):
    (tmp_path / "done.json").write_text('{"shards":["../../x"]}')
    assert shards.order(tmp_path) == []


def test_a_marker_that_cannot_be_read_is_none(tmp_path):
    shards.publish(tmp_path, "00000", outcomes(documents()), rows=6, source={})
    path = shards.part(tmp_path, "00000", "done")
    path.write_bytes(path.read_bytes()[:20])
    assert shards.marker(tmp_path, "00000") is None


def test_what_is_wrong_with_a_shard_comes_through_from_a_worker_process(tmp_path):
    error = pickle.loads(pickle.dumps(shards.DamagedError(shards.part(tmp_path, "00003", "rejects"), "gone")))
    assert (error.path, error.why, error.marker.name) == (
        tmp_path / "part-00003.rejects.jsonl",
        "gone",
        "part-00003.done.json",
    )
