"""One tool's way from JSON lines over a perplexity to filtered JSON lines, on one core; for filter_throughput.py.

    PYTHON benchmarks/perplexity_paths.py datatrove WORK    # WORK/out-datatrove/seconds.json: cpu_s, wall_s, kept

PYTHON is that of an environment with the tool. WORK, which filter_throughput.py fills, holds `warm.jsonl` and
`in.jsonl`, a SentencePiece model `zh.sp.model` and the KenLM binary `zh.arpa.bin` of its pieces. A first run over
`warm.jsonl` imports and loads everything and is not counted. CPU seconds are those of the process and its children.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOW, HIGH = 5.0, 5000.0  # both rejects happen, and most is kept


def datatrove(work: Path) -> Callable[[Path, Path], None]:
    """JsonlReader, a filter on KenlmModel.get_perplexity (datatrove has no filter of its own on it), JsonlWriter."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.perplexity import KenlmModel

    model = KenlmModel("wikipedia", "zh")
    # The files here in the place of those that it would fetch from a hub.
    import datatrove.utils.perplexity as module

    module.cached_asset_path_or_download = lambda url, *_, **__: str(work / Path(url).name)

    def run(source: Path, out: Path) -> None:
        steps = [
            JsonlReader(str(source.parent), glob_pattern=source.name),
            LambdaFilter(lambda document: LOW <= model.get_perplexity(document.text) <= HIGH),
            JsonlWriter(str(out), output_filename="out.jsonl", compression=None),
        ]
        LocalPipelineExecutor(pipeline=steps, tasks=1, workers=1, logging_dir=str(out / "logs")).run()

    return run


def juicer(work: Path) -> Callable[[Path, Path], None]:
    """The executor of data-juicer with a recipe of one step, perplexity_filter, in one process."""
    os.environ |= {"DATA_JUICER_EXTERNAL_MODELS_HOME": str(work), "HF_DATASETS_CACHE": str(work / "cache")}
    from data_juicer.config import init_configs
    from data_juicer.core import DefaultExecutor

    def run(source: Path, out: Path) -> None:
        recipe = {
            "dataset_path": str(source),
            "export_path": str(out / "out.jsonl"),
            "np": 1,
            "use_cache": False,
            "open_monitor": False,
            "process": [{"perplexity_filter": {"lang": "zh", "min_ppl": LOW, "max_ppl": HIGH}}],
        }
        out.mkdir(parents=True)
        (out / "recipe.yaml").write_text(json.dumps(recipe))
        DefaultExecutor(init_configs(["--config", str(out / "recipe.yaml")])).run()

    return run


def kun(work: Path) -> Callable[[Path, Path], None]:
    """What the others do, and no more: Kun's reader, its perplexity, JSON lines out."""
    import msgspec

    from kun.config.schema import Corpus
    from kun.corpora import read_corpus
    from kun.filters.perplexity import lm

    perplexity = lm.open_given(work / "zh.arpa.bin", work / "zh.sp.model", "cc_net")

    def run(source: Path, out: Path) -> None:
        out.mkdir(parents=True)
        with (out / "out.jsonl").open("wb") as file:
            for row in read_corpus("web", Corpus(paths=(str(source),), format="jsonl")):
                ppl = perplexity(row.text)
                if LOW <= ppl <= HIGH:
                    file.write(msgspec.json.encode({"text": row.text, "ppl": ppl}) + b"\n")

    return run


def kun_stage2(work: Path) -> Callable[[Path, Path], None]:
    """All of stage 2 with one worker: reading, normalisation, exact duplicates, length, rules, perplexity, shards."""
    from kun.config.schema import Config
    from kun.engines.cache import EngineCache
    from kun.pipeline.run_folder import RunFolder
    from kun.pipeline.runner import run_stage
    from kun.store.digests import Digests
    from stages import pipeline

    model = {"model": str(work / "zh.arpa.bin"), "sentencepiece": str(work / "zh.sp.model"), "normalisation": "cc_net"}

    def run(source: Path, out: Path) -> None:
        config = Config.model_validate(
            {
                "run": str(out),
                "base_model": str(work / "base"),
                "corpora": {"web": {"paths": [str(source)], "format": "jsonl"}},
                "filter": {"lm": model, "ppl_min": LOW, "ppl_max": HIGH, "near_duplicates": None},
            }
        )
        folder = RunFolder(out)
        folder.store.mkdir(parents=True)
        for stage in pipeline(config, Digests(folder.store / "digests.json"), EngineCache(config)):
            if stage.command == "stage2":
                run_stage(stage, folder, workers=1)

    return run


TOOLS = {"kun": kun, "kun_stage2": kun_stage2, "datatrove": datatrove, "juicer": juicer}


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def kept(out: Path) -> int:
    files = [*out.glob("out.jsonl"), *out.glob("stage2_filter/web/part-?????.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in files)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    tool, work = sys.argv[1], Path(sys.argv[2]).resolve()
    run, out = TOOLS[tool](work), work / f"out-{tool}"
    shutil.rmtree(out, ignore_errors=True)
    run(work / "warm.jsonl", out / "warm")
    start, cpu_start = time.perf_counter(), cpu()
    run(work / "in.jsonl", out / "timed")
    seconds = {"cpu_s": cpu() - cpu_start, "wall_s": time.perf_counter() - start, "kept": kept(out / "timed")}
    (out / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
