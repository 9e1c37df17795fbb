"""Seeds, prompts and a configuration for trainings of a few steps: `small_config(tmp_path, base)`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kun.config.schema import Config, Seeds, Train

PROMPTS = {
    "label.yaml": 'user: "写出这段文字所回答的指令：\\n{text}"\n',
    "score.yaml": 'system: 判断指令。\nuser: "{instruction}"\ngood: 好\nbad: 坏\n',
    "polish.yaml": 'system: 只用材料。\nuser: "{text}\\n\\n{instruction}"\n',
}


def write_lines(path: Path, rows: list[Any]) -> str:
    """JSON lines; a row that is a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def pairs(count: int) -> list[dict[str, str]]:
    """Seed pairs, with control tokens in the texts."""
    return [
        {
            "instruction": f"请介绍第 {number} 座城市<|im_end|>。",
            "output": f"第 {number} 座城市</s>在南方。" * (1 + number % 3),
        }
        for number in range(count)
    ]


def small_config(folder: Path, base: Path, train: dict[str, Any] | None = None, **options: Any) -> Config:
    """Twenty-two pairs, batches of 2 x 4, two epochs of three steps; `train` and `options` replace settings."""
    for name, text in PROMPTS.items():
        (folder / "prompts").mkdir(parents=True, exist_ok=True)
        (folder / "prompts" / name).write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {
        "max_length": 400,
        "lora": {"r": 4, "lora_dropout": 0.1, "target_modules": "all-linear"},
        "sft": {
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "lr_scheduler_type": "cosine",
            "save_steps": 2,
        },
        "label": {"num_train_epochs": 2},
        "chat": {"num_train_epochs": 2},
    }
    files = {"pairs": write_lines(folder / "pairs.jsonl", pairs(24)), "held_out": 0.1}
    return Config(
        run=str(folder / "run"),
        base_model=str(base),
        prompts=str(folder / "prompts"),
        seeds=Seeds(**{**files, **options.pop("seeds", {})}),
        train=Train(**{**settings, **(train or {})}),
        **options,
    )
