"""SentencePiece tokens for language models: `train(texts, 65536, path)`, then `load(path)(text)`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kun.errors import InputError
from kun.store import atomic
from kun.text.normal import split_sentences

SAMPLE = 500_000  # sentences that the pieces are learned from
LONGEST = 1000  # characters per sentence; SentencePiece skips those of more than 4192 bytes


def load(path: Path) -> Callable[[str], str]:
    """A function from a text to the line of its pieces. InputError where the file is not a SentencePiece model."""
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise InputError(f"filter.lm.sentencepiece: {path} is not a SentencePiece model: {error}") from None
    # Pieces contain no blanks: SentencePiece writes them as U+2581.
    return lambda text: " ".join(processor.EncodeAsPieces(text))


def train(texts: Iterable[str], normalise: Callable[[str], str], vocab_size: int, path: Path) -> None:
    """Learn a unigram model from a sample of the sentences and write it to `path`; equal texts give equal files.

    It has fewer than `vocab_size` pieces if the text yields no more, and covers 99.95 % of its characters, as in
    cc_net. InputError where that takes more than `vocab_size` pieces.
    """
    import sentencepiece

    sentencepiece.set_random_generator_seed(0)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, normalise),
            model_writer=written,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=0.9995,
            normalization_rule_name="identity",  # the text is already normalised, and its blanks matter
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            input_sentence_size=SAMPLE,
            shuffle_input_sentence=True,
            num_threads=4,  # fixed for all machines: it affects the order of sums
            minloglevel=2,
        )
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise InputError(f"filter.lm.vocab_size: {vocab_size} pieces cannot be learned from this text: {why}") from None
    atomic.write(path, written.getvalue())


def _sentences(texts: Iterable[str], normalise: Callable[[str], str]) -> Iterator[str]:
    for text in texts:
        for sentence in split_sentences(text):
            line = normalise(sentence)
            yield from (line[start : start + LONGEST] for start in range(0, len(line), LONGEST))
