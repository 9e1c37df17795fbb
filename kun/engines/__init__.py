"""Engines answer requests of token ids; `open_engine` (engines/open.py) picks the configured one."""
