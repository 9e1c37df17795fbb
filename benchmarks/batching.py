"""Static against continuous batching in the transformers engine, side by side, on the models of a run.

    python -m benchmarks.batching --run runs/demo

Static: batches of similar length by `model.generate`, as kun/engines/transformers/engine.py has them. Continuous:
`model.generate_batch` of transformers, which fills a place as soon as a reply ends. Both greedy, on the same prompts of
stages 3 and 5; runs alternate, and the median of their ratios counts. Continuous batching draws all rows from one
generator of random numbers, so that a drawn reply depends on its neighbours: Kun could take it for greedy replies only.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.inference import Bench, models_of
from kun.config.schema import EngineConfig, Sampling
from kun.engines.base import Generate, Generated
from kun.engines.cache import EngineCache
from kun.engines.transformers.engine import TransformersEngine


def static(engine: TransformersEngine, requests: list[Generate]) -> int:
    """Tokens of all replies."""
    [answers] = engine.run([requests])
    return sum(len(answer.tokens) + answer.finished for answer in answers if isinstance(answer, Generated))


def continuous(engine: TransformersEngine, requests: list[Generate]) -> int:
    """Tokens of all replies."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=max(request.sampling.max_tokens for request in requests),
        do_sample=False,
        eos_token_id=list(engine.end_ids),
        pad_token_id=engine.pad_id,
    )
    prompts = [request.prompt for request in requests]
    answers: dict[str, Any] = engine.model.generate_batch(prompts, generation_config=settings, progress_bar=False)
    assert len(answers) == len(requests)
    return sum(len(answer.generated_tokens) for answer in answers.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run with trained models")
    parser.add_argument("--rows", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    config, models = models_of(arguments.run)
    config = config.model_copy(update={"engine": EngineConfig()})
    greedy = {
        name: {"sampling": Sampling(max_tokens=getattr(config, name).sampling.max_tokens, temperature=0.0)}
        for name in ("label", "polish")
    }
    for name, settings in greedy.items():
        config = config.model_copy(update={name: getattr(config, name).model_copy(update=settings)})
    for stage in ("label", "polish"):
        bench = Bench(config, models, stage, arguments.rows, arguments.rows, Path())
        engines = EngineCache(config)
        engine = engines.open(bench.model)
        assert isinstance(engine, TransformersEngine)
        requests = bench.requests(bench.records(arguments.rows, seed=1))
        ratios = []
        for _ in range(arguments.rounds):
            rates = []
            for way in (static, continuous):
                start = time.perf_counter()
                tokens = way(engine, requests)
                rates.append(tokens / (time.perf_counter() - start))
                print(f"    {stage:<8}{way.__name__:<12}{tokens:>8,} tokens{rates[-1]:>10,.0f} tokens/s", flush=True)
            ratios.append(rates[0] / rates[1])
        print(f"{stage}: static / continuous {median(ratios):.2f}")
        engines.close()


if __name__ == "__main__":
    main()
