"""The messages between Kun and its vLLM: `socket.sendall(frame([Task(1, request, adapter=None)]))`.

A frame is a length and a list in msgpack. Kun first sends a `Start`, answered by `Ready` or `Refused`; then each `Task`
is answered by a `Result`, in order of completion.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from kun.config.schema import Sampling
from kun.engines.base import Answer, Request

HEADER = struct.Struct(">I")  # bytes of the list that follows


class Start(msgspec.Struct, frozen=True):
    """`options` are vllm.EngineArgs; `given` names those that the user set; no reply holds a `suppressed` token."""

    options: dict[str, Any]
    given: list[str]
    end_ids: list[int]
    suppressed: list[int]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """vLLM runs. `sequences`: the number that it works on at once."""

    sequences: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """vLLM did not start."""

    why: str


class Task(msgspec.Struct, frozen=True):
    """A request under a key. `adapter`: folder of a LoRA adapter to put on the model; None: the model as it is."""

    key: int
    request: Request
    adapter: str | None


class Result(msgspec.Struct, frozen=True):
    """The answer to the task with that key."""

    key: int
    answer: Answer


def _encode(value: Any) -> Any:
    if isinstance(value, Sampling):
        return value.model_dump()
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    return kind.model_validate(value) if issubclass(kind, Sampling) else value


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode)
decode_start = msgspec.msgpack.Decoder(list[Start]).decode
decode_started = msgspec.msgpack.Decoder(list[Ready | Refused]).decode
decode_tasks = msgspec.msgpack.Decoder(list[Task], dec_hook=_decode).decode
decode_results = msgspec.msgpack.Decoder(list[Result]).decode


def frame(messages: Sequence[Start | Ready | Refused | Task | Result]) -> bytes:
    """Encode messages for the socket."""
    data = _encoder.encode(messages)
    return HEADER.pack(len(data)) + data
