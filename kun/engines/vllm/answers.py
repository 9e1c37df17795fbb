"""Requests answered by a vLLM in this process: `answer = await Work(engine, start).answer(task)`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kun.engines.base import Answer, ChoiceLogprobs, Failure, Generate, Generated, ScoreChoices, until_end
from kun.engines.choices import beginnings, chosen
from kun.engines.vllm.wire import Start, Task


class NanError(Exception):
    """The model returned NaN."""


class Work:
    """One vLLM (vllm.v1.engine.async_llm.AsyncLLM) and the adapters that its tasks have named."""

    def __init__(self, engine: Any, start: Start) -> None:
        self.engine, self.start = engine, start
        self.adapters: dict[str, Any] = {}  # vllm.LoRARequest by folder
        self.of_nan = _of_nan(engine)
        self._requests = 0  # sent to vLLM so far

    async def answer(self, task: Task) -> Answer:
        """vLLM's answer to the request. EngineDeadError where vLLM is dead; any other error is a Failure."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            match task.request:
                case Generate():
                    return await self._generated(task, task.request)
                case ScoreChoices():
                    return await self._choices(task, task.request)
        except EngineDeadError:
            raise
        except NanError:
            return Failure("the model returned NaN")
        except Exception as error:
            cause = error.__cause__ or error
            return Failure(f"{type(cause).__name__}: {cause}".split("\n")[0])

    async def _generated(self, task: Task, request: Generate) -> Generated:
        window, sampling = self.start.options["max_model_len"], request.sampling
        output = await self._output(
            task,
            request.prompt,
            max_tokens=min(sampling.max_tokens, window - len(request.prompt)),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            seed=request.seed if sampling.temperature > 0 else None,
            stop_token_ids=self.start.end_ids,
            ignore_eos=True,  # ignores the model's own; end_ids has all end tokens
            logit_bias=dict.fromkeys(self.start.suppressed, -100.0) or None,
        )
        if output.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM gave the reply up ({output.finish_reason})")
        return until_end(list(output.token_ids), self.start.end_ids)

    async def _choices(self, task: Task, request: ScoreChoices) -> ChoiceLogprobs | Failure:
        """Choices are forced: one vLLM request for each of their distinct beginnings."""
        follow = beginnings(request)
        logprobs = await asyncio.gather(
            *(self._next_token(task, [*request.prompt, *start], tokens) for start, tokens in follow.items())
        )
        return chosen(request, dict(zip(follow, logprobs, strict=True)))

    async def _next_token(self, task: Task, prompt: list[int], tokens: list[int]) -> dict[int, float]:
        """The log-probability of each of `tokens` as the next token after the prompt."""
        output = await self._output(
            task, prompt, max_tokens=1, temperature=0.0, logprob_token_ids=tokens, flat_logprobs=True
        )
        [step] = output.logprobs
        return {token: step[token].logprob for token in tokens}

    async def _output(self, task: Task, prompt: list[int], **parameters: Any) -> Any:
        """vLLM's output for a prompt. NanError where the model returned NaN."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        self._requests += 1
        name = str(self._requests)
        settings = SamplingParams(
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # not shared; a deep copy would cost 0.1 ms
            **parameters,
        )
        adapter = self._adapter(task.adapter) if task.adapter else None
        results = self.engine.generate(tokens_input(prompt), settings, name, lora_request=adapter)
        [result] = [one async for one in results]
        if name in self.of_nan:
            self.of_nan.discard(name)
            raise NanError
        return result.outputs[0]

    def _adapter(self, folder: str) -> Any:
        from vllm.lora.request import LoRARequest

        if folder not in self.adapters:
            self.adapters[folder] = LoRARequest(folder, len(self.adapters) + 1, folder)
        return self.adapters[folder]


def _of_nan(engine: Any) -> set[str]:
    """The names of requests for which the model returned NaN, added while vLLM works.

    vLLM draws a token all the same. It counts NaNs for its metrics (VLLM_COMPUTE_NANS_IN_LOGITS), but does not report
    them with the results.
    """
    names: set[str] = set()
    processor = engine.output_processor
    process, states = processor.process_outputs, processor.request_states

    def note_nan(outputs: Sequence[Any], *more: Any, **options: Any) -> Any:
        for output in outputs:
            if getattr(output, "num_nans_in_logits", 0) and (request := states.get(output.request_id)):
                names.add(request.external_req_id)
        return process(outputs, *more, **options)

    processor.process_outputs = note_nan
    return names
