"""Archives that say what is not so. Nothing in one is passed over in silence, and none takes for ever."""

import gzip
import tarfile

import pytest

from kun.config.schema import Corpus
from kun.corpora import read_corpus

LINE = '{"content": "好"}\n'.encode()
END = bytes(1024)


def member(name="a.jsonl", data=LINE, **header):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


def outcomes(tmp_path, data, name="a.tar"):
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    rows = read_corpus("web", Corpus(paths=(str(tmp_path),), format="wanjuan"))
    return [row.text if row.reject is None else row.reject.reason for row in rows]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (member() + END, ["好"]),
        (member() + bytes(20480), ["好"]),  # what tar itself writes
        (END, []),
        (member(), ["好", "truncated"]),  # cut between two members, perhaps
        (member() + member()[:300], ["好", "truncated"]),
        (member() + b"x" * 512 + member() + END, ["好", "damaged"]),
        (member() + END + member() + END, ["好", "damaged"]),  # cat a.tar b.tar
        (member() + bytes(512) + member() + END, ["好", "damaged"]),
    ],
    ids=["whole", "padded", "empty", "no end", "cut header", "broken header", "two archives", "zeros inside"],
)
def test_no_end_of_an_archive_hides_rows(tmp_path, data, expected, name):
    assert outcomes(tmp_path, data, name) == expected


@pytest.mark.parametrize("name", ["big.jsonl", "big.bin"])
@pytest.mark.parametrize("packed", ["a.tar", "a.tgz"])
def test_a_member_that_says_it_has_an_exabyte_takes_no_longer_than_its_bytes(tmp_path, name, packed):
    data = member() + member(name, size=2**60)
    assert outcomes(tmp_path, data, packed)[0] == "好"
    assert outcomes(tmp_path, data, packed)[-1] == "truncated"


def test_a_sparse_member_is_not_filled_in(tmp_path):
    """1 KiB on the disk, 8 EB of zeros when it is read."""
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**62)}
    assert outcomes(tmp_path, member(pax_headers=headers) + member() + END) == ["unsafe_member", "好"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_megabytes_is_damage(tmp_path, kind):
    long_name = member("x", b"x" * (2**20 + 1), type=kind)
    assert outcomes(tmp_path, member() + long_name + member() + END) == ["好", "damaged"]


@pytest.mark.parametrize("attribute", [("size", "x"), ("size", "-5"), ("mtime", "x"), ("GNU.sparse.map", "1,x")])
def test_odd_attributes_are_damage(tmp_path, attribute):
    found = outcomes(tmp_path, member() + member(pax_headers=dict([attribute])) + END)
    assert found[0] == "好" and set(found[1:]) <= {"damaged", "truncated", "unsafe_member", "好"}


def test_names_with_any_characters_are_told(tmp_path):
    rows = outcomes(tmp_path, member("a\nb\x1b[2J.jsonl") + member("繁\udcff.jsonl") + END)
    assert rows == ["好", "好"]
