"""Seed files as people publish them: from files to rows (`files`, `tables`, `encodings`), from rows to pairs (`shapes`,
`turns`). `kun seeds check FILE` shows what becomes of a file."""
