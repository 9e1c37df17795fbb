"""What a run will take, before it is run: rows, tokens, hours and disk by stage, from a sample of each corpus.

    kun plan --config my.yaml --prefill-rate 20000 --decode-rate 3000

The sampled texts go through the very functions of the stages: reading, rules, prompts. What no sample can tell, what
models keep and how long they write, comes from the run in the folder, from the seeds, or is assumed and says so.
Nothing is written into the run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from kun.config.schema import Config, ModelName
from kun.engines.batches import shared_prefix
from kun.engines.cache import EngineCache, window, window_with_room
from kun.engines.probe import Speed, probe
from kun.engines.vllm.start import check_options, devices
from kun.errors import ConfigError
from kun.filters.clean import clean
from kun.filters.perplexity import lmplz
from kun.models.chat import Chat, load_chat
from kun.models.folder import local_folder
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.stage import Stage
from kun.planning.disk import language_models, models, shards, size
from kun.planning.evidence import Evidence
from kun.planning.figures import Figure, Plan, Rates, Training, flow
from kun.planning.subset import INSTRUCTION, REMEMBERING, PlanContext, measure
from kun.prompts import load_prompts
from kun.records import Polished
from kun.store.digests import Digests
from kun.text.normal import preview
from kun.training import seeds
from stages import pipeline, stage1_train, stage2_evaluations, stage2_filter, stage3_label, stage5_polish
from stages.stage1_train import TRAIN
from stages.stage2_filter import FILTER
from stages.stage4_score import Scoring
from stages.stage5_polish import POLISH
from stages.writing import Writing, WritingTask

FEW_REQUESTS = 64  # decoded together: an engine writes to many at once nearly as fast as to one


@dataclass(frozen=True)
class Options:
    """What was asked for: rows of each corpus, rates or the seconds of a probe, shares that stages 3 to 5 keep."""

    sample: int = 500
    rates: Rates | None = None
    probe: float | None = None
    gpus: int = 1
    price: float | None = None
    kept: tuple[float, ...] | None = None


def plan(config: Config, names: Sequence[str], options: Options) -> Plan:
    """The plan for the corpora `names`. ConfigError and InputError as a run would raise them."""
    if config.engine.kind == "vllm":
        check_options(config.engine.vllm)
    run = RunFolder(Path(config.run))
    digests = Digests(run.store / "digests.json")
    given = _given(config, run, digests, options)
    training, seeds_told = _training(config, given.chat)
    with _ready(config, run, digests) as (model, evaluations, said):
        measured = [measure(given, name, model, evaluations, options.sample) for name in names]
        perplexity = tuple(language_models(config, model))
    notes = [*seeds_told, *said, *(note for one in measured for note in one.notes)]
    near = config.filter.near_duplicates is not None
    if {one.subset.filtered.basis for one in measured} & ({"sample", "counted"} if near else {"sample"}):
        notes.append("duplicates beyond the sample, and near-duplicates, are not seen: fewer rows may be kept")
    if config.seeds.pairs is None:
        notes.append("seeds.pairs is not set: the training of stage 1 is not planned")
    rates = options.rates
    if options.probe is not None:
        rates = _probed(config, run, [prompt for one in measured for prompt in one.prompts], options.probe)
    if rates is None and (options.gpus > 1 or options.price is not None):
        notes.append("--gpus and --price say nothing without rates: --prefill-rate and --decode-rate, or --probe")
    subsets = tuple(one.subset for one in measured)
    work = tuple(one for subset in subsets for one in flow(subset))
    place = run.path.resolve()
    while not place.exists():
        place = place.parent
    return Plan(
        run=str(run.path),
        sample=options.sample,
        filter_stage=FILTER.name,
        subsets=subsets,
        training=training,
        work=work,
        disk=(*models(config), *perplexity, *shards(subsets, work)),
        free=shutil.disk_usage(place).free,
        held=sum(size(path) for path in run.store.rglob("*")),
        cores=config.workers or os.cpu_count() or 1,
        gpus=options.gpus,
        rates=rates,
        price=options.price,
        notes=tuple(notes),
    )


def _given(config: Config, run: RunFolder, digests: Digests, options: Options) -> PlanContext:
    longest_label = window_with_room(config, config.label.sampling, "label.sampling")
    longest = window(config)
    chat, prompts = load_chat(config.base_model or "", config.trust_remote_code), load_prompts(config.prompts)
    steps = {step.name: step for stage in pipeline(config, digests, EngineCache(config)) for step in stage.steps}
    evidence = Evidence(run, steps)
    label = Writing(prompts.label, config.label, chat, longest_label, config.seed)
    polish = Writing(prompts.polish, config.polish, chat, longest, config.seed)
    pairs = (
        seeds.read_seeds(config.seeds.pairs, seeds.SeedPair, "seeds.pairs", [], config.seeds)
        if config.seeds.pairs
        else []
    )
    return PlanContext(
        config=config,
        evidence=evidence,
        chat=chat,
        labelling=WritingTask(label, stage3_label.ask, stage3_label.accept),
        scoring=Scoring(prompts.score, config.score, chat, longest, config.seed),
        polishing=WritingTask(polish, stage5_polish.ask, stage5_polish.accept),
        instructions=[seed.row.request for seed in pairs] or [INSTRUCTION],
        instructions_from=f"{len(pairs):,} instructions of seeds.pairs" if pairs else "",
        growth=_growth(config, evidence, chat),
        kept=options.kept,
    )


def _growth(config: Config, evidence: Evidence, chat: Chat) -> Figure:
    """Tokens of a polished reply for each of its text: by the run, by the seeds for polishing, or assumed."""
    done = [record for name in config.corpora for record in evidence.records(POLISH.name, name, Polished)]
    if done:
        written = sum(chat.count(record.output) for record in done)
        return Figure(written / sum(record.tokens for record in done), "run", f"{len(done):,} replies")
    if config.seeds.polish is None:
        return Figure(1.0, "assumed", "as long as its text; seeds.polish would tell")
    rows = [seed.row for seed in seeds.read_seeds(config.seeds.polish, seeds.PolishedText, "seeds.polish", [])]
    written = sum(chat.count(row.output) for row in rows)
    read = sum(chat.count(clean(row.text, config.filter.clean)[0]) for row in rows)  # as stage 5 will have them
    return Figure(written / max(read, 1), "seeds", f"{len(rows):,} of seeds.polish")


@contextmanager
def _ready(config: Config, run: RunFolder, digests: Digests) -> Iterator[tuple[Path | None, Path | None, list[str]]]:
    """The language model and the index of evaluations, where they are to be had at once, and what is said of others."""
    model, estimated = _made(stage2_filter.language_model(config, digests), run)
    evaluations, indexed = _made(stage2_evaluations.stages(config, digests), run)
    said = []
    if config.filter.lm.base:
        said.append("planned without perplexity, which the base model itself would measure (filter.lm.base)")
    if not indexed:
        said.append("planned without decontamination: its index is not made yet; `kun filter-preview` makes it")
    with tempfile.TemporaryDirectory(prefix="kun-plan-") as folder:
        if not estimated and config.filter.lm.model is not None:
            lmplz.make(config.filter.lm, model := Path(folder))
        elif not estimated:
            said.insert(0, "planned without perplexity: its model is not estimated yet; `kun filter-preview` does it")
        yield model, evaluations, said


def _made(stages: Sequence[Stage], run: RunFolder) -> tuple[Path | None, bool]:
    """The folder of a stage's one step where the run has it; and whether nothing is missing."""
    if not stages:
        return None, True
    ((step,),) = (stage.steps for stage in stages)
    if not run.link(step).exists() or run.current(step) is None:
        return None, False
    return run.folder(step), True


def _training(config: Config, chat: Chat) -> tuple[tuple[Training, ...], list[str]]:
    """The trainings of stage 1, and what is told of their seeds."""
    found: list[Training] = []
    told: list[str] = []
    for name in get_args(ModelName) if config.seeds.pairs is not None else ():
        bad: list[seeds.BadSeed] = []
        overview = seeds.Overview()
        examples = stage1_train.collect(config, name, chat, bad, overview)
        lines = [*seeds.told(name, examples, bad, config.train.max_length), *seeds.told_of_file(overview)]
        told += [f"seeds: {line}" for line in lines if f"seeds: {line}" not in told]
        training, _ = seeds.split(examples, config.seeds.held_out)
        tokens = sum(len(example.prompt) + len(example.completion) for example in training)
        settings: dict[str, Any] = {
            **config.train.sft,
            **(config.train.label if name == "label" else config.train.chat),
        }
        epochs = settings.get("num_train_epochs", 3)
        if not isinstance(epochs, int | float) or epochs < 0:
            raise ConfigError(f"train.{name}: num_train_epochs: {preview(repr(epochs))}: a number of epochs is needed")
        if (steps := settings.get("max_steps", -1)) > 0:
            batch = settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
            epochs = steps * batch / len(training)
        found.append(Training(f"{TRAIN.name}/{name}", TRAIN.command, len(training), epochs, tokens * epochs))
    return tuple(found), told


def _probed(config: Config, run: RunFolder, prompts: Sequence[list[int]], seconds: float) -> Rates:
    """The rates of the configured engine on this machine, with the label model where the run has it."""
    trained = run.path / TRAIN.name / "label"
    is_trained = (trained / "done.json").exists()
    engines = EngineCache(config)
    try:
        engine = engines.open(trained if is_trained else local_folder(config.base_model or ""))
        repeated = shared_prefix(prompts) if config.engine.kind in REMEMBERING and len(prompts) > 1 else 0
        prefill, decode = probe(engine, prompts, repeated, seconds)
    finally:
        engines.close()
    gpus = devices(config.engine.vllm) if config.engine.kind == "vllm" else 1
    how = (
        f"{config.engine.kind} with {'the label model' if is_trained else 'the base model'}: prefill {_said(prefill)}; "
    )
    how += f"decode {_said(decode)}" + (f"; of {gpus} GPUs together" if gpus > 1 else "")
    if decode.requests < FEW_REQUESTS:
        how += "; so few at a time are slow: a longer --probe, or more --sample, comes nearer"
    if not _on_gpu(config):
        how += "; on CPU: this says nothing of a GPU"
    return Rates(prefill.rate / gpus, decode.rate / gpus, "probe", how)


def _said(speed: Speed) -> str:
    return f"{speed.tokens:,} tokens of {speed.requests} requests in {speed.seconds:.1f} s"


def _on_gpu(config: Config) -> bool:
    import torch

    return config.engine.kind == "server" or (torch.cuda.is_available() and config.engine.device != "cpu")
