"""Engines answer requests of token ids; `EngineCache` (engines/open.py) opens the configured one."""
