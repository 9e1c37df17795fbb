"""vLLM in a process of its own: `python -m kun.engines.vllm.process FD`, started by kun.engines.vllm.engine.

Lists of messages go both ways over the socket FD: `Start`, which `Ready` or `Refused` answers, then a `Written` for
each `Write`, a `Weighed` for each `Weigh`, or a `Broken`, in the order in which they are done. The end of the socket
ends the process, with all that vLLM started: an engine whose run is gone would hold the GPU for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import difflib
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import msgspec

PATIENCE = 10.0  # seconds that vLLM has to end by itself
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when the thread that started it ends
HEADER = struct.Struct(">I")  # bytes of the message that follows


class Start(msgspec.Struct, frozen=True, tag=True):
    """`options` are vllm.EngineArgs; `given` names those that the user set; no reply holds a `suppressed` token."""

    options: dict[str, Any]
    given: list[str]
    end_ids: list[int]
    suppressed: list[int]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """vLLM runs. `sequences`: how many it works on at once."""

    sequences: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """vLLM did not start."""

    why: str


class Write(msgspec.Struct, frozen=True, tag=True):
    """Continue the prompt. `adapter`: folder of a LoRA adapter to put on the model; None: the model as it is."""

    key: int
    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    repetition_penalty: float
    seed: int
    adapter: str | None


class Weigh(msgspec.Struct, frozen=True, tag=True):
    """Log-probability of each of `tokens` as the one that follows the prompt."""

    key: int
    prompt: list[int]
    tokens: list[int]
    adapter: str | None


class Written(msgspec.Struct, frozen=True, tag=True):
    """The reply to a `Write`; its last token is an end token where the length limit did not cut it."""

    key: int
    tokens: list[int]


class Weighed(msgspec.Struct, frozen=True, tag=True):
    """The log-probabilities that a `Weigh` asks for."""

    key: int
    logprobs: list[float]


class Broken(msgspec.Struct, frozen=True, tag=True):
    """One request that vLLM did not take; it goes on with the others."""

    key: int
    why: str


Question = Start | Write | Weigh
Answer = Ready | Refused | Written | Weighed | Broken
encode = msgspec.msgpack.Encoder().encode
decode_questions = msgspec.msgpack.Decoder(list[Question]).decode
decode_answers = msgspec.msgpack.Decoder(list[Answer]).decode


def framed(messages: Sequence[Question] | Sequence[Answer]) -> bytes:
    """Messages as they go over the socket."""
    data = encode(messages)
    return HEADER.pack(len(data)) + data


async def serve(connection: socket.socket) -> None:
    """Answer what comes over the connection, until it ends."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=2**24)
    [start] = await _next(reader) or [None]
    assert isinstance(start, Start)
    try:
        engine, sequences = _open(start)
    except Exception as error:
        writer.write(framed([Refused(f"{type(error).__name__}: {error}")]))
        await writer.drain()
        return
    writer.write(framed([Ready(sequences)]))
    work = Work(engine, start, writer)
    tasks: set[asyncio.Task[None]] = set()
    while (questions := await _next(reader)) is not None:
        for question in questions:
            task = asyncio.create_task(work.answer(question))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    _end(engine)


async def _next(reader: asyncio.StreamReader) -> Any:
    """The next questions; None at the end of the socket."""
    try:
        header = await reader.readexactly(HEADER.size)
        return decode_questions(await reader.readexactly(*HEADER.unpack(header)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _open(start: Start) -> tuple[Any, int]:
    """A running vLLM, and how many sequences it works on at once."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in start.given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"{name}: not a setting of vllm.EngineArgs" + (f"; {close[0]}?" if close else ""))
    options = {**start.options, "disable_log_stats": start.options.get("disable_log_stats", True)}
    # The sizes of batches that vLLM chooses for work without anybody who waits.
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options), usage_context=UsageContext.LLM_CLASS)
    settings = engine.vllm_config
    return engine, settings.scheduler_config.max_num_seqs * settings.parallel_config.data_parallel_size


class Work:
    """One vLLM and the writer of its answers."""

    def __init__(self, engine: Any, start: Start, writer: asyncio.StreamWriter) -> None:
        self.engine, self.start, self.writer = engine, start, writer
        self.adapters: dict[str, Any] = {}  # vllm.LoRARequest by folder
        self.of_nan = _of_nan(engine)
        self.told: list[Answer] = []

    async def answer(self, question: Write | Weigh) -> None:
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            parameters = self._writing(question) if isinstance(question, Write) else self._weighing(question)
            adapter = self._adapter(question.adapter) if question.adapter else None
            prompt = tokens_input(question.prompt)
            output = self.engine.generate(prompt, parameters, str(question.key), lora_request=adapter)
            [result] = [one async for one in output]
            if str(question.key) in self.of_nan:
                self._tell(Broken(question.key, "the model returned NaN"))
            else:
                self._tell(self._read(question, result.outputs[0]))
        except EngineDeadError:
            _end(self.engine)
        except Exception as error:
            cause = error.__cause__ or error
            self._tell(Broken(question.key, f"{type(cause).__name__}: {cause}".split("\n")[0]))

    def _tell(self, answer: Answer) -> None:
        """What is done in one turn of the loop, as the replies of one step of vLLM, goes in one frame."""
        if not self.told:
            asyncio.get_running_loop().call_soon(self._send)
        self.told.append(answer)

    def _send(self) -> None:
        self.writer.write(framed(self.told))
        self.told.clear()

    def _adapter(self, folder: str) -> Any:
        from vllm.lora.request import LoRARequest

        if folder not in self.adapters:
            self.adapters[folder] = LoRARequest(folder, len(self.adapters) + 1, folder)
        return self.adapters[folder]

    def _writing(self, question: Write) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            top_p=question.top_p,
            repetition_penalty=question.repetition_penalty,
            seed=question.seed if question.temperature > 0 else None,
            stop_token_ids=self.start.end_ids,
            ignore_eos=True,  # the model's own; all that end a reply are in end_ids
            logit_bias=dict.fromkeys(self.start.suppressed, -100.0) or None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # made for this request alone; a deep copy costs 0.1 ms
        )

    def _weighing(self, question: Weigh) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=question.tokens,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    def _read(self, question: Write | Weigh, output: Any) -> Answer:
        if isinstance(question, Weigh):
            [found] = output.logprobs
            return Weighed(question.key, [found[token].logprob for token in question.tokens])
        if output.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave the reply up ({output.finish_reason})")
        return Written(question.key, list(output.token_ids))


def _of_nan(engine: Any) -> set[str]:
    """The requests of which the model has returned NaN, a set that grows.

    vLLM draws a token all the same. It counts them (VLLM_COMPUTE_NANS_IN_LOGITS) for its metrics; results do not tell.
    """
    found: set[str] = set()
    processor = engine.output_processor
    process, states = processor.process_outputs, processor.request_states

    def look_and_process(outputs: Sequence[Any], *more: Any, **options: Any) -> Any:
        for output in outputs:
            if getattr(output, "num_nans_in_logits", 0) and (request := states.get(output.request_id)):
                found.add(request.external_req_id)
        return process(outputs, *more, **options)

    processor.process_outputs = look_and_process
    return found


def _end(engine: Any) -> NoReturn:
    """End vLLM, then this process and all that is left of what it started; they are one group of processes."""
    kill = partial(os.killpg, os.getpgrp(), signal.SIGKILL)
    threading.Timer(PATIENCE, kill).start()
    with contextlib.suppress(Exception):
        engine.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    kill()
    raise SystemExit


def _die_with_parent() -> None:
    """Of a process that vLLM starts: without this its core outlives a `kill -9` of this process, and holds the GPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__mp_main__":  # this module in a process that multiprocessing has spawned
    _die_with_parent()
if __name__ == "__main__":
    os.register_at_fork(after_in_child=_die_with_parent)
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1]))))
