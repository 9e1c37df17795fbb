"""A trained model's first replies, and whether they end: `try_out(model, chat, examples, batch_tokens)`.

A model that never learned to stop is told right after its training, not after a corpus was labelled with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from kun.config.schema import Sampling
from kun.engines.base import Failure, Generate, Generated
from kun.models.chat import Chat
from kun.training.seeds import Example

PROMPTS = 24
LONGEST = 256  # tokens of a reply at most, as in stage 3
TOO_MANY = 0.1  # share of replies that do not end


class Tried(TypedDict):
    """How many prompts were answered, and how many replies ended, as those of the seeds do."""

    tried: int
    ended: int


def try_out(model: Any, chat: Chat, examples: Sequence[Example], batch_tokens: int) -> Tried:
    """Answer the first prompts, always with the likeliest token. A reply may be twice as long as the longest that its
    seed file teaches, up to LONGEST tokens."""
    from kun.engines.transformers.engine import TransformersEngine

    examples = [example for example in examples if example.task.ends] or examples  # a beginning teaches no end
    longest: dict[str, int] = {}
    for example in examples:
        file = example.task.seed.file
        longest[file] = max(longest.get(file, 0), len(example.completion))
    requests = [
        Generate(example.prompt, _greedy(min(2 * longest[example.task.seed.file], LONGEST)), seed=0)
        for example in examples[:PROMPTS]
    ]
    window = max(len(request.prompt) + request.sampling.max_tokens for request in requests)
    engine = TransformersEngine(model, chat.end_ids, chat.pad_id, window, batch_tokens)
    (answers,) = engine.run([requests])
    if failed := next((answer for answer in answers if isinstance(answer, Failure)), None):
        raise RuntimeError(f"the trained model cannot answer: {failed.error}")
    ended = sum(isinstance(answer, Generated) and answer.finished for answer in answers)
    return {"tried": len(answers), "ended": ended}


def warning(tried: Tried, job: str) -> str | None:
    """What to do about a model of whose replies too many do not end; None if they do."""
    open_ended = tried["tried"] - tried["ended"]
    if open_ended < TOO_MANY * tried["tried"]:
        return None
    return (
        f"{open_ended} of {tried['tried']} replies do not end: stages 3 to 5 would reject so many as unfinished; train "
        f"longer (train.{job}.num_train_epochs, train.sft.learning_rate) or with more seeds"
    )


def _greedy(tokens: int) -> Sampling:
    return Sampling(max_tokens=tokens, temperature=0.0, top_p=1.0)
