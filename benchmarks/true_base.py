"""Does a true base learn to stop? Trains a label model on a few real seeds, and lets it label real passages.

    python benchmarks/true_base.py models/gemma-270m --data ../shared/data --out /tmp/true_base
    python benchmarks/true_base.py models/smollm2-135m --data ../shared/data --out /tmp/true_base_en --english

Seeds, passages, draws and checks are those of stages 1 and 3; a killed run goes on from its last checkpoint. The
prompt is one line, since a CPU trains such a base at some 50 tokens a second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from kun.config.schema import Config
from kun.engines.base import Generated
from kun.engines.cache import EngineCache
from kun.models.chat import load_chat
from kun.prompts import load_prompts
from kun.records import Filtered, Labelled, Origin
from stages.stage1_train import train_model
from stages.stage3_label import accept, ask
from stages.writing import Writing

PROMPTS = {
    False: "{text}\n\n写出上面这段文字所回答的指令：",
    True: "{text}\n\nWrite the instruction that the text above answers:",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Labels of a true base that end.")
    parser.add_argument("base", type=Path, help="folder of the base model")
    parser.add_argument("--data", type=Path, required=True, help="seeds, gold, domains, seeds_as_people_have_them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; a killed run goes on there")
    parser.add_argument("--english", action="store_true", help="English seeds and passages")
    parser.add_argument("--seeds", type=int, default=54)
    parser.add_argument("--held-out", type=int, default=8, help="seeds beside them, for the loss")
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    options = parser.parse_args()
    config = configuration(options)
    began = time.monotonic()
    metrics = train_model(config, "label", options.out / "label", report(began))
    chosen = {
        key: metrics.get(key) for key in ("examples", "held_out", "steps", "eval_loss_by_epoch", "replies", "base")
    }
    print(json.dumps(chosen, ensure_ascii=False, indent=1), f"\ntrained: {time.monotonic() - began:.0f} s", flush=True)
    outcomes = list(labels(config, options.out / "label", passages(options)))
    reasons = Counter("kept" if isinstance(one, Labelled) else one.reason for one in outcomes)
    for one in outcomes:
        print("  ", one.instruction if isinstance(one, Labelled) else f"[{one.reason}] {one.detail}")
    print(f"labels that end: {len(outcomes) - reasons['unfinished']} of {len(outcomes)}; {dict(reasons)}")


def configuration(options: argparse.Namespace) -> Config:
    """Seeds that are trained first, then those held out: Kun's own split hangs on their content."""
    prompts = options.out / "prompts"
    prompts.mkdir(parents=True, exist_ok=True)
    for name, more in (("label", ""), ("score", "good: 好\nbad: 坏\n"), ("polish", "")):
        text = PROMPTS[options.english] if name != "score" else "{instruction}"
        text = text + "{instruction}" if name == "polish" else text
        (prompts / f"{name}.yaml").write_text(f"user: {json.dumps(text, ensure_ascii=False)}\n{more}", encoding="utf-8")
    rows = list(itertools.islice(seeds(options), options.seeds + options.held_out))
    (options.out / "pairs.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    sft = {"learning_rate": options.rate, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    sft |= {"lr_scheduler_type": "cosine", "warmup_steps": 2, "save_steps": 1, "per_device_eval_batch_size": 8}
    return Config.model_validate(
        {
            "run": str(options.out),
            "base_model": str(options.base),
            "prompts": str(prompts),
            "seeds": {"pairs": str(options.out / "pairs.jsonl"), "held_out": options.held_out / len(rows)},
            "train": {"sft": sft, "label": {"num_train_epochs": options.epochs}},
        }
    )


def seeds(options: argparse.Namespace) -> Iterable[dict[str, str]]:
    """Pairs with short outputs."""
    if options.english:
        path, longest = options.data / "seeds_as_people_have_them/01_alpaca_array_en.json", 1000
        rows = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda row: len(row["output"]))
    else:
        path, longest = options.data / "seeds/dev.jsonl", 160
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if 20 < len(row["output"]) <= longest and not row.get("input"):
            yield {"instruction": row["instruction"], "output": row["output"]}


def passages(options: argparse.Namespace) -> list[Filtered]:
    path = "domains/en_encyclopaedia.jsonl" if options.english else "gold/cmrc2018_trial.jsonl"
    texts = [json.loads(line)["text"] for line in (options.data / path).read_text(encoding="utf-8").splitlines()]
    short = [text for text in texts if len(text) <= (700 if options.english else 400)][: options.passages]
    return [
        Filtered(id=str(number), subset="web", text=text, origin=Origin(path, number), ppl=None, tokens=0)
        for number, text in enumerate(short)
    ]


def labels(config: Config, model: Path, documents: list[Filtered]) -> Iterable[Any]:
    """What stage 3 makes of each document."""
    engines = EngineCache(config)
    engine = engines.open(model)
    writing = Writing(load_prompts(config.prompts).label, config.label, load_chat(model), engine.window, config.seed)
    requests: list[Any] = [ask(writing, document) for document in documents]
    answers: list[Any]
    (answers,) = engine.run([requests])
    yield from (
        accept(writing, document, cast(Generated, answer)) for document, answer in zip(documents, answers, strict=True)
    )
    engines.close()


def report(began: float) -> Any:
    def progress(done: int, total: int) -> None:
        print(f"step {done} of {total}: {time.monotonic() - began:.0f} s", flush=True)

    return progress


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
