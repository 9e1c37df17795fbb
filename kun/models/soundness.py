"""Whether a base model is what its folder says, found before it is trained: `check_base(folder, chat, model, texts)`.

Libraries load a model with missing weights, give random rows to tokens that it does not know, and train on NaN, all
without a word that their users see.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kun.errors import InputError
from kun.models.chat import Chat

SHOWN = 3  # names of weights in a message
WORSE = 1.0  # nats per token above a guess: a fresh model is nearer, the wrong tokenizer is not (docs/measurements.md)
LONGEST = 48  # tokens of a text whose loss is measured
MOST_UNKNOWN = 0.05  # of the rows: more tokens without one are those of another model's tokenizer
_log = logging.getLogger(__name__)


def check_report(folder: Path, model: Any, report: Mapping[str, Any]) -> None:
    """InputError where the loader found weights missing, or of another shape; a warning for those it left out.

    Tied heads are not among the missing. Buffers may be: older files lack some, and the model computes them.
    """
    kind, parameters = type(model).__name__, dict(model.named_parameters(remove_duplicate=False))
    if mismatched := sorted(report["mismatched_keys"]):
        name, there, wanted = mismatched[0]
        raise InputError(
            f"base_model: {folder}: {len(mismatched)} weights have another shape than config.json says: "
            f"{name} is {_shape(there)}, not {_shape(wanted)}; put the files of one model there"
        )
    missing, others = sorted(set(report["missing_keys"]) & set(parameters)), sorted(report["unexpected_keys"])
    if missing:
        instead = f", and has {_some(others)} instead" if others else ""
        raise InputError(
            f"base_model: {folder}: lacks {len(missing)} of the {len(parameters)} weights of {kind} "
            f"({_some(missing)}){instead}; random ones would take their place: put the model's files there again, "
            "under the names of its architecture; for a head that is tied set tie_word_embeddings: true in config.json"
        )
    if others:
        _tell(f"base_model: {folder}: {len(others)} weights are of no use to {kind} and left out: {_some(others)}")
    head, rows = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model, "_tied_weights_keys", None) and getattr(model.config, "tie_word_embeddings", False)
    if tied and head is not None and head.weight is not rows.weight:
        raise InputError(
            f"base_model: {folder}: config.json ties the output head to the embeddings, and the weights have a head of "
            "their own, which other programs would not read; set tie_word_embeddings: false there"
        )


def check_base(folder: Path, chat: Chat, model: Any, texts: Sequence[str]) -> None:
    """InputError where weights are not finite, or the tokenizer is another model's, as the loss of `texts` shows."""
    import torch

    for name, weight in model.named_parameters():
        if not torch.isfinite(weight.detach().sum(dtype=torch.float32)):  # far quicker than a look at each value
            bad = int((~torch.isfinite(weight)).sum())
            if bad:
                raise InputError(
                    f"base_model: {folder}: {bad} of the {weight.numel()} values of {name} are not finite; "
                    "put the model's files there again"
                )
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = [token for token in chat.unknown(rows) if token >= rows and token not in chat.files.added()]
    if len(beyond) > MOST_UNKNOWN * rows:
        raise InputError(
            f"base_model: {folder}: the tokenizer has {len(beyond)} tokens beyond the {rows} rows of the embeddings: "
            "it belongs to another model; put the files of one model there"
        )
    encoded = [[token for token in chat.encode(text) if token < rows][:LONGEST] for text in texts]
    loss, guess = _loss(model, [ids for ids in encoded if len(ids) > 1]), math.log(rows)
    found = f"the loss of the seeds is {loss:.2f} nats per token before any training, that of a guess {guess:.2f}"
    if math.isfinite(loss) and loss > guess + WORSE:
        raise InputError(
            f"base_model: {folder}: {found}: the tokenizer is another model's, or this model has never seen such text; "
            "put the tokenizer there that it was trained with, or take another base"
        )
    if loss > guess - WORSE / 2:
        _tell(f"base_model: {folder}: {found}: the model is untrained, or does not know the language of the seeds")


def sound_generation(folder: Path, values: Mapping[str, Any]) -> Any:
    """The defaults of generation in `values`, mended where transformers would refuse to load or to save them.

    Kun itself uses none of them. Llama-2 and Vicuna have a temperature and do not sample.
    """
    from transformers import GenerationConfig

    ids = {name: values[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id") if values.get(name)}
    for number, kept in enumerate((values, {**values, "do_sample": True}, ids, {})):
        try:
            settings = GenerationConfig.from_dict(dict(kept))
            settings.validate(strict=True)
        except (ValueError, TypeError, AttributeError):
            continue
        if number > 1:
            _tell(f"base_model: {folder}: generation_config.json is not valid: only its control tokens are kept")
        break
    return settings


def _loss(model: Any, encoded: Sequence[Sequence[int]]) -> float:
    from kun.models.checksum import logprobs

    values = [value for ids in encoded for value in logprobs(model, ids)]
    return -sum(values) / max(len(values), 1)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _shape(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


@cache  # a base is loaded once by each stage
def _tell(text: str) -> None:
    _log.warning("%s", text)
