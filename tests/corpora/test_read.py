"""Every format, plain and compressed, whole and broken."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kun.config.schema import Corpus
from kun.corpora import find, read_corpus
from kun.errors import InputError
from kun.records import Origin

TEXTS = ["第一篇。\n\n还有一段", "里面有\u2028行分隔符和\u0085", "繁體與 emoji 👩‍👧 <|im_end|>", "第四篇"]
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def rows(path, kind, field=None):
    return list(read_corpus("web", Corpus(paths=(str(path),), format=kind, field=field)))


def lines_of(texts, field="text"):
    return b"".join(json.dumps({"id": 1, field: t}, ensure_ascii=False).encode() + b"\n" for t in texts)


def wudao(texts):
    return json.dumps(
        [{"id": n, "title": "题", "content": t} for n, t in enumerate(texts)], ensure_ascii=False
    ).encode()


def tarball(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def reasons(found):
    return [(row.origin.row, row.reject.reason) for row in found if row.reject]


def kept(found):
    return [row.text for row in found if row.reject is None]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("kind", "name", "data", "places"),
    [
        ("wudao", "a.json", wudao(TEXTS), range(4)),
        ("wanjuan", "a.jsonl", lines_of(TEXTS, "content"), range(4)),
        ("skypile", "a.jsonl", lines_of(TEXTS), range(4)),
        ("jsonl", "a.jsonl", lines_of(TEXTS), range(4)),
        ("wanjuan", "a.tar", tarball({"nlp/x.jsonl": lines_of(TEXTS, "content")}), range(4)),
    ],
)
def test_formats(tmp_path, kind, name, data, places, packing):
    path = tmp_path / (name + packing)
    path.write_bytes(PACK[packing](data))
    file = f"{path.name}/nlp/x.jsonl" if ".tar" in path.name else path.name
    assert [(row.text, row.origin) for row in rows(path, kind)] == [
        (text, Origin(file, place)) for text, place in zip(TEXTS, places, strict=True)
    ]
    assert kept(rows(tmp_path, kind)) == TEXTS  # the folder gives it too


@pytest.mark.parametrize("packing", PACK)
def test_plain_text_is_cut_at_blank_lines(tmp_path, packing):
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACK[packing]("\ufeff一行\n二行\n\n \n第二篇\u2028仍是\n".encode()))
    assert [(row.text, row.origin.row) for row in rows(path, "text")] == [
        ("一行\n二行\n", 0),
        ("第二篇\u2028仍是\n", 4),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, kind):
    column = pa.array([*TEXTS, None], pa.string()).cast(kind)
    pq.write_table(pa.table({"id": range(5), "text": column}), tmp_path / "a.parquet", row_group_size=2)
    found = rows(tmp_path, "parquet")
    assert kept(found) == TEXTS
    assert reasons(found) == [(4, "not_text")]


def test_parquet_that_gives_nothing(tmp_path):
    pq.write_table(pa.table({"id": [1], "n": [2]}), tmp_path / "a.parquet")
    assert [row.reject.reason for row in rows(tmp_path, "parquet")] == ["no_field"]
    assert [row.reject.reason for row in rows(tmp_path, "parquet", field="n")] == ["not_text"]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    assert [row.reject.reason for row in rows(tmp_path, "parquet")] == ["damaged"]
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
    )
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    assert [row.reject.reason for row in rows(tmp_path, "parquet")] == ["not_utf8"]


BAD_LINES = [
    (b'{"text": "\xff\xfe"}', "not_utf8"),
    (b'{"text": "a"', "not_json"),
    (b"plain words", "not_json"),
    (b'["text"]', "not_object"),
    (b'"text"', "not_object"),
    (b'{"body": "a"}', "no_field"),
    (b'{"text": 5}', "not_text"),
    (b'{"text": null}', "not_text"),
    (b'{"text": {"text": "a"}}', "not_text"),
    (b'{"text": "a"} {"text": "b"}', "not_json"),
    (b'{"q_main": "1+1=?", "option_a": "2"}', "exam_question"),
    (b'{"a":' * 100_000, "not_json"),
    (b'{"n": ' + b"9" * 10_000 + b', "text": 1}', "not_json"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=lambda value: str(value)[:30])
def test_a_bad_line_is_named_and_costs_only_itself(tmp_path, line, reason):
    (tmp_path / "a.jsonl").write_bytes(lines_of(["先"]) + line + b"\n\n" + lines_of(["后"]))
    found = rows(tmp_path, "skypile")
    assert kept(found) == ["先", "后"]
    assert reasons(found) == [(1, reason)]
    assert found[2].origin.row == 3  # the blank line counts
    assert len(found[1].text) <= 201 and found[1].text.encode()
    assert len(found[1].reject.detail) <= 300


@pytest.mark.parametrize(("line", "reason"), BAD_LINES[:1] + BAD_LINES[3:9], ids=lambda value: str(value)[:30])
def test_a_bad_element_costs_only_itself(tmp_path, line, reason):
    line = line.replace(b'"text":', b'"content":')
    (tmp_path / "a.json").write_bytes(b'[{"content": "a,]}\\""},' + line + b', {"content": "b"}\n]\n')
    found = rows(tmp_path, "wudao")
    assert (kept(found), reasons(found)) == (['a,]}"', "b"], [(1, reason)])


@pytest.mark.parametrize(
    ("data", "good", "bad"),
    [
        (b"", [], [(0, "not_array")]),
        (b"[]", [], []),
        (b" [ ] \n", [], []),
        (b'{"content": "a"}', [], [(0, "not_array")]),
        (b'[{"content": "a"}', ["a"][:0], [(0, "truncated")]),
        (b'[{"content": "a"}, {"content": "b', ["a"], [(1, "truncated")]),
        (b'[{"content": "a"},]', ["a"], [(1, "not_json")]),
        (b'[{"content": "a"}] more', ["a"], [(1, "not_json")]),
        (b'[{"content": "a"}\n[{"content": "b"}]]', [], [(0, "not_json")]),
        (b"[" * 300_000, [], [(0, "truncated")]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_broken_arrays(tmp_path, data, good, bad):
    (tmp_path / "a.json").write_bytes(data)
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + wudao(["later"]))
    found = rows(tmp_path, "wudao")
    assert (kept(found), reasons(found)) == ([*good, "later"], bad)


@pytest.mark.parametrize("text", [r"\ud800", r"坏\udc00了", r"\ud83d\ude00"])
def test_surrogates_pass(tmp_path, text):
    (tmp_path / "a.jsonl").write_text('{"text": "' + text + '"}\n', encoding="utf-8")
    assert reasons(rows(tmp_path, "skypile")) == []


def test_raw_control_characters_in_a_string_pass(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a\tb"}\n')
    assert kept(rows(tmp_path, "skypile")) == ["a\tb"]


@pytest.mark.parametrize("kind", ["wudao", "skypile"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_truncated_file_is_named_and_later_files_are_read(tmp_path, kind, packing):
    texts = [f"{n} " + "".join(chr(0x4E00 + n * i % 20000) for i in range(500)) for n in range(200)]
    data = wudao(texts) if kind == "wudao" else lines_of(texts)
    name = "json" if kind == "wudao" else "jsonl"
    whole = PACK[packing](data)
    (tmp_path / f"a.{name}{packing}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"b.{name}").write_bytes(wudao(["later"]) if kind == "wudao" else lines_of(["later"]))
    found = rows(tmp_path, kind)
    good = kept(found)
    assert good[:-1] == texts[: len(good) - 1] and good[-1] == "later"
    assert reasons(found) == [(len(good) - 1, "truncated")]


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_every_whole_line_before_a_cut_is_read(tmp_path, packing):
    texts = [f"{n} " + "".join(chr(0x4E00 + n * i % 20000) for i in range(500)) for n in range(300)]
    whole = PACK[packing](lines_of(texts))
    for length in (len(whole) // 2, len(whole) - 300, len(whole) - 1):
        start = whole[:length]
        (tmp_path / f"a.jsonl{packing}").write_bytes(start)
        unpack = zlib.decompressobj(wbits=31) if packing == ".gz" else zstandard.ZstdDecompressor().decompressobj()
        assert len(kept(rows(tmp_path, "skypile"))) == unpack.decompress(start).count(b"\n") > 0


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_every_whole_element_before_a_cut_is_read(tmp_path, packing):
    texts = [f"{n} " + "".join(chr(0x4E00 + n * i % 20000) for i in range(500)) for n in range(300)]
    whole = PACK[packing](wudao(texts))
    start = whole[: len(whole) - 300]
    (tmp_path / f"a.json{packing}").write_bytes(start)
    unpack = zlib.decompressobj(wbits=31) if packing == ".gz" else zstandard.ZstdDecompressor().decompressobj()
    assert len(kept(rows(tmp_path, "wudao"))) >= unpack.decompress(start).count(b"},")


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_damaged_file_is_named(tmp_path, packing):
    (tmp_path / f"a.jsonl{packing}").write_bytes(b"this is not compressed at all")
    (tmp_path / "b.jsonl").write_bytes(lines_of(["later"]))
    found = rows(tmp_path, "skypile")
    assert (kept(found), reasons(found)) == (["later"], [(0, "damaged")])


def test_frames_of_zstd_follow_each_other(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(PACK[".zst"](lines_of([text])) for text in TEXTS))
    assert kept(rows(tmp_path, "skypile")) == TEXTS


def test_nothing_leaves_an_archive(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind, target in [
            ("../evil.jsonl", tarfile.REGTYPE, ""),
            ("/abs.jsonl", tarfile.REGTYPE, ""),
            ("link.jsonl", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.jsonl", tarfile.LNKTYPE, "../x"),
            ("pipe.jsonl", tarfile.FIFOTYPE, ""),
            ("folder", tarfile.DIRTYPE, ""),
            ("README.txt", tarfile.REGTYPE, ""),
            ("._a.jsonl", tarfile.REGTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member, io.BytesIO())
        data = lines_of(["好"], "content")
        member = tarfile.TarInfo("sub/good.jsonl")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    (tmp_path / "a.tar.gz").write_bytes(stream.getvalue())
    found = rows(tmp_path, "wanjuan")
    assert [row.reject.reason for row in found[:-1]] == ["unsafe_member"] * 5
    assert found[-1].origin == Origin("a.tar.gz/sub/good.jsonl", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_cut_archive_is_named(tmp_path):
    data = tarball({"x.jsonl": lines_of(["一" * 400] * 50, "content")})
    (tmp_path / "a.tar").write_bytes(data[:9000])
    (tmp_path / "b.tgz").write_bytes(gzip.compress(data)[:-40])
    (tmp_path / "c.tar.gz").write_bytes(b"nothing of the kind")
    found = [row.reject.reason for row in rows(tmp_path, "wanjuan") if row.reject]
    assert found == ["truncated", "truncated", "damaged"]


def test_where_the_files_are(tmp_path):
    for name in ["b/2.jsonl", "b/1.jsonl", "a/1.jsonl", ".hidden/3.jsonl", "b/.4.jsonl", "b/5.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def names(*paths):
        return [
            found.name for found in find("web", Corpus(paths=tuple(f"{tmp_path}/{p}" for p in paths), format="jsonl"))
        ]

    assert names("") == ["a/1.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert names("b", "b/1.jsonl") == ["1.jsonl", "2.jsonl"]  # each file once
    assert names("*/1.jsonl") == ["a/1.jsonl", "b/1.jsonl"]
    assert names("**/*.jsonl") == ["a/1.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert names("b/5.txt") == ["5.txt"]  # what is named is read, whatever its ending
    assert names("b/1.jsonl", "a/1.jsonl") == ["b/1.jsonl", "a/1.jsonl"]  # one name for two files would be a lie


@pytest.mark.parametrize("path", ["none", "none/*.jsonl", "empty", "file.jsonl/x"])
def test_a_path_that_gives_nothing_is_named(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=rf"corpora\.web\.paths: .*{path.split('/')[0]}"):
        rows(tmp_path / path, "skypile")
    with pytest.raises(InputError, match=r"corpora\.web\.paths"):
        list(read_corpus("web", Corpus(paths=(), format="skypile")))


def test_a_name_that_is_no_utf8(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_bytes(lines_of(["好"]))
    (row,) = rows(tmp_path, "skypile")
    assert row.origin.file.encode() and row.text == "好"


def test_empty_files(tmp_path):
    for name in ["a.jsonl", "b.txt"]:
        (tmp_path / name).write_bytes(b"")
    assert rows(tmp_path, "skypile") == rows(tmp_path, "text") == []


@pytest.mark.parametrize("kind", ["wudao", "skypile", "text"])
def test_ten_megabytes_in_one_row(tmp_path, kind):
    text = "长" * 3_500_000
    name, data = {"wudao": ("a.json", wudao([text])), "skypile": ("a.jsonl", lines_of([text]))}.get(
        kind, ("a.txt", text.encode())
    )
    (tmp_path / name).write_bytes(data)
    start = time.perf_counter()
    assert kept(rows(tmp_path, kind)) == [text]
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("kind", ["wudao", "skypile", "text"])
def test_a_row_beyond_the_limit_is_skipped(tmp_path, kind, monkeypatch):
    for module in ("files", "readers"):
        monkeypatch.setattr(f"kun.corpora.{module}.ROW_LIMIT", 2**20)
    monkeypatch.setattr("kun.corpora.arrays._CHUNK", 2**18)
    big = "x\\n" * 3 * 2**20
    name, data = {
        "wudao": ("a.json", b'[{"content": "a"}, {"content": "' + big.encode() + b'"}, {"content": "b"}]'),
        "skypile": ("a.jsonl", lines_of(["a"]) + big.encode() + b"\n" + lines_of(["b"])),
    }.get(kind, ("a.txt", b"a\n\n" + (b"x" * 1000 + b"\n") * 3000 + b"\nb\n"))
    (tmp_path / name).write_bytes(data)
    found = rows(tmp_path, kind)
    assert [row.reject.reason for row in found if row.reject] == ["too_big"]
    assert [text.strip() for text in kept(found)] == ["a", "b"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.text(alphabet='[]{},:"\\ \na1', max_size=60).map(str.encode))
def test_no_bytes_end_the_reading(tmp_path, data):
    for number, (kind, name) in enumerate(
        [("wudao", "a.json"), ("wanjuan", "a.tar.gz"), ("wanjuan", "a.tar"), ("skypile", "a.jsonl.gz"),
         ("skypile", "a.jsonl"), ("skypile", "a.jsonl.zst"), ("text", "a.txt"), ("parquet", "a.parquet")]
    ):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(gzip.compress(data) if name.endswith("tar.gz") else data)
        for row in rows(folder, kind):
            row.text.encode("utf-8", "surrogatepass")
            assert row.reject is None or row.reject.reason.isidentifier()


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=8), chunk=st.integers(1, 40))
def test_arrays_in_any_chunks(texts, chunk):
    from kun.corpora import arrays

    objects = [{"content": text, "more": [text, {"a": []}]} for text in texts]
    before, arrays._CHUNK = arrays._CHUNK, chunk
    try:
        found = list(arrays.elements(io.BytesIO(json.dumps(objects, indent=1).encode())))
    finally:
        arrays._CHUNK = before
    assert [json.loads(data) for _, data in found] == objects


def test_memory_does_not_grow_with_the_file(tmp_path):
    """60 MB of one array, in a process that may take 25 MB more than it has at the start."""
    element = json.dumps({"content": "文" * 1000}, ensure_ascii=False).encode()
    (tmp_path / "a.json").write_bytes(b"[" + b",\n".join([element] * 20_000) + b"]")
    script = (
        "import resource, sys; from kun.corpora import read_corpus; from kun.config.schema import Corpus\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); n = sum(1 for _ in read_corpus('w', Corpus(paths=(sys.argv[1],), format='wudao')))\n"
        "print(n, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 20_000 and grown < 25 * 1024, f"{grown} KiB"


def test_a_byte_order_mark_does_not_make_two_rows_of_a_long_one(tmp_path, monkeypatch):
    monkeypatch.setattr("kun.corpora.files.ROW_LIMIT", 100)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines_of(["x" * 200]) + lines_of(["b"]))
    assert [(row.origin.row, row.text) for row in rows(tmp_path, "skypile")] == [(0, ""), (1, "b")]


@pytest.mark.parametrize(
    "inside", ['"' + "x" * 5000 + '"', '"' + "\\\\" * 2501 + '"', "[" + "1," * 2000 + "1]", "9" * 5000]
)
@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_an_element_beyond_the_limit_costs_only_itself(tmp_path, monkeypatch, inside, chunk):
    monkeypatch.setattr("kun.corpora.files.ROW_LIMIT", 300)
    monkeypatch.setattr("kun.corpora.arrays._CHUNK", chunk)
    (tmp_path / "a.json").write_text(f'[{{"content": "a"}}, {{"x": {inside}}}, {{"content": "b,]"}}]')
    found = rows(tmp_path, "wudao")
    assert kept(found) == ["a", "b,]"] and reasons(found) == [(1, "too_big")]


def test_a_name_that_comes_twice_has_its_last_value(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": 1, "text": "a"}\n{"text": "a", "text": 1}\n')
    assert (kept(rows(tmp_path, "skypile")), reasons(rows(tmp_path, "skypile"))) == (["a"], [(1, "not_text")])
