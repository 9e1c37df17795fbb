"""The faults of tests.chaos: `fault.strike(victim, fault, rng)` strikes, resumes, compares, and tells how it ended.

"" where it came too late: the run had ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from kun.dataset import lineage
from tests.chaos import checks
from tests.chaos.bench import STAGES, STOPPED, UnexpectedError, Victim
from tests.chaos.strike.sitecustomize import CREATES
from tests.runs import kun

KILLED, INTERRUPTED, REFUSED = -signal.SIGKILL, 130, 2
FULL, FAILS = "the disk is full: free some space", "Input/output error"


@dataclass(frozen=True)
class Fault:
    kind: str
    stage: str
    strike: Callable[[Victim, Fault, random.Random], str]

    def __str__(self) -> str:
        return f"{self.stage} {self.kind}"


# At an operation of the process on files: what strikes, the status, what is said.

STRIKES: dict[str, tuple[str, int, str]] = {
    "killed at an operation": ("kill", KILLED, ""),
    "power lost at a flush": ("torn", KILLED, ""),
    "SIGTERM at an operation": ("term", INTERRUPTED, STOPPED),
    "Ctrl-C at an operation": ("int", INTERRUPTED, STOPPED),
    "Ctrl-C and SIGTERM at once": ("twice", INTERRUPTED, STOPPED),
    "no space from an operation on": ("full", REFUSED, FULL),
    "an operation fails (EIO)": ("eio", REFUSED, FAILS),
}


def at_an_operation(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """Now and then the resumed run is struck again."""
    what, code, says = STRIKES[fault.kind]
    victim.fresh(fault.stage)
    victim.end(victim.start(fault.stage, spec(victim, fault.stage, what, rng)), (code,), says)
    victim.check()
    if rng.random() < 0.3:
        again = spec(victim, fault.stage, "kill", rng)
        victim.end(victim.start(fault.stage, again), (KILLED, 0))  # what is left to do may have less operations
        victim.check()
    return resumed(victim, fault.stage)


def spec(victim: Victim, stage: str, what: str, rng: random.Random) -> dict[str, object]:
    """A random operation of the stage that can be struck so."""
    operations = victim.bench.operations[stage]
    can = {
        "full": lambda name, path: name in CREATES,
        "torn": lambda name, path: name == "fsync" and "." in Path(path).name,  # no folder
        "eio": lambda name, path: name != "os.mkdir",  # pathlib takes no notice where the folder is there
    }.get(what, lambda name, path: True)
    places = [place for place, operation in enumerate(operations, 1) if can(*operation)]
    if what == "stop":  # once it has the lock
        places = [place for place in places if operations[place - 1][1].endswith("config.yaml")][-1:] + places[20:]
    return {"at": rng.choice(places), "what": what, "worker": False}


def resumed(victim: Victim, stage: str) -> str:
    ended = victim.resume(stage)
    victim.compare(stage)
    return ended


def worker_at_an_operation(victim: Victim, fault: Fault, rng: random.Random) -> str:
    what, says = {
        "worker killed at an operation": ("kill", "a worker process was killed"),
        "no space in a worker": ("full", FULL),
    }[fault.kind]
    victim.fresh(fault.stage)
    struck = {"at": rng.randrange(1, 12), "what": what, "worker": True}
    ended = victim.end(victim.start(fault.stage, struck, workers=2), (REFUSED, 0), says)  # 0: none of them did so much
    victim.check()
    return resumed(victim, fault.stage) if ended.code else ""


# At a random moment, from outside, of a process that is no fork: also while it imports libraries.

SIGNALS = ("kill -9", "kill -9 of the group", "SIGTERM", "Ctrl-C", "Ctrl-C twice")


def at_a_moment(victim: Victim, fault: Fault, rng: random.Random) -> str:
    victim.fresh(fault.stage)
    run = victim.start(fault.stage, own=True, workers=2)
    time.sleep(rng.uniform(0.1, victim.bench.seconds[fault.stage]))
    if not run.running():
        return ""
    lock = victim.run / "lock"
    begun = lock.exists() and f"process {run.pid} " in lock.read_text()
    number = {"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(fault.kind.split()[0], signal.SIGINT)
    (os.kill if fault.kind in ("kill -9", "SIGTERM") else os.killpg)(run.pid, number)
    if fault.kind == "Ctrl-C twice":
        time.sleep(rng.uniform(0.0, 0.3))
        if run.running():
            os.killpg(run.pid, number)
    if number == signal.SIGKILL:
        victim.end(run, (KILLED,))
    elif begun:
        ended = victim.end(run, (INTERRUPTED, 0, -number), STOPPED)  # 0: it had just ended
        if ended.code == -number and not re.search(r"^(next: |complete)", ended.said, re.MULTILINE):
            raise UnexpectedError(f"the signal ended it without a word: {ended.said}")  # else Python was ending
    else:
        run.end()  # Python was starting: no word of Kun's yet
    victim.check()
    return resumed(victim, fault.stage)


def worker_at_a_moment(victim: Victim, fault: Fault, rng: random.Random) -> str:
    victim.fresh(fault.stage)
    run = victim.start(fault.stage, workers=2)
    until = time.monotonic() + rng.uniform(0.0, victim.bench.seconds[fault.stage])
    struck = False
    while run.running() and not struck:
        if time.monotonic() > until and (workers := _workers(run.pid)):
            rng.choice(workers).kill()
            struck = True
        time.sleep(0.005)
    ended = victim.end(run, (REFUSED, 0), "kun: ")  # 0: it had just ended
    victim.check()
    return resumed(victim, fault.stage) if struck and ended.code else ""


def _workers(pid: int) -> list[psutil.Process]:
    """Without the resource tracker of multiprocessing, and those that end at this moment."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            found += [child] if "--multiprocessing-fork" in child.cmdline() else []
    return found


# Others


def full_file_system(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """A real one, which is full somewhere in the stage, and then larger."""
    before = (None, *STAGES)[STAGES.index(fault.stage)]
    used = _blocks(victim.bench.copy(before)) if before else 0
    growth = _blocks(victim.bench.copy(fault.stage)) - used
    victim.mount(used + 2**15 + int(growth * rng.uniform(0.05, 0.9)))
    victim.fresh(fault.stage)
    ended = victim.end(victim.start(fault.stage), (REFUSED, 0), "kun: ")
    if ended.code == 0:
        return ""
    if FULL not in ended.said and "No space left" not in ended.said:
        raise UnexpectedError(f"the disk is full, and it said: {ended.said}")
    victim.check()
    victim.enlarge()
    return resumed(victim, fault.stage)


def _blocks(folder: Path) -> int:
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def two_at_once(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """The first is stopped in the middle; the second is refused, changes nothing; the first goes on, or is killed."""
    victim.fresh(fault.stage)
    first = victim.start(fault.stage, spec(victim, fault.stage, "stop", rng))
    first.output = first.output.rename(victim.folder / "first.txt")
    if not first.stopped():
        return ""
    before = _stamps(victim.run)
    victim.end(victim.start(fault.stage), (REFUSED,), f"in use by 'kun run {fault.stage}")
    if _stamps(victim.run) != before:
        raise UnexpectedError("the second run changed something")
    killed = rng.random() < 0.5
    os.kill(first.pid, signal.SIGKILL if killed else signal.SIGCONT)
    victim.end(first, (KILLED,) if killed else (0,))
    victim.check()
    resumed(victim, fault.stage)
    return "refused"


def _stamps(run: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_ctime_ns) for path in run.rglob("*")}


def clock_set_back(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """Killed, then resumed by a clock that is years behind; and all files are from the future."""
    victim.fresh(fault.stage)
    victim.end(victim.start(fault.stage, spec(victim, fault.stage, "kill", rng)), (KILLED,))
    future = time.time() + rng.uniform(1e5, 1e8)
    for path in (*victim.run.rglob("*"), *(victim.bench.folder / "world").rglob("*")):
        os.utime(path, (future, future), follow_symlinks=False)
    ended = victim.resume(fault.stage, spec={"at": 0, "what": "nothing", "clock": -1e8})
    victim.compare(fault.stage)
    return ended


# Damage to what is finished. A harm changes one thing below the run, and gives its path.


def a_file(run: Path, stage: str, rng: random.Random, pattern: str, shards: bool = True) -> Path:
    """A random file, with something in it, of the steps of the stage that have shards, or of those that have none."""
    links = [link for name in sorted(run.glob(f"{stage}_*")) for link in sorted(name.iterdir())]
    folders = [link.resolve() for link in links if any(link.glob("part-*.done.json")) == shards]
    files = [path for folder in folders for path in sorted(folder.glob(pattern)) if path.stat().st_size]
    return rng.choice([path for path in files if path.name not in ("fingerprint.json", DONE) or path.name == pattern])


def truncate(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def astray(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(["nowhere", "../store"]))


HARMS = {"truncated": truncate, "byte flipped": flip, "deleted": delete, "astray": astray}
KEPT, REJECTS, SHARD, DONE = "part-????????????????.jsonl", "part-*.rejects.jsonl", "part-*.done.json", "done.json"
OF_RECORDS = {
    f"{name}: {how}": (pattern, how)
    for name, pattern in (("shard", KEPT), ("rejects", REJECTS), ("shard's marker", SHARD), ("step's marker", DONE))
    for how in ("truncated", "byte flipped", "deleted")
}
OF_FILES = {f"model or index: {how}": ("*", how) for how in ("truncated", "byte flipped", "deleted")}
OF_FILES["its marker: truncated"] = (DONE, "truncated")
OF_ALL = {"fingerprint: byte flipped": ("fingerprint.json", "byte flipped")}


def to_a_finished_file(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """Then the stage is run again, and one that reads it. What nothing reads any more is left to `kun verify`."""
    shards = fault.kind in OF_RECORDS
    pattern, how = (OF_RECORDS if shards else OF_FILES)[fault.kind]
    reader = {"stage1": rng.choice(["stage3", "stage4"]), "stage5": "stage5"}.get(fault.stage)
    reader = reader or STAGES[STAGES.index(fault.stage) + 1]
    victim.fresh("end" if reader == "stage5" and fault.stage == "stage5" else reader)
    path = a_file(victim.run, fault.stage, rng, pattern, shards)
    if fault.stage in ("stage2", "stage4") and rng.random() < 0.6:  # a later step of the same stage has not been made
        _forget_steps_after(victim.run, path.parent)
    HARMS[how](path, rng)
    ended = victim.resume(fault.stage, reader)
    if str(path.relative_to(victim.run)) in checks.differences(victim.run, victim.bench.after[reader]):
        if path.name == DONE:
            raise UnexpectedError(f"{path} is still damaged")
        marker = path.with_name(path.name.partition(".")[0] + ".done.json")
        marker.unlink(missing_ok=True) if shards else shutil.rmtree(path.parent)  # as `kun verify` says
        victim.resume(fault.stage, reader)
        ended = "left to verify"
    victim.compare(reader)
    return ended


def _forget_steps_after(run: Path, folder: Path) -> None:
    stage = folder.name.split("-")[0]
    order = ["stage2_index", "stage2_ingest", "stage2_lm", "stage2_quality", "stage2_perplexity", "stage2_duplicates"]
    order += ["stage2_filter"]
    order += ["stage4_judge", "stage4_verdicts", "stage4_spread", "stage4_score"]
    for later in order[order.index(stage) + 1 :]:
        if later.split("_")[0] == stage.split("_")[0] and later != "stage2_lm":
            for path in (run / "store").glob(f"{later}-*"):
                shutil.rmtree(path)


def to_what_is_around(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """Damage to what a run has beside its shards: nothing that is finished is made again for it."""
    stage = fault.stage
    following = STAGES[STAGES.index(stage) + 1] if stage != "stage5" else "stage5"
    victim.fresh(following if stage != "stage5" else "end")
    run = victim.run
    what, how = fault.kind.split(": ")
    links = [link for name in sorted(run.glob(f"{stage}_*")) for link in sorted(name.iterdir())]
    match what:
        case "plain name":
            HARMS[how](rng.choice(links), rng)
        case "fingerprint":
            HARMS[how](rng.choice(links) / "fingerprint.json", rng)
        case "digests of the input":
            HARMS[how](run / "store" / "digests.json", rng)
        case "temporary files":
            for path in (run / ".config.yaml.tmp", run / "store/.digests.json.tmp", links[0].parent / ".wudao.tmp"):
                path.write_bytes(b"half")
            (run / "store" / ".final-abc.tmp").mkdir()
            (run / "store" / ".final-abc.tmp" / ".wudao.jsonl.tmp").write_bytes(b"half")
        case "final":
            HARMS[how](run / "final" if how == "astray" else rng.choice(sorted((run / "final").iterdir())), rng)
    stores = {path.name for path in (run / "store").iterdir()}
    ended = victim.resume(stage, following)
    if what == "final" and how == "byte flipped" and _card_differs(victim):
        (run / "final").unlink()  # the card has no digest of itself: nothing but a comparison tells
        ended = victim.resume(stage) + " (card)"
    victim.compare(following)
    if not stores <= {path.name for path in (run / "store").iterdir()} | {".final-abc.tmp", ".digests.json.tmp"}:
        raise UnexpectedError("a step went away")
    return "mended" if ended == "resumed" else ended


def _card_differs(victim: Victim) -> bool:
    final = (victim.run / "final").readlink()
    name = f"{final}/README.md"
    return (victim.run / name).read_bytes() != victim.bench.after["stage5"][name]


AROUND = [f"plain name: {how}" for how in ("deleted", "astray")]
AROUND += [f"fingerprint: {how}" for how in ("truncated", "byte flipped", "deleted")]
AROUND += [f"digests of the input: {how}" for how in ("truncated", "byte flipped", "deleted")]
AROUND += ["temporary files: left"]
FINAL = [f"final: {how}" for how in ("truncated", "byte flipped", "deleted", "astray")]


def to_a_checkpoint(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """The training is killed some operations after a checkpoint was sealed, and that is damaged."""
    operations = victim.bench.operations["stage1"]
    sealed = [n for n, (name, path) in enumerate(operations, 1) if name == "os.rename" and path.endswith("/complete")]
    victim.fresh("stage1")
    killed = {"at": rng.choice(sealed) + 2, "what": "kill", "worker": False}
    victim.end(victim.start("stage1", killed), (KILLED,))
    checkpoints = sorted(victim.run.glob("store/*/work/checkpoint-*"))
    files = sorted(path for folder in checkpoints for path in folder.rglob("*") if path.is_file())
    harmed = rng.choice([path for path in files if path.stat().st_size])
    HARMS[fault.kind.split(": ")[1]](harmed, rng)
    counted = any((folder / "complete").exists() and harmed.is_relative_to(folder) for folder in checkpoints)
    ended = resumed(victim, "stage1")
    if counted and ended != "mended":
        raise UnexpectedError(f"{harmed} was damaged, and nothing was said of that")
    return ended


# A corpus that changes between runs, one of which is killed; compared with a run at once of what it is in the end.


def corpus_changes(victim: Victim, fault: Fault, rng: random.Random) -> str:
    """The whole run, then a change, a run that is killed, perhaps another change, and a run to the end."""
    victim.fresh("end")
    world, corpora = victim.bench.folder / "world", victim.folder / "world" / "corpora"
    shutil.copytree(world / "corpora", corpora)
    text = victim.bench.config.read_text(encoding="utf-8")
    victim.config = victim.folder / "small.yaml"
    victim.config.write_text(text.replace(str(world / "corpora"), str(corpora)), encoding="utf-8")
    CHANGES[fault.kind.split(": ")[1]](corpora / "skypile", rng)
    killed = {"at": rng.randrange(5, 250), "what": "kill", "worker": False}
    ended = victim.end(victim.start("all", killed), (KILLED, 0))  # 0: it had less to do
    victim.check()
    if rng.random() < 0.5:
        CHANGES[rng.choice([*CHANGES])](corpora / "skypile", rng)
    how = victim.resume("all")
    victim.check()
    found = json.loads(kun(victim.folder, "verify", "run", "--json").stdout)
    if not found["ok"]:
        raise UnexpectedError(f"verify says {[one for one in found['steps'] if one['state'] == 'bad']}")
    at_once = Victim(victim.bench, victim.folder / "at_once", config=victim.config)
    at_once.fresh("stage2")
    at_once.resume("all")
    for path in sorted((at_once.run / "final").glob("*.jsonl")):
        if (victim.run / "final" / path.name).read_bytes() != path.read_bytes():
            raise UnexpectedError(f"{path.name} is not what a run at once has")
    if _where(victim.run) != _where(at_once.run):
        raise UnexpectedError("ids, files or rows of the lineage are not those of a run at once")
    return how if ended.code else f"{how}, not killed"


def _where(run: Path) -> list[tuple[str, str, int]]:
    return [(row["id"], row["file"], row["row"]) for row in lineage.read(run / "final")]


def _lines(folder: Path, rng: random.Random) -> tuple[Path, list[bytes]]:
    path = rng.choice(sorted(folder.glob("*.jsonl")))
    return path, path.read_bytes().splitlines(keepends=True)


def add(folder: Path, rng: random.Random) -> None:
    """A new file, somewhere in the order, with texts that are there already and new ones."""
    _, lines = _lines(folder, rng)
    new = [line.replace("。".encode(), "！".encode(), 1) for line in rng.sample(lines, len(lines) // 2)]
    path = folder / f"{rng.choice('09a')}{rng.randrange(10**6)}.jsonl"
    path.write_bytes(b"".join([*new, *lines[:2]]))


def replace_rows(folder: Path, rng: random.Random) -> None:
    path, lines = _lines(folder, rng)
    place = rng.randrange(len(lines) or 1)
    lines[place : place + 1] = [lines[place].replace("。".encode(), "，真的。".encode(), 1)] if lines else []
    path.write_bytes(b"".join(lines))


def cut_off(folder: Path, rng: random.Random) -> None:
    path, _ = _lines(folder, rng)
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


def append(folder: Path, rng: random.Random) -> None:
    path, lines = _lines(folder, rng)
    with path.open("ab") as file:
        file.writelines(line.replace("，".encode(), "；".encode(), 1) for line in lines[:3])


def remove(folder: Path, rng: random.Random) -> None:
    paths = sorted(folder.glob("*.jsonl"))
    (rng.choice(paths).unlink if len(paths) > 1 else paths[0].touch)()


def rename(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(folder.glob("*.jsonl")))
    path.rename(folder / f"{rng.choice('09a')}{rng.randrange(10**6)}.jsonl")


CHANGES = {
    "added": add,
    "replaced": replace_rows,
    "truncated": cut_off,
    "appended": append,
    "removed": remove,
    "renamed": rename,
}

DECK = [
    *(Fault(f"corpus: {how}", "stage2", corpus_changes) for how in CHANGES for _ in range(2)),
    *(Fault(kind, stage, at_an_operation) for kind in STRIKES for stage in STAGES),
    *(
        Fault(kind, "stage2", worker_at_an_operation)
        for kind in ("worker killed at an operation", "no space in a worker")
    ),
    *(Fault(kind, stage, at_a_moment) for kind in SIGNALS for stage in STAGES),
    Fault("worker killed at a moment", "stage2", worker_at_a_moment),
    *(Fault("file system full", stage, full_file_system) for stage in STAGES),
    *(Fault("two runs at once", stage, two_at_once) for stage in STAGES),
    *(Fault("clock set back", stage, clock_set_back) for stage in STAGES),
    *(Fault(kind, stage, to_a_finished_file) for kind in OF_RECORDS for stage in STAGES[1:]),
    *(Fault(kind, stage, to_a_finished_file) for kind in OF_FILES for stage in STAGES[:2]),
    *(Fault(kind, stage, to_what_is_around) for kind in AROUND for stage in STAGES),
    *(Fault(kind, "stage5", to_what_is_around) for kind in FINAL),
    *(Fault(f"checkpoint: {how}", "stage1", to_a_checkpoint) for how in ("truncated", "byte flipped", "deleted")),
]
