"""The uninterrupted run and its copies: `Victim(Bench.open(folder), folder).fresh("stage3")`, struck and resumed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import checks
from tests.chaos.runs import Ended, Run, start
from tests.forking import kun_with_models
from tests.runs import kun, small_world

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
SETTINGS = ["--ingest.shard_rows", "5", "--train.sft.save_steps", "3"]
SETTINGS += ["--label.max_chars", "22", "--polish.sampling.max_tokens", "120"]  # so that every stage rejects some
STOPPED = "kun: stopped; what is finished is kept"


class UnexpectedError(Exception):
    """What must not happen."""


class SkippedError(Exception):
    """This machine cannot do it, for this reason."""


@dataclass
class Bench:
    """`operations`: those of each stage on files (name, path); `seconds`: of each stage as a process of its own;
    `after`: the content of the run after each stage."""

    folder: Path
    config: Path
    operations: dict[str, list[list[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    after: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ended: int = 0

    @staticmethod
    def open(folder: Path) -> Bench:
        """Make the world, the uninterrupted run, and a copy of it after each stage, as far as they are not there."""
        begun = time.monotonic()
        kun_with_models()
        importing = time.monotonic() - begun
        bench, whole = Bench(folder, folder / "small.yaml"), folder / "whole"
        seconds = folder / "seconds.json"  # written last
        if seconds.exists():
            bench.seconds = json.loads(seconds.read_bytes())
        else:
            small_world(folder, documents=14, seeds=60)
            clean = folder / "world" / "clean.jsonl"
            clean.write_bytes(b"".join(clean.read_bytes().splitlines(keepends=True)[:2000]))
            whole.mkdir()
        for stage in STAGES:
            log = folder / f"{stage}.operations"
            if not seconds.exists():
                ended = start(bench.arguments(stage), whole, {"what": "count", "log": str(log)}).end()
                if ended.code or not checks.account(whole / "run").good:
                    raise UnexpectedError(f"{stage}, uninterrupted: {ended.said}")
                bench.seconds[stage] = ended.seconds + (0.5 if stage == "stage2" else importing)
                shutil.copytree(whole / "run", bench.copy(stage), symlinks=True)
            bench.operations[stage] = [line.split(" ", 1) for line in log.read_text("utf-8").splitlines()]
            bench.after[stage] = checks.content(bench.copy(stage))
        seconds.write_text(json.dumps(bench.seconds))
        if not all((whole / "run" / "final" / f"{name}.jsonl").stat().st_size for name in ("wudao", "skypile")):
            raise UnexpectedError("the uninterrupted run ends without rows")
        return bench

    def arguments(self, stage: str, workers: int = 1, config: Path | None = None) -> list[str]:
        return ["run", stage, "--config", str(config or self.config), "--workers", str(workers), *SETTINGS]

    def copy(self, stage: str) -> Path:
        return self.folder / "after" / stage

    def told(self) -> str:
        counts = [f"{stage} {len(self.operations[stage])} operations" for stage in STAGES]
        seconds = sum(self.seconds.values())
        return f"{', '.join(counts)}; {seconds:.0f} s as processes of their own"


@dataclass
class Victim:
    bench: Bench
    folder: Path
    lost: int = 0
    doubled: int = 0
    mounted: bool = False
    config: Path | None = None  # of its own, where its corpora change

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def fresh(self, stage: str) -> None:
        """The uninterrupted run as it was before the stage; `end` for all of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        before = (None, *STAGES)[(*STAGES, "end").index(stage)]
        if before:
            shutil.copytree(self.bench.copy(before), self.run, symlinks=True)
        else:
            self.run.mkdir()

    def start(self, stage: str, spec: dict[str, Any] | None = None, own: bool = False, workers: int = 1) -> Run:
        return start(self.bench.arguments(stage, workers, self.config), self.folder, spec, own)

    def end(self, run: Run, codes: tuple[int, ...], says: str = "") -> Ended:
        """The end of a run that was struck: the status, what was said, no traceback, nothing that goes on, all rows."""
        ended = run.end()
        if ended.code not in codes:
            raise UnexpectedError(f"status {ended.code}, not {codes}: {ended.said}")
        if "Traceback" in ended.said or (ended.code > 0 and says not in ended.said):
            raise UnexpectedError(f"it said: {ended.said}")
        if ended.left:
            raise UnexpectedError(f"{ended.left} processes went on")
        return ended

    def check(self) -> None:
        """All rows of what is there, none twice, no half file."""
        account = checks.account(self.run)
        self.lost += account.lost
        self.doubled += account.doubled
        if not account.good:
            raise UnexpectedError(f"lost {account.lost}, doubled {account.doubled}; {'; '.join(account.wrong)}")

    def resume(self, *stages: str, spec: dict[str, Any] | None = None) -> str:
        """Run the stages to their end, following the remedy that an error names, and compare. How it ended."""
        ended = "resumed"
        todo = [*stages]
        while todo:
            result = self.end(self.start(todo[0], spec), (0, 2), says="kun: ")
            if "it is made again" in result.said or "the checkpoint is damaged" in result.said:
                ended = "mended"
            if result.code == 2:
                if ended == "remedy":
                    raise UnexpectedError(f"the remedy does not help: {result.said}")
                ended = "remedy"
                todo.insert(0, self.follow(result.said))
                continue
            todo.pop(0)
        return ended

    def follow(self, said: str) -> str:
        """Do what the message says; the stage that it says to run."""
        if found := re.search(r"kun: (\S+): .*delete the folder and run `kun run (\w+)`", said):
            shutil.rmtree(self.folder / found[1])
            return found[2]
        if found := re.search(r"kun: (\S+): the shard is .*`kun verify (\S+)` tells how to make it again", said):
            steps = json.loads(kun(self.folder, "verify", found[2], "--json").stdout)["steps"]
            folder = (self.folder / found[1]).parent.resolve()
            (remedy,) = [one["remedy"] for one in steps if (self.folder / one["folder"]).resolve() == folder]
            discard, _, again = remedy.rpartition(" && ")
            subprocess.run(discard, shell=True, check=True, cwd=self.folder)
            return re.search(r"kun run (\w+)", again)[1]
        raise UnexpectedError(f"an error without a remedy: {said}")

    def compare(self, stage: str) -> None:
        """The whole run folder with the uninterrupted one after that stage."""
        self.check()
        if other := checks.differences(self.run, self.bench.after[stage]):
            raise UnexpectedError(f"{len(other)} files are not as in the uninterrupted run: {', '.join(other[:8])}")

    def go_on_to_the_end(self) -> None:
        """To the final files; then there is nothing left to do."""
        self.resume("all")
        self.compare(STAGES[-1])
        said = self.end(self.start("all"), (0,)).said
        if any(line.startswith("stage") and not line.endswith("nothing to do") for line in said.splitlines()):
            raise UnexpectedError(f"a finished run does something again: {said}")
        self.compare(STAGES[-1])
        self.bench.ended += 1

    def mount(self, size: int) -> None:
        """A file system of so many bytes where the run will be; SkippedError where that needs a right."""
        self.folder.mkdir(parents=True)
        options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder)]
        try:
            done = subprocess.run(options, capture_output=True, text=True)
        except FileNotFoundError:
            raise SkippedError("there is no program mount") from None
        if done.returncode:
            raise SkippedError(f"a file system cannot be mounted here: {done.stderr.strip()}")
        self.mounted = True

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=4g", str(self.folder)], check=True)

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
