"""How fast LoRA SFT is, against a bare PEFT loop on the same batches, side by side in one run.

    python benchmarks/train_speed.py --base kun/demo/base --seeds data/demo/seeds.jsonl
    python benchmarks/train_speed.py --base ../models/gemma-270m --seeds pairs.jsonl --rows 32 --batch 8

Kun's side is `kun.training.sft.train`, whole, on the seeds of a job; the bare side a loop as one would write it for
speed alone: PEFT's model of the same configuration, the head on labelled positions only, clipped AdamW. `--trl`: TRL's
own trainer in place of Kun's, on the same batches. Each training is a process of its own; rounds alternate them, and a
ratio is the median of the rounds' ratios. Timed are the steps after the first two (wall, and CPU time, which is what
counts where others use the cores); peak memory is that of the process, saving and all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from kun.config.schema import Config, Seeds, Train
from kun.models.chat import Chat, load_chat
from kun.training.seeds import Example
from kun.training.sft import batched_by_length
from stages.stage1_train import collect

WARM_UP = 2  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("kun/demo/base"))
    parser.add_argument("--seeds", type=Path, default=Path("data/demo/seeds.jsonl"))
    parser.add_argument("--prompts", default="zh", help="of the label model (default: %(default)s)")
    parser.add_argument("--job", choices=("label", "chat"), default="label")
    parser.add_argument("--rows", type=int, default=400, help="examples; one epoch (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trl", action="store_true", help="TRL's own trainer instead of Kun's")
    parser.add_argument("--alone", choices=("kun", "bare"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(training(arguments, arguments.alone == "kun")))
        return
    rounds = [{side: measured(side) for side in order(number)} for number in range(arguments.rounds)]
    for one in rounds:
        print(json.dumps(one))
    for name, unit in (("tokens_per_second", "tokens/s"), ("tokens_per_cpu_second", "tokens/CPU s"), ("peak", "MB")):
        kun, bare = ([one[side][name] for one in rounds] for side in ("kun", "bare"))
        ratio = median(mine / theirs for mine, theirs in zip(kun, bare, strict=True))
        print(f"{unit:>13}: Kun {median(kun):8.1f}   bare {median(bare):8.1f}   ratio {ratio:.2f}")


def order(number: int) -> tuple[str, str]:
    return ("kun", "bare") if number % 2 == 0 else ("bare", "kun")


def measured(side: str) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--alone", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def training(arguments: argparse.Namespace, kun: bool) -> dict[str, Any]:
    config = Config(
        base_model=str(arguments.base),
        prompts=arguments.prompts,
        seeds=Seeds(pairs=str(arguments.seeds)),
        train=Train(
            max_length=arguments.max_length,
            lora={"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"},
            sft={
                "per_device_train_batch_size": arguments.batch, "gradient_accumulation_steps": 1,
                "learning_rate": 1e-4, "save_steps": 100_000,
            },
            label={"num_train_epochs": 1},
            chat={"num_train_epochs": 1},
        ),
    )  # fmt: skip
    chat = load_chat(arguments.base)
    examples = collect(config, arguments.job, chat, [])[: arguments.rows // arguments.batch * arguments.batch]
    times = [os.times()]
    losses = (kuns if kun else bare)(config, chat, examples, arguments, lambda: times.append(os.times()))
    batches = by_step(batched_by_length(examples, arguments.batch, config.seed), arguments.batch)
    tokens = sum(len(one.prompt) + len(one.completion) for batch in batches[WARM_UP:] for one in batch)
    start, end = times[-1 - len(batches) + WARM_UP], times[-1]
    return {
        "tokens_per_second": tokens / (end.elapsed - start.elapsed),
        "tokens_per_cpu_second": tokens / (end.user + end.system - start.user - start.system),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": losses,
    }


def kuns(config: Config, chat: Chat, examples: list[Example], arguments: argparse.Namespace, step: Any) -> list[float]:
    from kun.training import loss, sft

    if arguments.trl:
        from trl import SFTTrainer

        setattr(loss, "LabelledTrainer", SFTTrainer)  # noqa: B010
    with tempfile.TemporaryDirectory() as folder:
        sft.train(config, arguments.job, chat, examples, [], [], Path(folder), lambda done, total: step())
        lines = (Path(folder) / "loss.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines[:: len(lines) - 1]]


def bare(config: Config, chat: Chat, examples: list[Example], arguments: argparse.Namespace, step: Any) -> list[float]:
    import torch
    from peft import get_peft_model
    from torch.nn.utils.rnn import pad_sequence
    from transformers import get_linear_schedule_with_warmup

    from kun.models.loading import choose_dtype, embedding_names, load_base
    from kun.training.options import lora_config

    model = load_base(str(arguments.base), chat, choose_dtype())
    torch.manual_seed(config.seed)
    model = get_peft_model(model, lora_config(config, embedding_names(model), chat.new_ids))
    backbone, head = model.get_base_model().base_model, model.get_output_embeddings()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=0.0)
    batches = by_step(batched_by_length(examples, arguments.batch, config.seed), arguments.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
    losses = []
    model.train()
    for batch in batches:
        ids = pad_sequence([torch.tensor([*one.prompt, *one.completion]) for one in batch], True, chat.pad_id)
        labels = pad_sequence(
            [torch.tensor([*(-100 for _ in one.prompt), *one.completion]) for one in batch], True, -100
        )[:, 1:]
        lengths = torch.tensor([len(one.prompt) + len(one.completion) for one in batch])
        attended = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        hidden = backbone(input_ids=ids, attention_mask=attended, use_cache=False).last_hidden_state[:, :-1]
        logits = head(hidden[labels != -100])
        loss = torch.nn.functional.cross_entropy(logits, labels[labels != -100])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        step()
    return [losses[0], losses[-1]]


def by_step(examples: list[Example], size: int) -> list[list[Example]]:
    return [examples[at : at + size] for at in range(0, len(examples), size)]


if __name__ == "__main__":
    main()
