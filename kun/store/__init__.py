"""The files of a run on disk: atomic writes, digests, markers, shards."""
