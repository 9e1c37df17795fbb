"""How well `kun plan` foresees a run: planned against what a finished run really did, and rows estimated from samples.

python benchmarks/plan_against_run.py run my.yaml          # its run is finished; the plan is made as if it were not
python benchmarks/plan_against_run.py rows benchmarks/real_text.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kun.config.files import load
from kun.config.schema import Config
from kun.corpora import read_corpus, sampling
from kun.corpora.sampling import sample_rows
from kun.engines.base import ScoreChoices
from kun.engines.cache import window
from kun.models.chat import load_chat
from kun.pipeline.run_folder import read_manifest
from kun.planning.figures import rows_of
from kun.planning.plan import Options, plan
from kun.prompts import load_prompts
from kun.records import Filtered, Labelled, Polished, Raw, Reject, Scored
from kun.store.shards import read_all
from stages import stage3_label, stage5_polish
from stages.stage2_filter import FILTER
from stages.stage3_label import LABEL
from stages.stage4_score import SELECTION, Scoring
from stages.stage5_polish import POLISH
from stages.writing import Writing, WritingTask

SIZES = (200, 500, 2000)
SEEDS = range(10)


def real(config: Config, name: str) -> Iterator[tuple[str, float, float, float, float]]:
    """Of each model stage of a finished run: rows in, rows kept, tokens of its prompts and of its replies.

    Replies that were cut count as long as the limit, other rejected ones as the kept ones do on average.
    """
    chat, prompts, size = load_chat(config.base_model or ""), load_prompts(config.prompts), window(config)
    label = Writing(prompts.label, config.label, chat, size, 0)
    polish = Writing(prompts.polish, config.polish, chat, size, 0)
    stages: list[tuple[str, str, type[Raw], type[Raw], Any]] = [
        (LABEL.name, FILTER.name, Filtered, Labelled, WritingTask(label, stage3_label.ask, stage3_label.accept)),
        (SELECTION.name, LABEL.name, Labelled, Scored, Scoring(prompts.score, config.score, chat, size, 0)),
        (POLISH.name, SELECTION.name, Scored, Polished, WritingTask(polish, stage5_polish.ask, stage5_polish.accept)),
    ]
    run = Path(config.run)
    for stage, source, reads, writes, asking in stages:
        records = list(read_all(run / source / name, reads))
        kept = list(read_all(run / stage / name, writes))
        asked = [one for one in map(asking.ask, records) if not isinstance(one, Reject)]
        prefill = sum(
            len(one.prompt) + (max(map(len, one.choices)) - 1 if isinstance(one, ScoreChoices) else 0) for one in asked
        )
        texts = [getattr(record, "instruction" if writes is Labelled else "output", "") for record in kept]
        mean = sum(chat.count(text) + 1 for text in texts) / max(len(texts), 1) if writes is not Scored else 0
        whole = read_manifest(run / stage / name)
        cut = whole.rejected.get("unfinished", 0) if whole else 0
        most = config.label.sampling.max_tokens if writes is Labelled else config.polish.sampling.max_tokens
        yield stage, len(records), len(kept), prefill, (len(asked) - cut) * mean + cut * most


def against_run(config: Config) -> None:
    found = plan(config.model_copy(update={"run": f"{config.run}-not-begun"}), list(config.corpora), Options())
    print("| stage | rows in | kept | prefill | decode |\n|---|---|---|---|---|")
    sums: dict[str, list[tuple[float, float]]] = {}
    for name in config.corpora:
        for planned, (stage, *done) in zip(
            (work for work in found.work if work.subset == name), real(config, name), strict=True
        ):
            pairs = zip((planned.rows, planned.kept, planned.prefill, planned.decode), done, strict=True)
            sums[stage] = [
                (a + c, b + d) for (a, b), (c, d) in zip(sums.get(stage, [(0.0, 0.0)] * 4), pairs, strict=True)
            ]
    for stage, figures in sums.items():
        print(f"| {stage} | " + " | ".join(f"{a:,.0f} / {b:,.0f}" for a, b in figures) + " |")
    store = Path(config.run) / "store"
    for what, patterns in {
        "stage2 documents": ("stage2_i*", "stage2_q*", "stage2_d*", "stage2_f*"),
        "stage3 label": ("stage3*",),
        "stage4 score": ("stage4*",),
        "stage5 polish": ("stage5*",),
        "final": ("final*",),
    }.items():
        taken = sum(path.stat().st_size for pattern in patterns for path in store.glob(f"{pattern}/*"))
        (space,) = (space for space in found.disk if space.what == what)
        print(f"{what}: planned {space.bytes / 1e3:,.0f} kB, taken {taken / 1e3:,.0f} kB ({space.bytes / taken:.2f})")


def against_rows(config: Config) -> None:
    print(
        "| corpus | true | rows | mean of estimates | spread of one | true inside its 95 % |\n|---|---|---|---|---|---|"
    )
    for name, corpus in config.corpora.items():
        true = sum(1 for _ in read_corpus(name, corpus))
        sampling.WHOLE = 0  # as if the corpus were too large to be read whole
        for size in SIZES:
            figures = []
            for seed in SEEDS:
                taken = sample_rows(name, corpus, size, seed)
                figures.append(rows_of(taken.weights, taken.counted, True, taken.how))
            values = [figure.value for figure in figures]
            mean = sum(values) / len(values)
            spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
            hits = sum((figure.low or 0) <= true <= (figure.high or 0) for figure in figures)
            inside = f"{hits} of {len(figures)}" if taken.everywhere else ""
            print(
                f"| {name} | {true:,} | {size:,} | {mean:,.0f} ({mean / true - 1:+.1%}) | {spread / true:.1%} "
                f"| {inside} |"
            )


if __name__ == "__main__":
    what, path = sys.argv[1:]
    {"run": against_run, "rows": against_rows}[what](load(path))
