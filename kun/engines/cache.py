"""The configured engine: `EngineCache(config).open("label", Path("runs/demo/stage1_train/label"))`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from kun.config.schema import Config, ModelName, Sampling
from kun.engines.base import Engine
from kun.errors import ConfigError
from kun.models.folder import local_folder, text_settings

EngineKind = TypeVar("EngineKind", bound=Engine)


class EngineCache:
    """Opens an engine when a stage asks for it, and keeps it for the next that asks for the same model. Whoever makes
    it closes it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._key: object = None
        self._engine: Engine | None = None

    def open(self, name: ModelName, model_folder: Path) -> Engine:
        """An engine with one of the two models, which stage 1 wrote into `model_folder` (adapter or merged).

        Raises InputError where a folder holds no model, ConfigError where the engine's settings do not go with it.
        """
        config, size = self.config, window(self.config)
        match config.engine.kind:
            case "transformers":
                return self._kept(model_folder.resolve(), lambda: _transformers(config, model_folder, size))
            case "vllm":
                from kun.engines.vllm.engine import VllmEngine
                from kun.engines.vllm.start import vllm_start, vocabulary

                start, adapter = vllm_start(config, model_folder, size)
                rows, log = vocabulary(Path(start.options["model"])), Path(config.run) / "vllm.log"
                engine = self._kept(start, lambda: VllmEngine(start, size, rows, log))
                engine.adapter = adapter
                return engine
            case "server":
                return self._kept((name, model_folder.resolve()), lambda: _server(config, name, model_folder, size))

    def close(self) -> None:
        """End the engine that is open, if one is."""
        if self._engine is not None:
            self._engine.close()
        self._key = self._engine = None

    def _kept(self, key: object, make: Callable[[], EngineKind]) -> EngineKind:
        if self._key != key:
            self.close()
            self._engine = make()
            self._key = key
        return cast(EngineKind, self._engine)


def _transformers(config: Config, model_folder: Path, size: int) -> Engine:
    from kun.engines.transformers.engine import TransformersEngine
    from kun.models.loading import load_model

    base, settings = local_folder(config.base_model or ""), config.engine
    model, chat = load_model(
        base, model_folder, settings.dtype, settings.device, trust_remote_code=config.trust_remote_code
    )
    return TransformersEngine(model, chat.end_ids, chat.pad_id, size, settings.batch_tokens)


def _server(config: Config, name: ModelName, model_folder: Path, size: int) -> Engine:
    from kun.engines.server.engine import ServerEngine
    from kun.models.chat import load_chat

    chat = load_chat(model_folder, config.trust_remote_code)
    return ServerEngine(config.engine.server, name, chat, size, model_folder, Path(config.run) / "store")


def window(config: Config) -> int:
    """Longest prompt plus reply in tokens: `engine.window`, or what the base model was made for. Without torch."""
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
    """The window, in which the longest reply leaves room for a prompt."""
    size = window(config)
    if sampling.max_tokens >= size:
        raise ConfigError(
            f"{setting}.max_tokens: {sampling.max_tokens} leaves no room for a prompt in the window of {size} tokens "
            "(engine.window, or the base model's own)"
        )
    return size
