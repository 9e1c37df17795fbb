"""What lies in place of a file after a download that brought something else: `refuse(path, "corpora.web.paths")`."""

from __future__ import annotations

import re
from pathlib import Path

from kun.errors import InputError

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/|/annex/objects/|(\.\./)*\.git/annex/")
_PAGE = re.compile(rb"<(!doctype\s+html|html|\?xml[^>]*>\s*<(!doctype\s+html|error))\b", re.IGNORECASE)


def refuse(path: Path, setting: str = "") -> None:
    """InputError where the file is a pointer of Git LFS or git-annex, or a web page (of an error, or a login).

    OSError where it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    where = f"{setting}: {path}" if setting else str(path)
    if _POINTER.match(head):
        raise InputError(
            f"{where}: holds a pointer of Git LFS or git-annex, not the file itself; get it with `git lfs pull` "
            "(or `git annex get`), or `hf download`"
        )
    if _PAGE.match(head):
        raise InputError(
            f"{where}: holds a web page, not the file itself: a download that failed or needs a login; download it "
            "again (the text of real pages must be extracted first)"
        )
