import os
import random
from pathlib import Path

import msgspec
import pytest

from kun.filters.duplicates import near_duplicates, signatures
from kun.filters.duplicates.near_duplicates import Indexed, build, judge
from kun.records import Filtered, Origin, Reject
from kun.store import shards

CHARACTERS = [chr(code) for code in range(0x4E00, 0x9000)]


def prose(seed, size=300):
    return "".join(random.Random(seed).choices(CHARACTERS, k=size))


def document(subset, number, text):
    name = f"{subset}{number}".ljust(20, ".")
    return Filtered(id=name, subset=subset, text=text, origin=Origin("a", number), ppl=None, tokens=len(text))


class Corpus:
    """Subsets of texts on the disk; `index(...)` gives what is dropped: subset and number -> those of the kept one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents: dict[str, list[Filtered]] = {}

    def add(self, subset, texts, shard_rows=3):
        documents = [document(subset, number, text) for number, text in enumerate(texts)]
        self.documents[subset] = documents
        keys = []
        for index, start in enumerate(range(0, len(documents), shard_rows)):
            rows = documents[start : start + shard_rows]
            keys.append(f"{index:05d}")
            shards.publish(self.folder / subset, keys[-1], [(row, row) for row in rows], rows=len(rows), source={})
        (self.folder / subset).mkdir(exist_ok=True)
        (self.folder / subset / "done.json").write_bytes(msgspec.json.encode({"shards": keys}))

    def index(self, subset, earlier=(), limit=0.7, workers=1):
        (self.folder / f"index-{subset}").mkdir(exist_ok=True)
        names = [*earlier, subset]
        return build(
            [Indexed(name, self.folder / name, self.folder / f"index-{name}") for name in names], limit, workers
        )

    def dropped(self, subset):
        rows = self.documents[subset]
        judged = dict(zip([row.id for row in rows], judge(self.folder / f"index-{subset}", rows), strict=True))
        return {key.rstrip("."): value.detail for key, value in judged.items() if isinstance(value, Reject)}

    def files(self, subset):
        return {path.name: path.read_bytes() for path in (self.folder / f"index-{subset}").iterdir()}


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


def test_a_copy_is_dropped_and_names_what_is_kept(corpus):
    text = prose(1)
    corpus.add("b", [prose(2), prose(3), text, prose(4), text[:290] + "，改了结尾！"])
    assert corpus.index("b") == {"documents": 5, "near_duplicates": 1, "of_other_subsets": 0}
    [(name, detail)] = corpus.dropped("b").items()
    assert name == "b4"
    assert detail.startswith(f"{document('b', 2, '').id} (b), similarity 0.9")
    (verdict,) = judge(corpus.folder / "index-b", corpus.documents["b"][4:5])
    assert verdict.reason == "near_duplicate"


def test_across_subsets_the_one_named_first_is_kept(corpus):
    corpus.add("wudao", [prose(1), prose(2)])
    corpus.add("skypile", [prose(3), prose(2) + "尾", prose(3)])
    corpus.index("wudao")
    assert corpus.index("skypile", ["wudao"])["of_other_subsets"] == 1
    found = corpus.dropped("skypile")
    assert set(found) == {"skypile1", "skypile2"}
    assert "(wudao)" in found["skypile1"] and "(skypile)" in found["skypile2"]
    corpus.index("skypile")
    assert set(corpus.dropped("skypile")) == {"skypile2"}


def test_nothing_is_dropped_for_what_is_dropped_itself(corpus):
    """Of A ~ B ~ C, where A and C differ, A and C are kept; also where A and B are in a subset before."""
    parts = [prose(seed, 60) for seed in range(10)]
    one, two, three = ("".join(parts[start : start + 8]) for start in range(3))
    far = ("".join(parts[:8]), "".join(parts[2:10]))
    assert signature_similarity(one, two) >= 0.7 > signature_similarity(*far)
    corpus.add("a", [one, two, three])
    corpus.index("a")
    assert set(corpus.dropped("a")) == {"a1"}
    corpus.add("b", [one, two])
    corpus.add("c", [three])
    corpus.index("b")
    assert corpus.index("c", ["b"])["near_duplicates"] == 0


def signature_similarity(one, other):
    slots = signatures.sign([one, other])
    return float((slots[0] == slots[1]).mean())


def test_of_several_the_nearest_is_named(corpus):
    text = prose(1, 400)
    corpus.add("a", [text[:300] + prose(2, 100), text[:340] + prose(3, 60), text[:340] + prose(4, 55) + "尾"])
    corpus.index("a", limit=0.6)
    assert corpus.dropped("a")["a2"].startswith(document("a", 1, "").id)


def test_short_and_empty_texts(corpus):
    corpus.add("a", ["短", "短。", "长", "！！", "？？", "第一页", "第二页"])
    corpus.index("a")
    assert set(corpus.dropped("a")) == {"a1"}


def test_no_documents(corpus):
    (corpus.folder / "a").mkdir()
    corpus.add("a", [])
    assert corpus.index("a")["documents"] == 0
    corpus.add("b", [prose(1), prose(1)])
    assert corpus.index("b", ["a"])["near_duplicates"] == 1


def test_many_copies_and_many_pages_of_one_template(corpus, monkeypatch):
    """Pages that share a frame, and so bands, are not taken for copies (by estimates alone some of these are); and
    where few of a band are compared, a copy is found by another band."""
    frame = prose(2, 300)
    pages = [frame + prose(seed, 90) for seed in range(3, 300)]
    corpus.add("a", [*([prose(1)] * 300), *pages, pages[250] + "尾"], shard_rows=100)
    assert corpus.index("a")["near_duplicates"] == 300
    monkeypatch.setattr(near_duplicates, "COMPARED", 4)
    assert corpus.index("a")["near_duplicates"] == 300


def test_processes_chunks_and_blocks_change_nothing(corpus, monkeypatch):
    rng = random.Random(5)
    texts = [prose(seed) for seed in range(60)]
    texts += [text[: rng.randrange(200, 300)] + prose(seed + 100, 30) for seed, text in enumerate(texts)]
    corpus.add("a", texts, shard_rows=10)
    corpus.index("a")
    found = corpus.dropped("a")
    assert 20 < len(found) < 60
    for name, value in (("CACHED", 25), ("BATCH_CHARS", 700), ("BLOCK", 7)):
        monkeypatch.setattr(near_duplicates, name, value)
    assert corpus.index("a")["near_duplicates"] == len(found)
    assert corpus.dropped("a") == found
    assert len([name for name in corpus.files("a") if name.endswith(".keys")]) == 12
    one = corpus.files("a")
    for path in (corpus.folder / "index-a").iterdir():
        path.unlink()
    corpus.index("a", workers=2)
    assert corpus.files("a") == one


def test_what_was_signed_is_used_again_as_far_as_it_is_the_same(corpus):
    texts = [prose(seed) for seed in range(8)]
    corpus.add("a", texts)
    corpus.index("a")
    folder = corpus.folder / "index-a"
    first, second, third = sorted(folder.glob("*.keys"))
    for path in (first, second, third):
        os.utime(path, (0, 0))
    (folder / "dropped.npy").unlink()
    third.unlink()  # killed while it signed the third
    corpus.add("a", [*texts[:4], texts[0], *texts[5:]])  # and the second has become another one
    assert corpus.index("a")["near_duplicates"] == 1
    assert first.stat().st_mtime == 0 and third.stat().st_mtime != 0
    assert not second.exists() and len(list(folder.glob("*.keys"))) == 3
    assert set(corpus.dropped("a")) == {"a4"}
