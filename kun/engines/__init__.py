"""Engines answer requests in token ids; `EngineCache` (kun/engines/cache.py) opens the configured one."""
