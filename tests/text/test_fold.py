import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kun.text.fold import as_text, fold


def folded(*texts):
    found = fold(texts)
    return [as_text(found.codes[start:end]) for start, end in zip(found.borders, found.borders[1:], strict=False)]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ｋun １２ 号，ＯＫ。", "kun12号ok"),
        ("臺灣的頭髮與發展", "台湾的头发与发展"),
        ("㎏ ① ½ ﬁ Straße", "kg112fistrasse"),
        ("cafe\u0301 が か\u3099", "caféがが"),
        ("각", "각"),
        ("一\u2028二\u0085三\n四", "一二三四"),
        ("坏\ud800字😀❤\ufe0f", "坏字"),
        ("神", "神"),  # a compatibility ideograph
        ("", ""),
    ],
)
def test_folding(text, same):
    assert folded(text) == [same]


def test_texts_and_lines_keep_their_borders():
    found = fold(["第一行\n\n第二行", "", "㎏\n三"])
    assert found.borders.tolist() == [0, 6, 6, 9]
    assert found.lines.tolist() == [0, 3, 3, 6, 6, 8, 9]
    assert fold([]).borders.tolist() == [0]


@example(["\u1100!\u1161"])
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("㎏é\u0301が\u3099한ﾞ\n，"))), max_size=4))
def test_the_table_folds_as_unicode_says(texts):
    """Every character of the whole normalisation, but for the simplified forms."""
    expected = ["".join(filter(str.isalnum, unicodedata.normalize("NFKC", t).casefold())) for t in texts]
    # Without what stood between them, two of them may join: they would be folded as another text.
    assume(all(unicodedata.normalize("NFKC", text) == text for text in expected))
    assert folded(*texts) == folded(*expected)
    assert [len(text) for text in folded(*texts)] == [len(text) for text in expected]
