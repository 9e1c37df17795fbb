"""The configured engine: `EngineCache(config).open(Path("runs/demo/stage1_train/label"))`; a model is its folder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from kun.config.schema import Config, Sampling
from kun.engines.base import Engine
from kun.errors import ConfigError
from kun.models.folder import local_folder, text_settings

if TYPE_CHECKING:
    from kun.engines.server.answer_cache import AnswerCache

EngineKind = TypeVar("EngineKind", bound=Engine)


class EngineCache:
    """Opens engines on demand, and keeps the last `room` of them for stages that use the same model.

    Adapters that vLLM puts on one base share an engine. The creator of the cache closes it, and with it the engines.
    """

    def __init__(self, config: Config, room: int = 1) -> None:
        self.config = config
        self.room = room
        self._engines: dict[str, Engine] = {}  # the most recently used is last
        self._answers: AnswerCache | None = None

    def open(self, model_folder: Path) -> Engine:
        """An engine with the model in a folder: an adapter on the base model, or a whole model.

        InputError where a folder holds no model, ConfigError where the engine's settings do not fit it.
        """
        config, size, model = self.config, window(self.config), str(model_folder.resolve())
        match config.engine.kind:
            case "transformers":
                return self._kept(model, lambda: _transformers(config, model_folder, size))
            case "vllm":
                from kun.engines.vllm.engine import AdaptedEngine, VllmEngine
                from kun.engines.vllm.start import vllm_start, vocabulary

                start, adapter = vllm_start(config, model_folder, size)
                rows, key = vocabulary(Path(start.options["model"])), msgspec.json.encode(start).decode()
                engine = self._kept(key, lambda: VllmEngine(start, size, rows, self._vllm_log()))
                return AdaptedEngine(engine, adapter) if adapter else engine
            case "server":
                return self._kept(model, lambda: self._server(model_folder, size))

    def close(self) -> None:
        """Close the open engines."""
        while self._engines:
            self._engines.popitem()[1].close()
        if self._answers is not None:
            self._answers.close()
            self._answers = None

    def _kept(self, key: str, make: Callable[[], EngineKind]) -> EngineKind:
        engine = self._engines.pop(key, None)
        while engine is None and len(self._engines) >= self.room:
            self._engines.pop(next(iter(self._engines))).close()
        self._engines[key] = engine = engine or make()
        return cast(EngineKind, engine)

    def _server(self, model_folder: Path, size: int) -> Engine:
        from kun.engines.server.answer_cache import AnswerCache
        from kun.engines.server.engine import ServerEngine
        from kun.models.chat import load_chat

        config = self.config
        chat = load_chat(model_folder, config.trust_remote_code)
        if self._answers is None:
            self._answers = AnswerCache(Path(config.run) / "store/answers.sqlite")
        return ServerEngine(config.engine.server, chat, size, model_folder, self._answers)

    def _vllm_log(self) -> Path:
        """vllm.log of the run, or vllm-2.log, ... where another vLLM writes to it."""
        used = {getattr(engine, "log", None) for engine in self._engines.values()}
        names = (Path(self.config.run) / f"vllm{f'-{number}' if number > 1 else ''}.log" for number in count(1))
        return next(name for name in names if name not in used)


def _transformers(config: Config, model_folder: Path, size: int) -> Engine:
    from kun.engines.transformers.engine import TransformersEngine
    from kun.models.loading import load_model

    base, settings = local_folder(config.base_model or ""), config.engine
    model, chat = load_model(
        base, model_folder, settings.dtype, settings.device, trust_remote_code=config.trust_remote_code
    )
    return TransformersEngine(model, chat.end_ids, chat.pad_id, size, settings.batch_tokens)


def window(config: Config) -> int:
    """The maximum length of prompt plus reply in tokens: `engine.window`, or the base model's own. Without torch."""
    if not config.base_model:
        raise ConfigError("base_model: is not set; give the folder of the base model")
    folder = local_folder(config.base_model)
    own = text_settings(folder).get("max_position_embeddings")
    if not isinstance(own, int):
        if config.engine.window is None:
            path = folder / "config.json"
            raise ConfigError(f"engine.window: {path} does not tell the model's own (max_position_embeddings); set it")
        return config.engine.window
    if config.engine.window is not None and config.engine.window > own:
        raise ConfigError(
            f"engine.window: {config.engine.window} is more than the base model's {own} tokens ({folder})"
        )
    return config.engine.window or own


def window_with_room(config: Config, sampling: Sampling, setting: str) -> int:
    """The window. ConfigError where the longest reply leaves no room in it for a prompt."""
    size = window(config)
    if sampling.max_tokens >= size:
        raise ConfigError(
            f"{setting}.max_tokens: {sampling.max_tokens} leaves no room for a prompt in the window of {size} tokens "
            "(engine.window, or the base model's own)"
        )
    return size
