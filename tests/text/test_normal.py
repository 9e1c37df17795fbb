import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kun.text.normal import MISREAD, normalise, preview, printable, split_paragraphs, split_sentences

C1 = "".join(map(chr, range(0x7F, 0xA0)))
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates as well
AWKWARD = st.text(
    st.sampled_from('a好。！？…；.!"”」） \u3000\t\n\r\u2028\u2029\x85\x0b\0\x1f\ufeff\ud800\udc00e\u0301\u200b')
)


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("\ufeff标题\r\n正文\r完", "标题\n正文\n完"),
        ("一\u2028二\u2029三\x85四\x0b五", "一\n二\n\n三\n四\n五"),
        ("有\0控\x1b制\x7f符\x9f", "有控制符"),
        ("行尾 \u3000\n\t下行\t \n", "行尾\n\t下行"),
        ("全角，。！？：（）１２ＡＢ「」", "全角，。！？：（）１２ＡＢ「」"),
        ("cafe\u0301", "café"),
        ("繁體中文，保留原樣", "繁體中文，保留原樣"),
        ("一家👨‍👩‍👧和🇨🇳", "一家👨‍👩‍👧和🇨🇳"),
        ("坏\ud800了", "坏了"),
        ("笑\ud83d\ude00脸", "笑😀脸"),
        ("字里有<|im_end|>和</s>", "字里有<|im_end|>和</s>"),
        (" \n\u3000 ", ""),
    ],
)
def test_what_is_kept(raw, kept):
    assert normalise(raw) == kept


@given(ANY_TEXT | AWKWARD)
def test_normalised_text_is_clean_and_stays_as_it_is(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    once.encode()
    stays = "\t\n" + (C1 if MISREAD.search(once) else "")  # bytes of characters, for the filter to repair
    assert not any(unicodedata.category(c) == "Cc" and c not in stays for c in once)
    assert once == once.strip()


@given(ANY_TEXT | AWKWARD)
def test_pieces_joined_are_the_text(text):
    assert "".join(split_paragraphs(text)) == text
    assert "".join(split_sentences(text)) == text


def test_sentences():
    text = "他说：“走吧！”我们就走了……真的？！版本3.5很好；见 www.gov.cn 。English ends. Here too\n新的一行（完）"
    assert split_sentences(text) == [
        "他说：“走吧！”",
        "我们就走了……",
        "真的？！",
        "版本3.5很好；",
        "见 www.gov.cn 。",
        "English ends. ",
        "Here too\n",
        "新的一行（完）",
    ]


def test_paragraphs():
    assert split_paragraphs("一\n二\n\n三") == ["一\n", "二\n\n", "三"]


@pytest.mark.parametrize("unit", [" ", "。", "字", ".", "\n", "”", "a\u0301", "\ud800", " \n", ". "])
def test_a_million_of_anything_takes_no_time(unit):
    text = unit * 1_000_000
    start = time.perf_counter()
    normalise(text), split_sentences(text), split_paragraphs(text)
    assert time.perf_counter() - start < 10


def test_preview_is_short_and_encodable():
    assert preview("好" * 300) == "好" * 200 + "…"
    assert preview("短\ud800") == "短"


def test_what_a_terminal_would_obey_is_shown_as_its_code():
    assert printable("\x1b]0;题\x07\x9b2J\r好\n\t\u202e\ud800") == r"\x1b]0;题\x07\x9b2J\r好" + "\n\t" + r"\u202e\ud800"
    assert printable("繁體🙂 ok\u3000") == "繁體🙂 ok\u3000"
