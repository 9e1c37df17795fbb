"""Ways in which a base without a chat template can write turns: `for name, template, tokens in ways(files): ...`

A reply ends in the base's own EOS, which it knows from the end of every document: a new token would have to be learned
from a few seeds. Turns begin with markers that the vocabulary has already, or with nothing but the role's name: then
EOS stands between them, which no text can write. Only a base without an EOS gets new tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kun.models.tokenizer import TokenizerFiles

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
MARKERS = (("<start_of_turn>", "<end_of_turn>"), CHATML_TOKENS)
SPARE = re.compile(r"reserved|unused|extra_")  # tokens that a vocabulary keeps for uses to come

Way = tuple[str, str, tuple[str, ...]]  # its name, its template, the control tokens that it writes


def ways(files: TokenizerFiles) -> Iterator[Way]:
    """The ways that this vocabulary allows, the first of which is taken where nothing is measured."""
    eos = files.special("eos_token")
    if eos is None:
        yield "new tokens", CHATML, CHATML_TOKENS
        return
    yield "EOS between turns", _template("", ""), (eos,)
    spare = [token.content for _, token in sorted(files.added().items()) if SPARE.search(token.content)]
    pairs = [*MARKERS, *zip(spare[-2:-1], spare[-1:], strict=False)]
    pair = next((pair for pair in pairs if all(files.raw.token_to_id(token) is not None for token in pair)), None)
    if pair is not None and pair[0] != eos:
        yield f"{pair[0]} and {pair[1]}", _template(*pair), (*pair, eos)


def _template(start: str, end: str) -> str:
    """`start`, role, content, and then EOS, or, after all turns but replies, `end`."""
    closed = f"{{{{ eos_token if message['role'] == 'assistant' else '{end}' }}}}" if end else "{{ eos_token }}"
    turn = f"{start}{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}{closed}\n"
    opening = f"{{% if add_generation_prompt %}}{start}assistant\n{{% endif %}}"
    return f"{{% for message in messages %}}{turn}{{% endfor %}}{opening}"
