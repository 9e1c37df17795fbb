"""Hostile inputs from a seed: valid files of every format, then broken: `corpus_file(rng, "wanjuan")`, `text(rng)`.

An input is bytes. Of a file the first byte says which of its format's names it has (`NAMES`): any bytes are one.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

PACKINGS = ("", ".gz", ".zst")
NAMES = {
    "wudao": [f"a.json{packing}" for packing in PACKINGS],
    "wanjuan": [*(f"a.jsonl{packing}" for packing in PACKINGS), "a.tar", "a.tar.gz", "a.tgz", "a.tar.zst"],
    "skypile": [f"a.jsonl{packing}" for packing in PACKINGS],
    "jsonl": [f"a.ndjson{packing}" for packing in PACKINGS],
    "text": [f"a.txt{packing}" for packing in PACKINGS],
    "parquet": ["a.parquet"],
}
NAMES["seeds"] = [
    *(f"a.{ending}{packing}" for ending in ("jsonl", "json", "csv", "tsv") for packing in PACKINGS),
    "a.parquet",
]
NAMES["evaluation"] = [
    *(f"a.{ending}{packing}" for ending in ("jsonl", "json", "csv", "tsv", "txt") for packing in PACKINGS),
    "a.parquet",
]
WORDS = """
潮汐是海水在月球和太阳的引力作用下产生的周期性涨落。 请介绍杭州的西湖，并说明它为什么有名。 繁體與簡體，龍龜麗。
指令： 答： 【问题】 **Instruction:** Q1: 优 差 不优 并非优 not good 合格 不合格 --- %s {text} {instruction}
张晓梅老师在清溪县人民医院 记者李强 《红楼梦》 “春眠不觉晓，处处闻啼鸟” 2.5万 百分之五十 一千二百 1,200.50% 三成 第12步
来源：都市快报 编辑：张三 李四 首页 | 登录 | 注册 上一篇：无 阅读：123次 版权声明：本文转载自网络 ICP备12345号
<|im_end|> <|im_start|>user </s> <s> [INST] <<SYS>> <start_of_turn> <|endoftext|> <pad> <unk> <0x0A>
<script>alert(1)</script> &amp; | ` ``` $x^2$ / ../ NaN Infinity -0 1e999 null true 0x10 1_000
👩‍👧 😀 é ﷺ ㎏ ① ＡＢＣ １２３ 한국어 ひらがな ไทย العربية 锟斤拷 烫烫烫
""".split()  # noqa: SIM905
FRAGMENTS = [
    *WORDS,
    *("\x1b]0;title\x07", "\x1b[2J", "\\", "e\u0301", "\uff8a\uff9e", "\u2028", "\u2029", "\x85", "\ufeff", "\u200b"),
    *(
        "\u202e",
        "\x00",
        "\ufffd",
        "\ufffe",
        "\x0b\x0c",
        "\u3000",
        "\xa0",
        "\t",
        " ",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "第1条\u3000",
    ),
    *(
        "\ud800",
        "\udc00",
        "\ud83d\ude00",
        "潮汐".encode().decode("latin-1"),
        "“引力”".encode().decode("cp1252", "ignore"),
    ),
]
OPERATORS = [*"[]{},:\"'\\#&*!|>-?%@`\n \t", "<<"]


def rng_of(seed: int, target: str, number: int) -> random.Random:
    """The generator of one input, whatever came before it."""
    return random.Random(f"kun fuzz {seed} {target} {number}")


def text(rng: random.Random) -> str:
    """Fragments, stretches that repeat, and single characters of any plane; sometimes long."""
    parts = []
    for _ in range(rng.choice((0, 1, 1, 3, 8, 30))):
        part = rng.choice(FRAGMENTS)
        if rng.random() < 0.2:
            part = chr(rng.choice((rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000))))
        parts.append(part * rng.choice((1, 1, 1, 1, 2, 7, 20, 300 if rng.random() < 0.02 else 3)))
    return rng.choice(("", "", " ", "\n", "。")).join(parts)


def text_bytes(rng: random.Random) -> bytes:
    return broken(rng, text(rng).encode("utf-8", "surrogatepass"), 0.2)


def as_text(data: bytes) -> str:
    """What a fuzzed text is: surrogates are left in it, and what is no UTF-8 is Latin-1."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 3:
        return text(rng)
    if kind < 6:
        return rng.choice((None, True, 0, -1, 1.5, float("nan"), 10**25, 2**63, "123", ""))
    if kind < 8:
        return {rng.choice(FRAGMENTS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]


def row(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    """A JSON object with these fields, mostly of texts; sometimes another value, or no JSON."""
    pairs = [
        (name, rng.choice(("good", "bad")) if name == "verdict" else text(rng) if rng.random() < 0.9 else value(rng))
        for name in fields
        if rng.random() < 0.95
    ]
    pairs += [(rng.choice((*fields, "id", "q_main", "标题")), value(rng)) for _ in range(rng.choice((0, 0, 1, 2)))]
    rng.shuffle(pairs)
    if rng.random() < 0.03:
        return json.dumps(value(rng)).encode()
    if rng.random() < 0.01:
        return rng.choice((b"[", b'{"a":')) * rng.choice((50, 1100, 20_000))
    ascii_only = rng.random() < 0.3
    inner = (f"{json.dumps(name)}: {json.dumps(item, ensure_ascii=ascii_only)}" for name, item in pairs)  # names twice
    return ("{" + ", ".join(inner) + "}").encode("utf-8", "surrogatepass")


def rows(rng: random.Random, fields: tuple[str, ...]) -> list[bytes]:
    return [broken(rng, row(rng, fields), 0.1) for _ in range(rng.choice((0, 1, 2, 3, 3, 10)))]


def json_lines(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    end = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b" \n"))
    return rng.choice((b"", b"", b"", b"\xef\xbb\xbf")) + end.join(rows(rng, fields)) + rng.choice((end, b""))


def json_array(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    return rng.choice((b"", b" ", b"\xef\xbb\xbf")) + b"[" + b",\n".join(rows(rng, fields)) + rng.choice((b"]", b"]\n"))


def plain(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    joined = rng.choice(("\n\n", "\n \n", "\r\n\r\n", "\n")).join(text(rng) for _ in range(rng.randrange(5)))
    return joined.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig")), "surrogatepass")


def table(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    import csv

    written = io.StringIO()
    writer = csv.writer(written, delimiter=rng.choice(",,\t"))
    writer.writerow(rng.choice((fields, (*fields, fields[0]), ("", *fields))))
    for _ in range(rng.randrange(4)):
        writer.writerow([text(rng).replace("\0", "") for _ in range(rng.choice((1, 2, 3)))])
    return written.getvalue().encode("utf-8", "surrogatepass")


def archive(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    written = io.BytesIO()
    form = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=written, mode="w", format=form) as tar:
        for number in range(rng.choice((0, 1, 1, 2, 5))):
            path = rng.choice(
                ("x.jsonl", "部分/二.jsonl", "README.txt", "../up.jsonl", "/abs.jsonl", "n\nl.jsonl", "d" * 90)
            )
            member = tarfile.TarInfo(f"{number}{path}" if path[0] not in "./" else path)
            data = json_lines(rng, fields)
            member.size = len(data)
            if rng.random() < 0.15:
                member.type = rng.choice(
                    (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"Z")
                )
                member.linkname = rng.choice(("/etc/passwd", "..", "x.jsonl"))
            if form == tarfile.PAX_FORMAT and rng.random() < 0.4:
                keys = ("size", "GNU.sparse.major", "GNU.sparse.size", "hdrcharset", "path", "mtime", "comment")
                member.pax_headers = {rng.choice(keys): rng.choice(("1", "-1", "x", "9" * 30, "BINARY", "注"))}
            tar.addfile(member, io.BytesIO(data))
    return _headers_broken(rng, written.getvalue())


def _headers_broken(rng: random.Random, data: bytes) -> bytes:
    """Fields of a header that mean other things, under a sum that is right: random bytes would never get past it."""
    if rng.random() > 0.4 or len(data) < 1024:
        return data
    block = 512 * rng.randrange(len(data) // 512)
    head = bytearray(data[block : block + 512])
    start, size = rng.choice(((124, 12), (156, 1), (0, 100), (345, 155), (257, 8), (386, 96), (482, 1), (483, 12)))
    choices = (
        b"77777777777\0",
        b"\x80" + b"\xff" * 11,
        b"\x80" + b"\0" * 7 + b"\x7f\xff\xff\xff",
        b"x",
        b"S",
        b"g",
        b"\0",
    )
    head[start : start + size] = rng.choice(choices)[:size].ljust(size, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:block] + bytes(head) + data[block + 512 :]


def parquet(rng: random.Random, fields: tuple[str, ...]) -> bytes:
    count = rng.choice((0, 1, 5, 40))
    texts = [None if rng.random() < 0.05 else text(rng).encode("utf-8", "replace") for _ in range(count)]
    if rng.random() < 0.1 and count:
        texts[0] = b"\xff\xfe"
    column = pa.array(texts, pa.binary())
    kind = rng.choice((pa.string(), pa.string(), pa.large_string(), pa.string_view(), pa.binary(), None))
    if kind is None:
        column = column.dictionary_encode()
    elif kind != pa.binary():
        column = (
            column.cast(pa.large_string() if kind == pa.large_string() else pa.string(), safe=False)
            if all(item is None or _is_utf8(item) for item in texts)
            else column
        )
    name = fields[0] if rng.random() < 0.9 else rng.choice(FRAGMENTS).encode("utf-8", "replace").decode()
    nested = pa.array([{"a": [n]} for n in range(count)], pa.struct([("a", pa.list_(pa.int64()))]))
    written = io.BytesIO()
    pq.write_table(
        pa.table([column, nested], [name, "more"]),
        written,
        row_group_size=rng.choice((1, 3, 1000)),
        compression=rng.choice(("none", "snappy", "gzip", "zstd", "lz4")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        write_page_checksum=rng.random() < 0.2,
    )
    return written.getvalue()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def settings(rng: random.Random) -> bytes:
    """A YAML file of settings: lines of the reference, values that are others, and what YAML can do besides."""
    chosen = rng.sample(_SETTINGS, rng.randrange(len(_SETTINGS)))
    lines = []
    for key, values in chosen:
        at = rng.random()
        lines.append(f"{key}: {values[0] if at < 0.7 else rng.choice(values) if at < 0.85 else rng.choice(_ODD)}")
    lines += [rng.choice(_ODD_LINES) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    rng.shuffle(lines)
    data = broken(rng, "\n".join(lines).encode("utf-8", "surrogatepass"), 0.3)
    return (
        data
        if rng.random() < 0.97
        else data.decode("latin-1").encode(rng.choice(("utf-16", "utf-8-sig", "gb18030")), "ignore")
    )


_CORPUS = "{paths: [%s], format: %s}"
_SETTINGS = [
    ("seed", ["1", "-1", "1.5", '"1"', "99999999999999999999"]),
    ("run", ["runs/x", '"a b"', "null", "[x]"]),
    ("workers", ["2", "-2", "two"]),
    ("base_model", ["models/base", "null", "{a: 1}"]),
    ("seeds", ["{pairs: seeds.jsonl}", "{pairs: null, held_out: 0.1}", "{held_out: .nan}", "[]", "{pears: x}"]),
    ("train", ["{max_length: 64, sft: {save_steps: 3}}", "{lora: {r: .inf}}", "{save: both}"]),
    (
        "corpora",
        [f"{{web: {_CORPUS % ('a.jsonl', 'jsonl')}}}", "{web: null}", "{1: {}}", "{../x: {paths: [], format: text}}"],
    ),
    ("filter", ["{ppl_max: p95, ppl_min: 3}", "{ppl_max: p101}", "{languages: [zh, xx]}", "{quality: {digits: 2}}"]),
    ("score", ["{threshold: 0.7, select: threshold}", "{select: best_f1}", "{top_share: 2}"]),
    ("polish", ["{min_faithfulness: 0.8}", "{banned_words: [材料, 1]}", "{banned_words: 材料}"]),
    ("prompts", ["zh", "none/such", "5"]),
    (
        "extends",
        ["base.yaml", "self.yaml", "loop.yaml", "none.yaml", "[]", '"a\\0b"', "/dev/null", "..", "'" + "x" * 300 + "'"],
    ),
]
_ODD = [
    *(
        "&a [*a]",
        "&a {b: *a}",
        "*none",
        "!!python/object:os.system x",
        "!!binary x",
        "!!int ''",
        "!!float x",
        "!!str 1",
    ),
    *(
        "!!timestamp 2024-13-45",
        "2024-13-45",
        "2001-02-30T99:99:99Z",
        "1:99:99",
        "!<tag:yaml.org,2002:null> x",
        "!!merge x",
    ),
    *(
        "!!set {a, b}",
        "!!omap [a: 1]",
        "{? [a]: b}",
        "{? {a: b}: c}",
        "{<<: {a: 1}}",
        "{<<: 3}",
        "[" * 2000,
        "{a: " * 400,
    ),
    *(".nan", "-.inf", "1e400", "9" * 5000, "0o9", "0x", "~", "''", '"\\ud800"', '"\\x00"', "|\n  x\n y", "'\x1b[2J'"),
]
_LAUGHS = "\n".join([f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10) if n else 1}]" for n in range(10)])
_ODD_LINES = [
    "%YAML 1.1\n---",
    "...",
    "---",
    "\ttab: 1",
    "seed: 1",
    _LAUGHS,
    f"{_LAUGHS}\nworkers: *l9",
    "? a",
    "- a",
    "<<: *x",
    "#",
]


_FORMS = {"wudao": json_array, "skypile": json_lines, "jsonl": json_lines, "text": plain, "parquet": parquet}
_BY_ENDING = {"jsonl": json_lines, "json": json_array, "csv": table, "tsv": table, "txt": plain, "parquet": parquet}


def corpus_file(rng: random.Random, kind: str) -> bytes:
    """A file of a corpus, or of the evaluations, behind the byte that names it."""
    names = NAMES[kind]
    number = rng.randrange(len(names))
    name = names[number]
    fields = ("content",) if kind in ("wudao", "wanjuan") else ("text",)
    if kind == "evaluation":
        make = _BY_ENDING[name.split(".")[1]]
        fields = ("question", "answer")
    elif kind == "wanjuan":
        make = archive if ".t" in name else json_lines
    else:
        make = _FORMS[kind]
    if name == "a.json" and rng.random() < 0.1:
        make = json_lines
    data = broken(rng, make(rng, fields), 0.3)
    return bytes([number]) + broken(rng, packed(rng, name, data), 0.3 if "z" in name else 0.0)


def packed(rng: random.Random, name: str, data: bytes) -> bytes:
    if name.endswith((".gz", ".tgz")):
        cut = rng.randrange(len(data) + 1)
        return b"".join(
            gzip.compress(part, 1) for part in ((data,) if rng.random() < 0.8 else (data[:cut], data[cut:]))
        )
    if name.endswith(".zst"):
        make = zstandard.ZstdCompressor(write_checksum=rng.random() < 0.5, write_content_size=rng.random() < 0.5)
        return make.compress(data) * rng.choice((1, 1, 1, 2))
    return data


def broken(rng: random.Random, data: bytes, chance: float) -> bytes:
    """With this chance, a few changes: bytes and bits, stretches left out, copied or put in, or an early end."""
    if rng.random() >= chance:
        return data
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, other = rng.randrange(len(made) + 1), rng.randrange(len(made) + 1)
        match rng.randrange(7):
            case 0 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(made):
                made[at] = rng.choice((0, 0xFF, 0x7F, 0x80, 0xED, rng.randrange(256)))
            case 2:
                del made[at : at + rng.choice((1, 4, 64))]
            case 3:
                made[at:at] = made[other : other + rng.choice((1, 16, 512))] * rng.choice((1, 1, 9))
            case 4:
                made[at:at] = rng.choice(FRAGMENTS).encode("utf-8", "surrogatepass")
            case 5:
                made[at:at] = rng.choice(OPERATORS).encode() * rng.choice((1, 2, 30))
            case 6 if rng.random() < 0.2:
                del made[at:]
    return bytes(made)


def line_file(rng: random.Random, kinds: tuple[tuple[str, ...], ...]) -> bytes:
    return broken(rng, json_lines(rng, rng.choice(kinds)), 0.3)


def seed_file(rng: random.Random) -> bytes:
    """A file of seeds in one of the usual forms, behind the byte that names it."""
    number = rng.randrange(len(NAMES["seeds"]))
    name = NAMES["seeds"][number]
    fields = rng.choice(SEED_FIELDS)
    if rng.random() < 0.4 and ".json" in name:
        some = [broken(rng, json.dumps(seed_row(rng)).encode(), 0.05) for _ in range(rng.randrange(4))]
        data = b"[" + b",".join(some) + b"]" if rng.random() < 0.5 else b"\n".join(some)
    else:
        make = _BY_ENDING[name.split(".")[1]] if rng.random() < 0.9 else json_lines
        data = make(rng, fields)
    if rng.random() < 0.1:
        data = data.decode("utf-8", "ignore").encode(rng.choice(("gb18030", "big5", "utf-16", "latin-1")), "ignore")
    return bytes([number]) + broken(rng, packed(rng, name, broken(rng, data, 0.2)), 0.3 if "z" in name else 0.0)


def seed_row(rng: random.Random) -> Any:
    """A conversation, a row with a history, or one of a list of rows."""
    names = rng.choice((("role", "content"), ("from", "value"), ("human", "assistant"), ("speaker", "text")))
    speakers = rng.choice((("user", "assistant"), ("human", "gpt"), ("system", "user"), ("tool", "律师")))
    turns: list[Any] = [
        {
            names[0]: speakers[turn % 2],
            names[1]: rng.choice((text(rng), [{"type": "text", "text": text(rng)}], value(rng))),
        }
        for turn in range(rng.randrange(6))
    ]
    if rng.random() < 0.1:
        turns.append(value(rng))
    plain = {"instruction": text(rng), "output": text(rng), rng.choice(("input", "system", "history")): value(rng)}
    marked = f"<s>Human: {text(rng)}\n</s><s>Assistant: {text(rng)}\n</s>"
    return rng.choice(
        (
            {rng.choice(("messages", "conversations", "conversation")): turns},
            turns,
            [plain, plain],
            plain | {"history": [[text(rng), text(rng)]]},
            {"instruction": text(rng), "instances": [plain, value(rng)]},
            {"text": rng.choice((marked, f"[INST] {marked} [/INST] x", text(rng)))},
            {"prompt": text(rng), "chosen": rng.choice((text(rng), turns)), "rejected": text(rng)},
            value(rng),
        )
    )


SEED_FIELDS = (
    ("instruction", "output"),
    ("instruction", "input", "output"),
    ("instruction", "verdict"),
    ("instruction", "text", "output"),
    ("question", "answer"),
)
CALIBRATION = partial(line_file, kinds=(("instruction", "verdict"),))
