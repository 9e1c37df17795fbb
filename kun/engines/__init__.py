"""Engines answer requests of token ids; `EngineCache` (kun/engines/cache.py) opens the configured one."""
