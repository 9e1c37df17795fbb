"""Raw corpora, row by row: `for row in read_corpus("wudao", corpus): row.text, row.reject`.

wudao: one JSON array of objects per `.json` file (`content`; the title is left out). wanjuan: JSON lines (`content`),
also inside tar archives. skypile and jsonl: JSON lines, or an array (`text`, or the setting `field`; `data.text` is
nested). text: documents separated by blank lines. csv (also `.tsv`) and parquet: a column. All but parquet may be
compressed (`.gz`, `.zst`).

Nothing in a file stops the reading: an unusable row has a `reject` with one of these reasons.

    not_utf8, not_json, not_object, not_csv   the row is broken
    no_field, not_text               the text field is missing, or holds something else
    exam_question                    an examination question of WanJuan
    too_big                          more than 16 MiB in a row, or more than 2 million characters in a document
    not_array, truncated, damaged    the file is broken from here on; reading continues with the next file
    unsafe_member                    a link, or a path outside the archive, in a tar file
"""

from __future__ import annotations

from collections.abc import Iterator

from kun.config.schema import Corpus
from kun.corpora.files import CorpusFile, find
from kun.corpora.readers import read_part
from kun.corpora.rows import Row

__all__ = ["CorpusFile", "Row", "find", "read_corpus"]


def read_corpus(name: str, corpus: Corpus) -> Iterator[Row]:
    """The rows of the corpus `name`, file by file, in constant memory.

    Rows are numbered from 0 in each file: physical lines (a row of CSV by its
    first one), elements of the array, rows of the table. InputError, naming
    the setting, where a path matches nothing or a file cannot be opened.
    """
    for found in find(name, corpus):
        yield from read_part(name, corpus, found)
