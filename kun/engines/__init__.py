"""Engines answer requests of token ids; `Engines` (engines/open.py) opens the configured one."""
