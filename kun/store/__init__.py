"""Everything that touches the disk of a run: atomic files, digests, fingerprinted folders, shards, the lock."""
