"""Errors that a user can fix: `raise InputError("seeds.jsonl:3: ...")` ends `kun` with that message and status 2."""


class KunError(Exception):
    """The message names the file, line or setting, and the remedy."""


class ConfigError(KunError):
    """The configuration cannot be used."""


class InputError(KunError):
    """A file or folder that the configuration names cannot be used."""


class BusyError(KunError):
    """Another process is working on the same run."""
