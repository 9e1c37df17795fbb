"""Kun: the mechanisms of instruction back-translation. The story they serve is told in `stages/`."""
