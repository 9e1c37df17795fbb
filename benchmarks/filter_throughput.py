"""How fast stage 2 is, side by side with others in one run; every figure is a ratio with its target.

    python benchmarks/filter_throughput.py --data ../shared/data --work /tmp/throughput \
        --datatrove /tmp/dt/bin/python --juicer /tmp/dj/bin/python

bare     length + rules + perplexity, documents per second of CPU time, against bare `kenlm.Model.score` on the same
         texts, already normalised and split
others   the perplexity path against those of datatrove and of data-juicer: the same JSON lines, the same KenLM binary
         of SentencePiece pieces, filtered JSON lines out (perplexity_paths.py); and, for which they have no equal, the
         whole of stage 2 with one worker against the same; CPU seconds
workers  `kun run stage2` with two workers against one, seconds on the clock: needs two quiet cores
memory   `kun run stage2` on ten times the corpus against once: the largest resident memory of all processes together

Runs alternate, and the median counts. The texts are those of --data that length and rules keep, so that everyone scores
every one, numbered anew as often as it takes. --work keeps the language models from run to run. The other tools never
enter Kun's own environment; each wants one of its own:

    python3 -m venv /tmp/dt && /tmp/dt/bin/pip install 'datatrove[io,processing]==0.10.1' kenlm==0.3.0 sentencepiece
    python3 -m venv /tmp/dj && /tmp/dj/bin/pip install torch==2.13.0 &&
        /tmp/dj/bin/pip install py-data-juicer==1.6.1 kenlm==0.3.0 sentencepiece
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from kun.config.schema import Config
from kun.corpora import read_corpus
from kun.corpora.ingest import counted, documents, items
from kun.filters.perplexity import lm, lmplz
from kun.filters.perplexity.text import CHARACTERS, NORMALISATIONS
from kun.filters.rules import Rules, open_filter
from kun.records import Document, Filtered, Origin

REPOSITORY = Path(__file__).parents[1]
PARTS = ("bare", "others", "workers", "memory")
PIECES = 16000  # of the SentencePiece model
SHARD = 1000  # documents that are judged together, as by default


def main() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kun-throughput")
    parser.add_argument("--datatrove", type=Path, help="Python of an environment with datatrove")
    parser.add_argument("--juicer", type=Path, help="Python of an environment with data-juicer")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--documents", type=int, default=20000, help="of `bare`, `others` and once of `memory`")
    parser.add_argument("--worker-documents", type=int, default=60000, help="of `workers`")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not (arguments.data / "corpora").is_dir():
        sys.exit(f"--data: no folder {arguments.data / 'corpora'}")
    work = arguments.work
    prepare(arguments.data, work)
    texts = kept_texts(arguments.data, work)
    print(f"{len(texts):,} texts, {sum(map(len, texts)) / len(texts):.0f} characters on average")
    print("| measure | Kun | other | ratio | target |\n|---|---|---|---|---|", flush=True)
    for part in arguments.only:
        for line in {"bare": bare, "others": others, "workers": workers, "memory": memory}[part](arguments, texts):
            print(line, flush=True)


def row(measure: str, ours: str, theirs: str, ratio: float, target: str) -> str:
    return f"| {measure} | {ours} | {theirs} | {ratio:.2f} | {target} |"


# What is measured on


def prepare(data: Path, work: Path) -> None:
    """Fill `work`: `base` (a tokenizer), `chars-trie`, `chars-probing` (artefacts), `zh.sp.model`, `zh.arpa.bin`."""
    from kun.demo.tokens import build_tokenizer

    work.mkdir(parents=True, exist_ok=True)
    prose = data / "text/prose_zh.jsonl"
    build_tokenizer().save_pretrained(work / "base")
    for structure in ("trie", "probing"):
        if not (work / f"chars-{structure}" / lm.INFO).is_file():
            settings = {"estimate_from": str(prose), "structure": structure}
            lmplz.make(Config.model_validate({"filter": {"lm": settings}}).filter.lm, work / f"chars-{structure}")
    if not (work / "zh.arpa.bin").is_file():
        pieces_model([NORMALISATIONS["cc_net"](text) for text in lmplz.clean_texts(prose)], work)


def pieces_model(texts: list[str], work: Path) -> None:
    """A 5-gram model of SentencePiece pieces, as those of cc_net, of normalised texts."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(work / "zh.sp"),
        vocab_size=PIECES,
        character_coverage=0.9995,
        max_sentence_length=1 << 20,
        minloglevel=2,
    )
    encode = sentencepiece.SentencePieceProcessor(model_file=str(work / "zh.sp.model")).encode
    arpa, new = work / "zh.arpa", work / "zh.arpa.bin.new"
    lines = "".join(" ".join(" ".join(encode(text, out_type=str)).split()) + "\n" for text in texts)
    programs = [lmplz.find_program(name) for name in ("lmplz", "build_binary")]
    if None in programs:
        sys.exit("lmplz and build_binary are not here: make setup")
    command = [str(programs[0]), "-o", "5", "-S", "1G", "-T", str(work), "--discount_fallback", "--arpa", str(arpa)]
    subprocess.run(command, input=lines.encode(), check=True, stderr=subprocess.DEVNULL)
    subprocess.run([str(programs[1]), "probing", str(arpa), str(new)], check=True, stderr=subprocess.DEVNULL)
    arpa.unlink()
    new.rename(work / "zh.arpa.bin")


def configuration(work: Path, **settings: object) -> Config:
    return Config.model_validate({"base_model": str(work / "base"), "filter": settings})


def kept_texts(data: Path, work: Path) -> list[str]:
    """The texts of the corpora that everything but perplexity keeps."""
    judge = open_filter(configuration(work), None)
    names = ("wudao", "wanjuan", "skypile")
    corpora = {name: {"paths": [str(data / "corpora" / name)], "format": name} for name in names}
    config = Config.model_validate({"corpora": corpora})
    texts: list[str] = []
    for name, corpus in config.corpora.items():
        pieces = list(items(read_corpus(name, corpus)))
        made = [document for _, document in documents(name, pieces, counted(pieces)) if isinstance(document, Document)]
        texts += [outcome.text for outcome in judge(made) if isinstance(outcome, Filtered)]
    return texts


def numbered(texts: list[str], size: int) -> Iterator[str]:
    """`size` texts, none twice: from the second time on each carries the number of the time."""
    endless = (text if time_ == 0 else f"第{time_}回：{text}" for time_ in count() for text in texts)
    return islice(endless, size)


def write(path: Path, texts: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return path


# 1. Against bare KenLM


def bare(arguments: argparse.Namespace, texts: list[str]) -> Iterator[str]:
    made = [
        Document(id=f"{number:020x}", subset="web", text=text, origin=Origin("in.jsonl", number))
        for number, text in enumerate(numbered(texts, arguments.documents))
    ]
    for structure in ("trie", "probing"):
        artefact = arguments.work / f"chars-{structure}"
        model = lm.load(artefact / lmplz.MODEL)
        prepared = [CHARACTERS["kun"](document.text) for document in made]
        judge = open_filter(
            configuration(arguments.work, lm={"model": str(artefact)}, ppl_min=None, ppl_max=1e9), artefact
        )
        filter_all(judge, made[:100])

        def score(model: object = model, prepared: list[str] = prepared) -> None:
            for line in prepared:
                model.score(line)  # type: ignore[attr-defined]

        def judge_all(judge: Rules = judge) -> None:
            filter_all(judge, made)

        ours, theirs = alternate([judge_all, score], arguments.rounds)
        rates = [f"{len(made) / seconds:,.0f} documents/s" for seconds in (ours, theirs)]
        yield row(f"against bare kenlm, {structure}", rates[0], rates[1], theirs / ours, ">= 0.5")


def filter_all(judge: Rules, made: list[Document]) -> None:
    for start in range(0, len(made), SHARD):
        judge(made[start : start + SHARD])


def alternate(works: list[Callable[[], None]], rounds: int) -> list[float]:
    """Median CPU seconds of each, one after the other in each round."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, seconds, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [median(times) for times in seconds]


# 2. Against other tools


def others(arguments: argparse.Namespace, texts: list[str]) -> Iterator[str]:
    own = Path(sys.executable)
    pythons = {"kun": own, "kun_stage2": own, "datatrove": arguments.datatrove, "juicer": arguments.juicer}
    size, work = arguments.documents, arguments.work
    write(work / "in.jsonl", numbered(texts, size))
    write(work / "warm.jsonl", texts[:200])
    measured: dict[str, list[float]] = {tool: [] for tool, python in pythons.items() if python}
    for _ in range(arguments.rounds):
        for tool, times in measured.items():
            times.append(path_of(tool, pythons[tool], work)["cpu_s"])
    seconds = {tool: median(times) for tool, times in measured.items()}
    rates = {tool: f"{size / time_:,.0f} documents/s" for tool, time_ in seconds.items()}
    for tool in ("datatrove", "juicer"):
        if tool not in seconds:
            yield f"| {tool}: not measured, without --{tool} | | | | |"
            continue
        for ours, what, target in (("kun", "perplexity", ">= 2"), ("kun_stage2", "whole stage 2", "")):
            ratio = seconds[tool] / seconds[ours]
            yield row(f"{what} against {tool}'s perplexity", rates[ours], rates[tool], ratio, target)


def path_of(tool: str, python: Path, work: Path) -> dict[str, float]:
    script = Path(__file__).with_name("perplexity_paths.py")
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, script, tool, work], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{tool}: {python} {script} {tool} {work} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads((work / f"out-{tool}" / "seconds.json").read_bytes())
    print(f"  {tool}: {result}", file=sys.stderr)
    return result


# 3. Two workers, 4. memory


def workers(arguments: argparse.Namespace, texts: list[str]) -> Iterator[str]:
    source = write(arguments.work / "workers.jsonl", numbered(texts, arguments.worker_documents))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(arguments.rounds):
        for number, times in seconds.items():
            times.append(stage2(arguments.work, source, number)[0])
    one, two = median(seconds[1]), median(seconds[2])
    rates = [f"{arguments.worker_documents / time_:,.0f} documents/s" for time_ in (two, one)]
    yield row("two workers against one", rates[0], rates[1], one / two, ">= 1.8")


def memory(arguments: argparse.Namespace, texts: list[str]) -> Iterator[str]:
    peaks = []
    for times in (10, 1):
        source = write(arguments.work / f"memory-{times}.jsonl", numbered(texts, times * arguments.documents))
        peaks.append(stage2(arguments.work, source, 2)[1] / 2**20)
        source.unlink()
    sizes = [f"{peak:,.0f} MiB" for peak in peaks]
    yield row("memory, ten times the corpus against once", sizes[0], sizes[1], peaks[0] / peaks[1], "<= 1.1")


def stage2(work: Path, source: Path, number: int) -> tuple[float, int]:
    """`kun run stage2` with so many workers: seconds on the clock, and bytes of all its processes at their most.

    Limits rest on a sample of 2,000, as small a part as 20,000 are of a corpus of its proper size. Numbered copies are
    near-duplicates, which are not looked for.
    """
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    settings = {
        "run": str(run),
        "base_model": str(work / "base"),
        "workers": number,
        "corpora": {"web": {"paths": [str(source)], "format": "jsonl"}},
        "filter": {"lm": {"model": str(work / "chars-trie")}, "sample": 2000, "near_duplicates": None},
    }
    (work / "config.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-c", "from kun.cli.main import main; main()", "run", "stage2", "--config"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    start, peak = time.perf_counter(), 0
    with (work / "run.log").open("w+") as log:
        process = psutil.Popen([*command, str(work / "config.yaml")], stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            peak = max(peak, resident(process))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        log.seek(0)
        said = log.read()
    if process.returncode:
        sys.exit(f"kun run stage2 failed:\n{said[-3000:]}")
    print(f"  {number} workers: {seconds:.1f} s, {peak / 2**20:.0f} MiB; {said.splitlines()[-2]}", file=sys.stderr)
    return seconds, peak


def resident(process: psutil.Process) -> int:
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


if __name__ == "__main__":
    main()
