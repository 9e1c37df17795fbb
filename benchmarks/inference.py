"""How fast stages 3 to 5 are on vLLM, side by side in one run; every figure is a ratio with its target.

    python benchmarks/inference.py --text ../shared/data/text/prose_zh.jsonl     # a random model in the shape of Yi
    python benchmarks/inference.py --run runs/demo       # the models of a run, such as the demo's

ceiling  label and polish: rows per second of Kun's stage, shards read, prompts made, answers judged and published,
         against raw `LLM.generate` on all its prompts at once, with the same sampling and so the same lengths
shards   label and polish: shards of 256 rows against one shard of all, and against raw
naive    score: against the usual recipe on the same vLLM: file by file (256 rows), each drained before the next, no
         prefix cache, every verdict drawn: 16 tokens, temperature 0.5, top_p 0.95, repetition penalty 1.2

The random model has 100 M parameters and Yi's vocabulary: 64,000 tokens, learnt from `--text` (half a minute); without
that, the demo's tokenizer, with a token per character. Texts are pages of the demo world, as many as --rows. Each
measurement has a process and a vLLM of its own, warmed up on other rows; rounds alternate them, and the median of the
rounds' ratios counts. The rubric is the shipped one, cut to about 450 tokens (`--rubric 1000`: whole). The random
model's replies are greedy, run to their limit and are rejected: that changes nothing but what is published. Drawn
replies would hide Kun's own cost: on a CPU vLLM spends most of its time in top_p and seeds then. `--only label` leaves
the other stages out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from ruamel.yaml import YAML

from kun.config.files import load
from kun.config.schema import Config, Label, Polish, Sampling, Score
from kun.demo.documents import new_item, page
from kun.engines.base import Generate, ScoreChoices
from kun.engines.cache import EngineCache, window
from kun.engines.vllm.engine import environment
from kun.engines.vllm.start import vllm_start
from kun.models.chat import load_chat
from kun.models.turns import CHATML_TOKENS
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.stage import Build, Infer, Ingest, Slice, Stage, StageSpec, Step, StepContext, StepSettings
from kun.prompts import SHIPPED, load_prompts
from kun.records import Origin, Scored
from kun.store.digests import Digests
from stages import stage3_label, stage4_score, stage5_polish
from stages.stage1_train import TRAIN

WARM = 32  # rows before the clock starts
SMALL = 256  # rows of a small shard, and of a file of the naive recipe
NAIVE = Sampling(max_tokens=16, temperature=0.5, top_p=0.95, repetition_penalty=1.2)
RUBRIC = 460  # tokens
VOCABULARY = 64_000
TARGETS = {
    ": Kun / raw": 0.95,
    f": Kun in shards of {SMALL} / raw": 0.95,
    f": shards of {SMALL} / one shard": 0.95,
    ": Kun / naive": 10,
}


def yi_shaped(folder: Path, text: Path | None) -> Path:
    """A random model of 100 M parameters: Yi's vocabulary, head size and grouped attention; fewer, smaller layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kun.demo.tokens import build_tokenizer

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1376, num_hidden_layers=12, num_attention_heads=4,
        num_key_value_heads=1, head_dim=128, max_position_embeddings=4096, rope_theta=5e6, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    (learnt(text) if text else build_tokenizer()).save_pretrained(folder)
    return folder


def learnt(text: Path) -> Any:
    """A byte-level BPE tokenizer of as many tokens as Yi's, learnt from a file of texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>", "<|pad|>", *CHATML_TOKENS], show_progress=False
    )
    with text.open(encoding="utf-8") as file:
        bpe.train_from_iterator((json.loads(line)["text"] for line in file), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")


def random_model(folder: Path, text: Path | None) -> tuple[Config, dict[str, Path]]:
    """Settings for the random model, which is both models."""
    base = yi_shaped(folder, text)
    config = Config(
        base_model=str(base),
        label=Label(sampling=Sampling(max_tokens=48, temperature=0)),
        polish=Polish(sampling=Sampling(max_tokens=128, temperature=0)),
    )
    return config, {"label": base, "chat": base}


def prompts_with_rubric(folder: Path, chat: Path, most: int) -> str:
    """The shipped prompts, with as many examples in the rubric as leave it at most so many tokens of the model."""
    shutil.copytree(SHIPPED["zh"], folder)
    score = YAML(typ="safe").load(folder / "score.yaml")
    while _rubric(folder, chat) > most and len(score["examples"]) > 1:
        score["examples"].pop()
        (folder / "score.yaml").write_text(json.dumps(score, ensure_ascii=False), encoding="utf-8")
    print(f"    rubric of {_rubric(folder, chat)} tokens, with the question for a verdict on nothing", flush=True)
    return str(folder)


def _rubric(prompts: Path, chat: Path) -> int:
    return len(load_chat(chat).prompt(load_prompts(str(prompts)).score.messages("")))


def models_of(run: str) -> tuple[Config, dict[str, Path]]:
    config = load(Path(run) / "config.yaml")
    return config, {name: (Path(run) / "stage1_train" / name).resolve() for name in ("label", "chat")}


@dataclass(frozen=True)
class Bench:
    """One stage over `rows` rows in shards of `shard_rows`, on vLLM."""

    config: Config
    models: dict[str, Path]
    stage: str
    rows: int
    shard_rows: int
    work: Path

    @property
    def model(self) -> Path:
        return self.models["label" if self.stage == "label" else "chat"]

    def records(self, count: int, seed: int) -> list[Scored]:
        """Pages of the demo world, with the instructions to them."""
        rng, found = random.Random(seed), []
        for row in range(count):
            item = new_item(rng)
            found.append(
                Scored(
                    id=f"{seed}-{row}", subset="bench", text=page(item, rng), origin=Origin("bench", row), ppl=None,
                    tokens=100, instruction=item.instruction, score=0.5,
                )
            )  # fmt: skip
        return found

    def stages(self, engines: EngineCache, name: str, records: list[Scored]) -> list[Stage]:
        """A stage that publishes the records, one that puts the model there, and Kun's stage."""

        def copy(context: StepContext, _: Any) -> dict[str, Any]:
            shutil.copytree(self.model, context.folder, dirs_exist_ok=True)
            return {}

        def nothing() -> StepSettings:
            return StepSettings.of(self.config, [])

        bench = StageSpec("stage0", "stage0_bench", "ingest", writes=Scored)
        source = Step(bench, name, nothing)
        rows = self.shard_rows
        slices = [Slice(f"{n:08d}", min(rows, len(records) - n), "") for n in range(0, len(records), rows)]
        ingest = Ingest(lambda _: [(records, slices)], lambda unit: iter((r, r) for r in unit))
        model = Step(TRAIN, self.stage, nothing)
        match self.stage:
            case "label":
                asked = stage3_label.stage(self.config, engines, model, [source])
            case "score":
                scoring = stage4_score.stages(self.config, Digests(self.work / "d"), engines, model, [source])
                asked = next(stage for stage in scoring if stage.spec is stage4_score.VERDICTS)
            case _:
                asked = stage5_polish.stage(self.config, engines, model, [source])
        return [
            Stage(bench, ingest, (source,)),
            Stage(TRAIN, Build(copy), (model,)),
            asked,
        ]

    def requests(self, records: list[Scored]) -> list[Any]:
        """What Kun's stage asks of the model."""
        asked = self.stages(EngineCache(self.config), "bench", records)[-1]
        assert isinstance(asked.work, Infer)
        engine: Any = SimpleNamespace(window=window(self.config))
        context = StepContext(asked.steps[0], asked.steps[0].settings().config, self.work, lambda step: self.model)
        task = asked.work.task(context, engine)
        return [item for item in map(task.ask, records) if isinstance(item, Generate | ScoreChoices)]


def kun(bench: Bench) -> float:
    """Rows per second of Kun's stage."""
    engines, run, seconds = EngineCache(bench.config), RunFolder(bench.work / "run"), 0.0
    run.store.mkdir(parents=True)
    for name, count in (("warm", WARM), ("timed", bench.rows)):
        *before, asked = bench.stages(engines, name, bench.records(count, seed=len(name)))
        for stage in before:
            run_stage(stage, run)
        start = time.perf_counter()
        run_stage(asked, run)
        seconds = time.perf_counter() - start
        done = run.current(asked.steps[0])
        assert done is not None and done.rows == count and not done.failed, done
    engines.close()
    return bench.rows / seconds


def raw(bench: Bench) -> float:
    """Rows per second of vLLM alone: all prompts at once."""
    return bench.rows / _generate(bench, bench.rows, prefix_caching=True)


def naive(bench: Bench) -> float:
    """Rows per second of the usual recipe: a drawn verdict, file by file."""
    score = Score(method="sampled", sampling=NAIVE)
    bench = replace(bench, config=bench.config.model_copy(update={"score": score}))
    return bench.rows / _generate(bench, SMALL, prefix_caching=False)


def _generate(bench: Bench, together: int, prefix_caching: bool) -> float:
    """Seconds that `LLM.generate` takes for the stage's requests, `together` at a time, with Kun's settings of vLLM."""
    start, _ = vllm_start(bench.config, bench.model, window(bench.config))
    os.environ |= environment(start)
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(**{**start.options, "enable_prefix_caching": prefix_caching})
    seconds = 0.0
    for count, seed in ((WARM, 4), (bench.rows, 5)):
        requests = bench.requests(bench.records(count, seed))
        begin = time.perf_counter()
        for first in range(0, count, together):
            part = requests[first : first + together]
            sampling = [
                SamplingParams(
                    max_tokens=min(request.sampling.max_tokens, start.options["max_model_len"] - len(request.prompt)),
                    temperature=request.sampling.temperature,
                    top_p=request.sampling.top_p,
                    repetition_penalty=request.sampling.repetition_penalty,
                    stop_token_ids=start.end_ids,
                    ignore_eos=True,
                    detokenize=False,
                )
                for request in part
            ]
            prompts = [TokensPrompt(prompt_token_ids=request.prompt) for request in part]
            answers = llm.generate(prompts, sampling, use_tqdm=False)
            assert len(answers) == len(part)
        seconds = time.perf_counter() - begin
        assert len(requests) == count
    return seconds


MEASURES: dict[str, Callable[[Bench], float]] = {"kun": kun, "raw": raw, "naive": naive}


def measure(bench: Bench, what: str) -> float:
    """A measurement in a process of its own, which ends with all that it started."""
    with tempfile.TemporaryDirectory(dir=bench.work) as work:
        config = bench.config.model_copy(update={"run": f"{work}/run"})
        told = {**asdict(bench), "config": config.model_dump_json(), "work": work, "models": bench.models}
        command = [sys.executable, __file__, "--measure", what, json.dumps(told, default=str)]
        log = bench.work / "log"
        with log.open("wb") as file:
            run = subprocess.run(command, stdout=subprocess.PIPE, stderr=file)
        if run.returncode:
            raise SystemExit(f"{what} {bench.stage}: {log.read_text()[-3000:]}")
        [rate] = map(float, re.findall(rb"^RATE (.+)$", run.stdout, re.MULTILINE))
        print(f"    {bench.stage:<7}{what:<6}{bench.shard_rows:>6} rows a shard{rate:>10.1f} rows/s", flush=True)
        return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a run with trained models; without it: a random model")
    parser.add_argument("--text", type=Path, help="JSONL with text, of which the random model's tokenizer is learnt")
    parser.add_argument("--rows", type=int, default=1024, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--only", choices=("label", "polish", "score"))
    parser.add_argument("--rubric", type=int, default=RUBRIC, help="its tokens, at most (default: %(default)s)")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, told = arguments.measure
        fields = json.loads(told)
        fields["models"] = {name: Path(path) for name, path in fields["models"].items()}
        config = Config.model_validate_json(fields["config"])
        print("RATE", MEASURES[what](Bench(**fields | {"config": config, "work": Path(fields["work"])})))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        config, models = models_of(arguments.run) if arguments.run else random_model(work / "base", arguments.text)
        engine = config.engine.model_copy(update={"kind": "vllm", "window": config.engine.window or 2048})
        config = config.model_copy(update={"engine": engine})
        scoring = config.model_copy(
            update={"prompts": prompts_with_rubric(work / "prompts", models["chat"], arguments.rubric)}
        )
        ratios: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            for name, ratio in _round(config, scoring, models, arguments.rows, work, arguments.only):
                ratios.setdefault(name, []).append(ratio)
        for name, found in ratios.items():
            each = ", ".join(f"{ratio:.3g}" for ratio in found)
            print(f"{name:<40}{median(found):>8.3g}   target {TARGETS[name[name.index(':') :]]:<6} ({each})")


def _round(
    config: Config, scoring: Config, models: dict[str, Path], rows: int, work: Path, only: str | None
) -> Iterator[tuple[str, float]]:
    for stage in ("label", "polish"):
        if only in (None, stage):
            whole = Bench(config, models, stage, rows, rows, work)
            ours, ceiling = measure(whole, "kun"), measure(whole, "raw")
            small = measure(replace(whole, shard_rows=SMALL), "kun")
            yield f"{stage}: Kun / raw", ours / ceiling
            yield f"{stage}: Kun in shards of {SMALL} / raw", small / ceiling
            yield f"{stage}: shards of {SMALL} / one shard", small / ours
    if only in (None, "score"):
        whole = Bench(scoring, models, "score", rows, rows, work)
        yield "score: Kun / naive", measure(whole, "kun") / measure(whole, "naive")


if __name__ == "__main__":
    main()
