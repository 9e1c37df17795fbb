"""How often `kun status` reads a step's manifest, by the number of corpora: `python benchmarks/survey.py`.

A survey of stage 2 over 5, 10, 20 and 40 corpora, whose steps all look finished; counts, no times.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from kun.config.schema import Config
from kun.demo.tokens import build_tokenizer
from kun.engines.cache import EngineCache
from kun.pipeline import run_folder
from kun.pipeline.run_folder import RunFolder, StepManifest
from kun.pipeline.status import survey
from kun.store import markers
from kun.store.digests import Digests
from stages import pipeline


def reads(corpora: int, folder: Path) -> tuple[int, int]:
    """Manifests that are read, and steps."""
    build_tokenizer().save_pretrained(folder / "base")
    (folder / "web.jsonl").write_text(json.dumps({"text": "天气很好。"}), encoding="utf-8")
    one = {"paths": [str(folder / "web.jsonl")], "format": "jsonl"}
    names = {f"web{number}": one for number in range(corpora)}
    config = Config.model_validate({"base_model": str(folder / "base"), "corpora": names})
    stages = [one for one in pipeline(config, Digests(folder / "d"), EngineCache(config)) if one.command == "stage2"]
    run = RunFolder(folder / "run")
    for stage in stages:
        for step in stage.steps:
            run.begin(step)
            manifest = StepManifest(shards=["0"], rows=1, kept=1, source=run.source(step) or {})
            markers.write_marker(run.folder(step) / "done.json", manifest)
    count = 0
    original = run_folder.read_manifest

    def counted(folder: Path) -> StepManifest | None:
        nonlocal count
        count += 1
        return original(folder)

    run_folder.read_manifest = counted
    try:
        states = survey(stages, RunFolder(folder / "run"))
    finally:
        run_folder.read_manifest = original
    assert all(state.condition == "complete" for state in states)
    return count, len(states)


if __name__ == "__main__":
    print("| corpora | steps | manifests read |\n|---|---|---|")
    for number in (5, 10, 20, 40):
        with tempfile.TemporaryDirectory() as folder:
            found, steps = reads(number, Path(folder))
        print(f"| {number} | {steps} | {found} |")
