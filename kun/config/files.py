"""Configuration files: `load("configs/demo.yaml", ["--score.threshold", "0.7"])`.

YAML with `extends: other.yaml` (relative to the file; mappings merge, all else is replaced; a corpus that is null is
left out). Unknown keys, wrong types and impossible combinations are a `ConfigError` that names the file and the key.
Paths are relative to the directory in which `kun` is started.
"""

from __future__ import annotations

import difflib
import io
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from kun.config.overrides import layer as overriding
from kun.config.schema import Config
from kun.config.settings import known_below
from kun.errors import ConfigError, InputError, KunError
from kun.text.normal import preview

FILE_LIMIT = 2**20  # bytes of a file of settings or prompts
COMMAND_LINE = Path("the command line")  # the source of a setting that is not in a file
OWN_OPTIONS = ("config", "subset", "force", "quiet", "verbose")  # options of `kun run` that are not settings
VALUE_LIMIT = 100_000  # values in a file: a few aliases of aliases could stand for billions


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration in `path` (None: the defaults), with command-line overrides: `["--score.threshold", "0.7"]`.

    ConfigError names the file, or the option, and the key; InputError, what is no option.
    """
    layers = _layers(Path(path), ()) if path is not None else []
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged = _merge(merged, layer)
    config = _validated(merged, layers)
    if not overrides:
        return config
    below = config.model_dump()  # with the defaults: an option changes one key of a mapping that goes to a library
    layer = overriding(overrides, below)
    check_values(COMMAND_LINE, layer)
    return _validated(_merge(below, layer), [*layers, (COMMAND_LINE, layer)])


def _validated(merged: dict[str, Any], layers: list[tuple[Path, dict[str, Any]]]) -> Config:
    if isinstance(corpora := merged.get("corpora"), dict):
        merged["corpora"] = {name: corpus for name, corpus in corpora.items() if corpus is not None}
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, layers) for item in error.errors())) from None


def load_of_run(folder: Path) -> Config:
    """The configuration with which a run was last made. InputError if the folder is not a run."""
    if not (folder / "config.yaml").exists():
        raise InputError(f"{folder}: is not a run (it has no config.yaml); runs are made by `kun run`")
    return load(folder / "config.yaml")


def command_of_run(stage: str, folder: Path, config: Config, path: str | Path) -> str:
    """The command that makes a stage of the run in `folder` with the settings in `path`; the run may have been moved,
    or copied from elsewhere."""
    moved = ["--run", str(folder)] if Path(config.run).resolve() != folder.resolve() else []
    return shlex.join(["kun", "run", stage, "--config", str(path), *moved])


def dump(config: Config) -> str:
    """The configuration as YAML, which `load` reads back."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def _layers(path: Path, above: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """The mappings of `path` and of the files that it extends, the most general first."""
    content = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of settings, not a {type(content).__name__}")
    if path.resolve() in [other.resolve() for other in above]:
        raise ConfigError(f"{path}: extends itself, by way of {' -> '.join(map(str, above))}")
    parent = content.pop("extends", None)
    if parent is None:
        return [(path, content)]
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: takes the name of one YAML file, not {preview(repr(parent))}")
    return [*_layers(path.parent / parent, (*above, path)), (path, content)]


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. ConfigError if it cannot be read, is not a file, or is too large for settings."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is no file (a folder, a pipe or a device); give the path of a YAML file")
        if path.stat().st_size > FILE_LIMIT:
            raise ConfigError(f"{path}: has more than {FILE_LIMIT:,} bytes; --config takes a YAML file of settings")
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except KunError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); --config takes a YAML file") from None
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}{line}: is not valid YAML: {preview(' '.join(problem.split()), 1000)}") from None
    except Exception as error:  # ruamel.yaml raises anything: RecursionError, IndexError of "!!int ''"
        raise ConfigError(f"{path}: is not valid YAML: {preview(' '.join(str(error).split()), 1000)}") from None
    check_values(path, content)
    return content


def check_values(source: Path, content: Any) -> None:
    """ConfigError if the YAML has values that no setting takes and JSON cannot hold."""
    left = [content]
    for _ in range(VALUE_LIMIT):
        if not left:
            return
        value = left.pop()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
        elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise ConfigError(
                f"{source}: {preview(repr(value))}: values are text, finite numbers, true, false, lists and "
                "mappings; put a date in quotes"
            )
        elif isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{source}: {preview(value)!r}: a value with the NUL character")
    raise ConfigError(f"{source}: with its aliases (*name) filled in, it has more than {VALUE_LIMIT:,} values")


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: Any, layers: list[tuple[Path, dict[str, Any]]]) -> str:
    """One validation error as `file: key: what is wrong`, naming the layer that set the key last."""
    where = list(error["loc"])
    source = next((path for path, layer in reversed(layers) if _sets(layer, where)), layers[-1][0])
    key = preview(".".join(str(part) for part in where if not _is_union_tag(part)))
    name = f"{source}: {key or 'the whole file'}"
    if source == COMMAND_LINE:
        name = _option(where, layers[-1][1]) or f"{source}: {key or 'all of it'}"
    if error["type"] == "extra_forbidden":
        close = _nearest(where, OWN_OPTIONS if source == COMMAND_LINE and len(where) == 1 else ())
        if close and source == COMMAND_LINE:
            close = _option(where, layers[-1][1], instead=close) or close
        return f"{name}: unknown setting" + (f"; did you mean {close}?" if close else "")
    message = _PLAINLY.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict | BaseModel) else f", not {preview(repr(error['input']))}"
    return f"{name}: {message}{given}"


_PLAINLY = {"tuple_type": "must be a list, such as [a, b]"}  # what pydantic says of its own types, in those of YAML
_PLAINLY |= dict.fromkeys(("model_type", "dict_type"), "must be a mapping of settings")


def _option(where: list[Any], layer: Any, instead: str | None = None) -> str | None:
    """The option that set the wrong value; None if several may have. `instead` replaces the last key of `where`."""
    keys: list[str] = []
    for part in where:
        if isinstance(layer, dict):
            if part not in layer:
                return None
            keys.append(str(part))
            layer = layer[part]
    if keys and instead:
        keys[-1] = instead
    while isinstance(layer, dict) and len(layer) == 1:
        ((part, layer),) = layer.items()
        keys.append(str(part))
    return None if isinstance(layer, dict) else preview("--" + ".".join(keys).replace("_", "-"))


def _sets(layer: Any, where: list[Any]) -> bool:
    for part in where:
        if not isinstance(layer, dict):
            return True
        if part not in layer:
            return False
        layer = layer[part]
    return True


def _is_union_tag(part: Any) -> bool:
    """Pydantic adds the tried member of a union to the location, or that the key is wrong: `ppl_max.float`,
    `corpora.1.[key]`."""
    return isinstance(part, str) and part in {"float", "str", "int", "[key]"}


def _nearest(where: list[Any], also: Sequence[str] = ()) -> str | None:
    """A known key, or one of `also`, that resembles the last key of `where`."""
    close = difflib.get_close_matches(str(where[-1]), [*known_below(where[:-1]), *also], n=1)
    return close[0] if close else None
