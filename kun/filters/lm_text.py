"""How text is normalised for a language model: `NORMALISATIONS["kun"](text)`.

A perplexity means something only under the normalisation that the model was estimated with; its name is stored with
the model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from kun.text import normalise


def kun(text: str) -> str:
    """NFKC, lower case, no white space: for models of characters.

    Digits stay what they are: as zeros they make strings of random codes likelier than prose (docs/measurements.md).
    """
    return "".join(unicodedata.normalize("NFKC", normalise(text)).lower().split())


def cc_net(text: str) -> str:
    """The normalisation of cc_net, exactly, so that its models and thresholds mean what they say.

    Source of the steps and of the table: facebookresearch/cc_net, cc_net/text_normalizer.py, `normalize`. Lower case,
    accents (Mn of NFD) stripped, digits to 0, punctuation to ASCII, control characters removed, newline included.
    """
    text = text.strip().lower()
    if not text.isascii():
        decomposed = unicodedata.normalize("NFD", text)
        text = "".join([c for c in decomposed if unicodedata.category(c) != "Mn"])
    return _CONTROL.sub("", _DIGIT.sub("0", text).translate(_PUNCTUATION))


_DIGIT = re.compile(r"\d")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")
_PUNCTUATION = str.maketrans(
    {
        **dict(zip("，。、∶：？！（）；–～’´━〈〉【】％►", ",.,::?!();-~''-<>[]%-", strict=True)),
        **dict.fromkeys("„”“«»「」《》", '"'),
        # A slip of the original, which never shows: digits are zeros by then.
        "１": '"',
        "—": " - ",
        "．": ". ",
        "…": "...",
    }
)

NORMALISATIONS: dict[str, Callable[[str], str]] = {"kun": kun, "cc_net": cc_net}
