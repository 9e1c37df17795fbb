"""Everything that touches the disk of a run: atomic files, digests, shards, the lock."""
