"""LoRA SFT of one model by TRL and PEFT: `train(config, "label", chat, training, held_out, bad, folder, progress)`.

TRL gets token ids and labels made by Kun, and `check` verifies that it collates them unchanged: prompts in training
have the same tokens as in inference, and the loss covers exactly the reply and its end token.
"""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec

from kun.config.schema import Config
from kun.errors import ConfigError, InputError
from kun.models import checksum
from kun.models.chat import Chat, load_chat
from kun.store import atomic, digests
from kun.training.adapted import adapted, save
from kun.training.seeds import BadSeed, Example
from kun.training.trial import rehearse, tried_row

IGNORED = -100  # the label of a token that the loss leaves out


def train(
    config: Config,
    job: str,
    chat: Chat,
    training: Sequence[Example],
    held_out: Sequence[Example],
    bad: Sequence[BadSeed],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fill `folder` with adapter or merged model, tokenizer, template, settings, metrics and loss curve; return the
    metrics, with what was found of the `base`.

    Works in `folder/work`, resumes from the last checkpoint there, and removes it at the end.
    """
    from kun.training import checkpoints
    from kun.training.curve import write_curve
    from kun.training.finite import Finite
    from kun.training.options import sft_config
    from kun.training.tryout import try_out

    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    arguments = sft_config(config, job, work)
    _same_job(work, config, job, chat, [*training, *held_out])
    chat.save(folder)
    _quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        last = checkpoints.latest(work)
        if last is None:  # a training that has got so far was rehearsed
            rehearse(config, chat, training, work)
        trainer = _trainer(config, chat, training, held_out, arguments)
        check(trainer, load_chat(folder), [*training, *held_out])
        per_epoch = math.ceil(len(trainer.get_train_dataloader()) / arguments.gradient_accumulation_steps)
        trainer.add_callback(Finite())
        trainer.add_callback(checkpoints.Watch(progress, per_epoch, evaluate=bool(held_out)))
        try:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        except UnpicklingError:  # torch loads only tensors and plain values: other pickled objects are never run
            raise InputError(
                f"{last}: the checkpoint is not one of Kun's; delete it and run the command again"
            ) from None
        model = trainer.accelerator.unwrap_model(trainer.model).eval()
        checksum.write(folder, model, [tried_row(training)])
        model = save(model, config, folder)
        tried = try_out(model, chat, [*held_out, *training], config.engine.batch_tokens)
    history = trainer.state.log_history
    metrics = _metrics(config, job, training, held_out, bad, history, trainer.state.global_step)
    metrics |= {"replies": tried, "base": base}
    write_curve(folder, job, history, smooth=max(int(config.train.sft.get("logging_steps", 1)), 1))
    atomic.write(folder / "seeds.rejects.jsonl", b"".join(msgspec.json.encode(seed) + b"\n" for seed in bad))
    atomic.write(folder / "train_config.json", _json(_settings(config, job)))
    shutil.rmtree(work)
    atomic.write(folder / "metrics.json", _json(metrics))
    return metrics


def check(trainer: Any, chat: Chat, examples: Sequence[Example]) -> None:
    """AssertionError unless batches match what inference will ask; `chat` is that of the saved folder.

    Checks the shortest and longest examples and one of each seed file, as collated by the trainer.
    """
    by_length = sorted(examples, key=lambda example: len(example.prompt) + len(example.completion))
    one_each = {example.task.seed.file: example for example in examples}
    for example in (*by_length[:4], *by_length[-4:], *one_each.values()):
        prompt = chat.prompt(example.task.messages)
        batch = trainer.data_collator([_row(example), _row(by_length[-1])])
        ids, labels, attended = (batch[key][0].tolist() for key in ("input_ids", "labels", "attention_mask"))
        taught = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
        length = sum(attended)
        assert chat.pad_id != chat.end_id, "the padding token is the end token: the model would never learn to stop"
        assert ids[: len(prompt)] == prompt, "the prompt of training is not the prompt of inference"
        assert ids[len(prompt) : length] == taught == [label for label in labels if label != IGNORED]
        ends = [taught.pop()] if example.task.ends else []  # a reply that was cut has no end to learn
        assert ends in ([chat.end_id], []) and chat.end_id not in taught, "a reply must end in its one end token"
        assert set(ids[length:]) <= {chat.pad_id}, "padding with another token than the padding token"
        assert chat.decode(taught) == chat.decode(chat.encode(example.task.reply)), "the reply is not what is taught"


def batched_by_length(examples: Sequence[Example], batch_size: int, seed: int) -> list[Example]:
    """The examples reordered so that batches have similar lengths and come in random order; deterministic.

    With random lengths half of a batch is padding (2.4 times slower, docs/measurements.md). Examples are shuffled, then
    sorted only within stretches of 50 batches, so that batches stay mixed.
    """
    rng = random.Random(seed)
    shuffled = rng.sample(list(examples), len(examples))
    stretch = 50 * batch_size
    batches: list[list[Example]] = []
    for start in range(0, len(shuffled), stretch):
        some = sorted(shuffled[start : start + stretch], key=lambda e: len(e.prompt) + len(e.completion))
        batches += [some[place : place + batch_size] for place in range(0, len(some), batch_size)]
    *whole, last = batches  # the last, which may be short, stays last: elsewhere it would shift all batches
    rng.shuffle(whole)
    return [example for batch in (*whole, last) for example in batch]


def _row(example: Example) -> dict[str, list[int]]:
    ids = example.prompt + example.completion
    return {"input_ids": ids, "labels": [IGNORED] * len(example.prompt) + example.completion}


def _trainer(
    config: Config, chat: Chat, training: Sequence[Example], held_out: Sequence[Example], arguments: Any
) -> Any:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast, PrinterCallback

    from kun.training.loss import LabelledTrainer

    model = adapted(config, chat)
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if window and (longest := max(len(_row(example)["input_ids"]) for example in (*training, *held_out))) > window:
        raise ConfigError(
            f"train.max_length: an example has {longest} tokens, and the base model reads {window}: set that"
        )
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):  # TRL's loss needs it; PEFT's wrapper of a head with trained rows lacks it
        object.__setattr__(head, "bias", head.original_module.bias)
    ordered = batched_by_length(training, arguments.per_device_train_batch_size, config.seed)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=chat.files.raw,
        eos_token=chat.files.raw.id_to_token(chat.end_id),
        pad_token=chat.files.raw.id_to_token(chat.pad_id),
    )
    trainer = LabelledTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([_row(example) for example in ordered]),
        eval_dataset=Dataset.from_list([_row(example) for example in held_out]) if held_out else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _same_job(work: Path, config: Config, job: str, chat: Chat, examples: Sequence[Example]) -> None:
    """Remove checkpoints of any other training job."""
    ids = [[example.prompt, example.completion] for example in examples]
    settings = msgspec.json.encode([_settings(config, job), chat.fingerprint, ids], enc_hook=str)
    name = digests.of_bytes(settings).encode()
    path = work / "job"
    if path.is_file() and path.read_bytes() == name:
        return
    shutil.rmtree(work)
    work.mkdir()
    atomic.write(path, name)


def _settings(config: Config, job: str) -> dict[str, Any]:
    """The part of the configuration that determines this model."""
    dump = config.model_dump(mode="json", include={"base_model", "prompts", "seed", "seeds", "train"})
    other = "chat" if job == "label" else "label"
    return {"job": job, **dump, "train": {key: value for key, value in dump["train"].items() if key != other}}


def _metrics(
    config: Config,
    job: str,
    training: Sequence[Example],
    held_out: Sequence[Example],
    bad: Sequence[BadSeed],
    history: Sequence[dict[str, Any]],
    steps: int,
) -> dict[str, Any]:
    """Counts, and losses in nats per token; no times, so that equal training runs give equal files."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    last = evaluations[-1] if evaluations else {}
    return {
        "job": job,
        "base_model": config.base_model,
        "examples": len(training),
        "held_out": len(held_out),
        "by_file": dict(Counter(example.task.seed.file for example in (*training, *held_out))),
        "bad_seeds": dict(Counter(seed.reason for seed in bad)),
        "left_out_share": round(len(bad) / (len(bad) + len(training) + len(held_out)), 4),
        "cut": sum(example.cut for example in (*training, *held_out)),
        "trained_tokens": sum(len(example.completion) for example in training),
        "steps": steps,
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        "eval_loss": last.get("eval_loss"),
        "eval_token_accuracy": last.get("eval_mean_token_accuracy"),
        "eval_loss_by_epoch": [entry["eval_loss"] for entry in evaluations],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str).encode() + b"\n"


def _quiet() -> None:
    """Silence the libraries: errors and metrics tell the user enough."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("trl", "peft", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
