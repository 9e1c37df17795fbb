"""A language model small enough to check by hand, and whether lmplz is here to make others."""

from pathlib import Path

import pytest

from kun.filters.perplexity.lmplz import find_program

needs_lmplz = pytest.mark.skipif(find_program("lmplz") is None, reason="lmplz is not here: make setup builds it")

# log10 of the probability of one character each; </s> 0.1, 好 0.5, everything unknown 0.001.
ARPA = """\\data\\
ngram 1=5
ngram 2=1

\\1-grams:
-3\t<unk>\t0
0\t<s>\t0
-1\t</s>\t0
-0.30103\t好\t0
-0.60206\t的\t0

\\2-grams:
-0.1\t好 的

\\end\\
"""


def write_arpa(folder: Path) -> Path:
    path = folder / "tiny.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return path
