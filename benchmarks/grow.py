"""What a corpus that grows costs: `python benchmarks/grow.py ../shared/data --folder /tmp/grow`, or one of its parts.

    asked     records asked of a model again, after a file came, went, was renamed, or a row was corrected
    steps     a corpus grown in ten steps against one that is made at once: the final files
    bytes     the store of all five stages over the texts that were ingested
    small     5,000 files of one row: files on the disk per step
    status    seconds and memory of `kun status` after one new file, on a run with --shards shards in every step

Stages 2 to 5 are Kun's own, on real text. Only the engine is not: its replies are the same for all, as its time and its
words are not what is measured; stage 1 puts the demo's base model in the place of both models.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kun.config.files import dump, load
from kun.config.schema import Config
from kun.dataset import lineage
from kun.dataset.final import assemble, with_output
from kun.engines.base import Answer, ChoiceLogprobs, Generated, Request, ScoreChoices
from kun.engines.cache import EngineCache
from kun.models.chat import load_chat
from kun.pipeline.run_folder import RunFolder
from kun.pipeline.runner import run_stage
from kun.pipeline.stage import Build, Infer, Stage, StepContext
from kun.pipeline.status import survey
from kun.progress import Progress
from kun.records import Document
from kun.store import shards
from kun.store.digests import Digests
from stages import pipeline

REPOSITORY = Path(__file__).parents[1]
BASE = REPOSITORY / "kun" / "demo" / "base"
ANSWER = "有关的规定共有三个方面，分别涉及职责、程序和期限，各单位应当遵照执行，并定期检查落实的情况。"
ADDED = "此外，本条自公布之日起第{}个月施行，由主管部门负责解释。"


class SameReply:
    """Answers every request at once."""

    window = 2048

    def __init__(self, reply: str) -> None:
        self.reply = load_chat(str(BASE), False).encode(reply)

    def run(self, groups: Iterable[Sequence[Request]], on_answer: Any = lambda count: None) -> Iterator[list[Answer]]:
        for group in groups:
            yield [self.answer(request) for request in group]
            on_answer(len(group))

    def answer(self, request: Request) -> Answer:
        if isinstance(request, ScoreChoices):
            return ChoiceLogprobs((-(sum(request.prompt) % 97) / 50, -1.0))
        return Generated(self.reply, finished=True)

    def close(self) -> None:
        pass


class Grown:
    """A run over the files of a folder of JSON lines, or over all corpora of the data."""

    def __init__(self, folder: Path, data: Path, corpora: dict[str, tuple[Path, str]], **settings: str) -> None:
        overrides = ["--run", str(folder / "run"), "--base_model", str(BASE), "--engine.window", "2048"]
        config = load(str(REPOSITORY / "benchmarks" / "real_text.yaml"), [*overrides, *_options(settings)])
        named = {name: {"paths": [str(path)], "format": kind, "field": None} for name, (path, kind) in corpora.items()}
        text = config.model_dump() | {"corpora": named, "seeds": config.seeds.model_dump() | {"pairs": str(BASE)}}
        text["filter"]["lm"]["estimate_from"] = str(data / "text" / "prose_zh.jsonl")
        self.config = Config.model_validate(text)
        self.path = folder / "run"

    def go(self) -> dict[str, int]:
        """Run all stages; how many records each asked about."""
        run = RunFolder(self.path, dump(self.config).encode())
        run.store.mkdir(parents=True, exist_ok=True)
        digests = Digests(run.store / "digests.json")
        found = [_without_models(stage) for stage in pipeline(self.config, digests, EngineCache(self.config))]
        for stage in found:
            run_stage(stage, run, 1)
        for stage in with_output(found):
            assemble(run, stage, self.config, survey(found, run), digests)
        digests.save()
        return dict(run.asked)


def _options(settings: dict[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('__', '.')}", value)]


def _untrained(context: StepContext, _: Progress) -> dict[str, Any]:
    shutil.copytree(BASE, context.folder, dirs_exist_ok=True)
    return {}


def _without_models(stage: Stage) -> Stage:
    if stage.spec.role == "model":
        return replace(stage, work=Build(_untrained))
    if isinstance(stage.work, Infer):
        reply = ANSWER if stage.spec.output else "请说明这段文字的主要内容和要点。"
        return replace(stage, work=Infer(lambda _: SameReply(reply), stage.work.task))
    return stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("part", nargs="*", default=["asked", "steps", "bytes", "small", "status"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1000, help="of the corpus that grows")
    parser.add_argument("--shards", type=int, default=1000, help="of every step, for status")
    options = parser.parse_args()
    parts = {"asked": asked, "steps": steps, "bytes": store_bytes, "small": small_files, "status": status_time}
    for part in options.part:
        folder = options.folder / part
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "web").mkdir(parents=True)
        parts[part](folder, options)


def texts(options: argparse.Namespace, count: int) -> list[str]:
    lines = [
        line
        for path in sorted((options.data / "corpora" / "skypile").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    found = [json.loads(line)["text"] for line in lines]
    return [found[n % len(found)] + ADDED.format(n) * (n // len(found)) for n in range(count)]


def write(path: Path, rows: Iterable[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in rows), encoding="utf-8")


def web(folder: Path, options: argparse.Namespace, **settings: str) -> Grown:
    return Grown(folder, options.data, {"web": (folder / "web", "jsonl")}, **{"ingest__shard_rows": "100", **settings})


def asked(folder: Path, options: argparse.Namespace) -> None:
    """Once with limits of perplexity that are numbers, once with those that are relative to all rows."""
    for limits in ("absolute", "relative"):
        numbers = {"filter__ppl_min": "null", "filter__ppl_max": "5000"} if limits == "absolute" else {}
        _asked(folder / limits, options, limits, numbers)


def _asked(folder: Path, options: argparse.Namespace, limits: str, settings: dict[str, str]) -> None:
    corpus = folder / "web"
    corpus.mkdir(parents=True)
    few = max(options.rows // 100, 4)
    everything = texts(options, options.rows + few)
    rows, new = everything[: options.rows], everything[options.rows :]
    third = len(rows) // 3
    for number in range(3):
        write(corpus / f"b{number}.jsonl", rows[number * third : (number + 1) * third])
    run = web(folder, options, **settings)
    whole = run.go()
    print(f"{limits} limits, at first: {whole}", flush=True)

    def told(what: str) -> None:
        again = {name: count for name, count in run.go().items() if count}
        shares = ", ".join(f"{name} {count} of {whole[name]}" for name, count in again.items())
        share = sum(again.values()) / sum(whole.values())
        print(f"  {what}: {sum(again.values())} records, {share:.1%} ({shares or 'none'})", flush=True)

    write(corpus / "a.jsonl", [text if n % 4 == 0 else f"第{n}页" for n, text in enumerate(new)])
    told(f"a new file of {few} rows, a quarter good")
    write(corpus / "c.jsonl", [f"第{n}章" for n in range(few)])
    told(f"a new file of {few} rows, all dropped by the filter")
    lines = [*rows[:third]]
    lines[third // 2] = lines[third // 2] + ADDED.format(3)
    write(corpus / "b0.jsonl", lines)
    told("a row corrected in place")
    (corpus / "b1.jsonl").rename(corpus / "d1.jsonl")
    told("a file renamed")
    (corpus / "b2.jsonl").unlink()
    told("a file removed")


def steps(folder: Path, options: argparse.Namespace) -> None:
    rows, corpus = texts(options, options.rows), folder / "web"
    grown = web(folder, options)
    total = 0
    for step in range(10):
        write(corpus / f"part-{step:03d}.jsonl", rows[step::10])
        total += sum(grown.go().values())
    at_once = Grown(folder / "once", options.data, {"web": (corpus, "jsonl")}, ingest__shard_rows="100")
    print(f"asked: grown {total}, at once {sum(at_once.go().values())}")
    finals = [grown.path / "final", at_once.path / "final"]
    same = len({(final / "web.jsonl").read_bytes() for final in finals}) == 1
    ids = [[(row["id"], row["file"], row["row"]) for row in lineage.read(final)] for final in finals]
    only = [len(set(ids[0]) - set(ids[1])), len(set(ids[1]) - set(ids[0]))]
    print(f"final rows {len(ids[0])} and {len(ids[1])}; same bytes in the same order: {same}; in one only: {only}")


def store_bytes(folder: Path, options: argparse.Namespace) -> None:
    corpora = options.data / "corpora"
    run = Grown(folder, options.data, {name: (corpora / name, name) for name in ("wudao", "wanjuan", "skypile")})
    start = time.process_time()
    run.go()
    print(f"processor time of all stages but the models': {time.process_time() - start:.1f} s")
    store = RunFolder(run.path).store
    sizes = {path.name: _size(path) for path in sorted(store.iterdir()) if not path.name.startswith("stage1")}
    ingested = sum(
        len(record.text.encode())
        for path in store.glob("stage2_ingest-*")
        for record in shards.read_all(path, Document)
    )
    for name, size in sizes.items():
        print(f"  {name:<44}{size / ingested:8.3f}")
    models = sum(size for name, size in sizes.items() if name.startswith("stage2_lm"))
    total = sum(sizes.values()) - models
    print(f"store without models {total:,} bytes over {ingested:,} of ingested texts: {total / ingested:.2f}")


def small_files(folder: Path, options: argparse.Namespace) -> None:
    for number, text in enumerate(texts(options, 5000)):
        write(folder / "web" / f"page-{number:05d}.jsonl", [text])
    run = web(folder, options, ingest__shard_rows="1000")
    run.go()
    for path in sorted(RunFolder(run.path).store.iterdir()):
        if path.is_dir() and not path.name.startswith("stage1"):
            print(f"  {path.name:<44}{sum(1 for one in path.rglob('*') if one.is_file()):>6} files")


def status_time(folder: Path, options: argparse.Namespace) -> None:
    write(folder / "web" / "a.jsonl", texts(options, options.shards))
    run = web(folder, options, ingest__shard_rows="1", filter__near_duplicates="null")
    run.go()
    write(folder / "web" / "b.jsonl", texts(options, 1))
    command = [sys.executable, "-c", "from kun.cli.main import main; main()", "status", str(run.path)]
    start = time.monotonic()
    subprocess.run(command, check=False, capture_output=True, cwd=REPOSITORY)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"kun status on {options.shards:,} shards in each step, one new file: {time.monotonic() - start:.1f} s, "
        f"{used.ru_utime + used.ru_stime:.1f} s of the processor, {used.ru_maxrss / 1024:.0f} MB"
    )


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files)


if __name__ == "__main__":
    main()
