"""Whether a corpus can be read with its settings, before anything is: `check_first_rows("web", corpus, files)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from kun.config.schema import Corpus
from kun.corpora.files import CorpusFile
from kun.corpora.readers import READERS, read_part
from kun.errors import InputError
from kun.store.substitutes import refuse

FILES, ROWS = 5, 100
NOT_UTF8 = "(text that is not UTF-8: iconv -f gb18030 -t utf-8, or from big5, utf-16: look at the result)"
SETTING = {"no_field": "field", "not_text": "field"}  # the setting at fault by the reason of most rows
SETTING |= dict.fromkeys(("not_json", "not_object", "not_array", "not_csv", "not_utf8"), "format")


def check_first_rows(name: str, corpus: Corpus, files: Sequence[CorpusFile]) -> None:
    """InputError where the first rows of some files have no text because of the field, format or encoding, or where a
    file is a pointer or a web page. A corpus with other faults, or a single sound row, is read."""
    for found in files:
        try:
            refuse(found.path, f"corpora.{name}.paths")
        except OSError as error:
            raise InputError(f"corpora.{name}.paths: {found.path}: {error.strerror}") from None
    some = files[:: max(1, -(-len(files) // FILES))]
    rows = [row for found in some for row in islice(read_part(name, corpus, found), ROWS)]
    rejects = [row.reject for row in rows]
    if not rows or any(reject is None or reject.reason not in SETTING for reject in rejects):
        return
    reason, count = Counter(reject.reason for reject in rejects if reject is not None).most_common(1)[0]
    row = next(row for row in rows if row.reject is not None and row.reject.reason == reason)
    assert row.reject is not None
    setting = SETTING[reason]
    value = corpus.format if setting == "format" else corpus.field or READERS[corpus.format][1]
    raise InputError(
        f"corpora.{name}.{setting}: {value}: none of the first {len(rows):,} rows has a text; {reason} in {count:,}, "
        f"such as {row.origin.file}, row {row.origin.row}: {row.reject.detail}"
        + (f" {NOT_UTF8}" if reason in ("not_utf8", "not_json") else "")
    )
