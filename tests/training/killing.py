"""Train in processes that are killed: `killed_trainings(config, folder, rng, kills=5)`, or as a script.

    python -m tests.training.killing CONFIG.json REFERENCE_FOLDER KILLED_FOLDER SEED KILLS

Every training is a process of its own, forked from this one once the libraries are imported, so that a kill costs a
second and not the twelve of an import. Prints the step at which each process was killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from kun.config.schema import Config


def start(config: Config, folder: Path) -> tuple[int, int]:
    """Fork a training; its process id, and the end of a pipe that gives a byte for every step."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    os.close(reader)
    status = 1
    try:
        from stages.stage1_train import train_model

        train_model(config, "label", folder, lambda done, total: os.write(writer, b"."))
        status = 0
    finally:
        os._exit(status)


def run(config: Config, folder: Path) -> None:
    child, reader = start(config, folder)
    while os.read(reader, 64):
        pass
    assert os.waitpid(child, 0)[1] == 0


def killed_trainings(config: Config, folder: Path, rng: random.Random, kills: int) -> list[int]:
    """Train to the end with so many kills on the way; the steps seen before each."""
    seen = []
    for _ in range(kills):
        child, reader = start(config, folder)
        steps, wanted = 0, rng.randrange(1, 6)
        while steps < wanted and (data := os.read(reader, 1)):
            steps += len(data)
        time.sleep(rng.random() * 0.3)  # a step takes some 50 ms: in the middle of one, or of a checkpoint
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        seen.append(steps)
    run(config, folder)
    return seen


def main() -> None:
    import peft
    import transformers
    import trl

    import kun.training.sft  # noqa: F401
    import stages.stage1_train  # noqa: F401

    _ = (trl.SFTTrainer, peft.LoraConfig, transformers.AutoModelForCausalLM, transformers.PreTrainedTokenizerFast)
    config = Config.model_validate_json(Path(sys.argv[1]).read_bytes())
    rng = random.Random(int(sys.argv[4]))
    run(config, Path(sys.argv[2]))
    print(killed_trainings(config, Path(sys.argv[3]), rng, int(sys.argv[5])))


if __name__ == "__main__":
    main()
