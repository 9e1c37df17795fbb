"""Faults at random moments of every stage, then a resumed run, which must end as one that was left alone.

    python -m tests.chaos 200 --seed 7            # or: make chaos N=200 SEED=7
    python -m tests.chaos --only 37 --seed 7      # one of these faults again

A fault strikes a copy of an uninterrupted run, as it was before the stage. After every step the rows are accounted for,
and after the resumed run every file is compared with the uninterrupted one. The faults are in tests/chaos/faults.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as kun does, before torch is imported
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models gain nothing by a second
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tests.chaos.bench import STAGES, Bench, SkippedError, UnexpectedError, Victim
from tests.chaos.faults import DECK, SIGNALS, STRIKES, Fault

TO_THE_END = 0.25  # share of the victims that go on to the final files; the others have gone far enough to know


@dataclass(frozen=True)
class Result:
    fault: Fault
    ended: str  # resumed, mended, remedy, refused ...; "" where the fault came too late
    lost: int
    doubled: int
    wrong: str = ""


def one(bench: Bench, number: int, fault: Fault, seed: int, to_the_end: float) -> Result | None:
    """Strike, resume, compare; None where this machine cannot, with the reason printed."""
    rng = random.Random(f"{seed} {number}")
    folder = bench.folder / "victims" / str(number)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run with --only
    victim = Victim(bench, folder)
    ended, wrong = "", ""
    try:
        ended = fault.strike(victim, fault, rng)
        if ended and rng.random() < to_the_end and victim.config is None:  # one with a corpus of its own is at the end
            victim.go_on_to_the_end()
    except SkippedError as why:
        print(f"{number:4} {fault}: skipped, {why}", flush=True)
        return None
    except UnexpectedError as problem:
        wrong = str(problem)
    except Exception:
        wrong = traceback.format_exc()
    finally:
        victim.unmount()
    if not wrong:
        shutil.rmtree(folder)
        folder.with_name(f"{folder.name}.txt").unlink()
    return Result(fault, ended, victim.lost, victim.doubled, wrong)


def deck(seed: int) -> list[Fault]:
    """Every kind in every stage, in random order; the strikes at an operation, of which there are hundreds, twice."""
    cards = [fault for fault in DECK for _ in range(2 if fault.kind in STRIKES else 1)]
    random.Random(seed).shuffle(cards)
    return cards


def table(results: list[Result]) -> str:
    width = max(len(result.fault.kind) for result in results)
    lines = [f"{'fault':<{width}} " + "".join(f"{stage:>8}" for stage in STAGES) + "   ended in"]
    for kind in dict.fromkeys(fault.kind for fault in DECK):
        own = [result for result in results if result.fault.kind == kind]
        if own:
            counts = Counter(result.fault.stage for result in own)
            endings = Counter(result.ended or "WRONG" for result in own)
            told = ", ".join(f"{ending} {count}" for ending, count in endings.most_common())
            lines.append(f"{kind:<{width}} " + "".join(f"{counts[stage] or '':>8}" for stage in STAGES) + f"   {told}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="?", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=20261121, help="of the order and the moments (default: %(default)s)"
    )
    parser.add_argument("--only", type=int, help="the fault of this number, with the same seed")
    parser.add_argument("--short", action="store_true", help="leave out what takes long: training, imports")
    parser.add_argument("--like", help="only faults whose kind or stage has this word")
    parser.add_argument("--to-the-end", type=float, default=TO_THE_END, help="share that goes on to final/")
    parser.add_argument("--folder", type=Path, help="to work in, and to leave what went wrong (default: a new one)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
    started = time.monotonic()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kun-chaos-"))
    print(f"seed {options.seed}, in {folder}", flush=True)
    bench = Bench.open(folder)
    print(f"uninterrupted run: {bench.told()}", flush=True)
    cards = [fault for fault in deck(options.seed) if (options.like or "") in str(fault)]
    if options.short:
        cards = [fault for fault in cards if fault.stage != "stage1" and fault.kind not in SIGNALS]
    numbers = [options.only] if options.only is not None else range(10 * options.faults)
    results: list[Result] = []
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C: the table of what was done
        for number in numbers:
            if len(results) >= options.faults:
                break
            begun = time.monotonic()
            result = one(bench, number, cards[number % len(cards)], options.seed, options.to_the_end)
            if result is None or (not result.ended and not result.wrong):
                continue
            results.append(result)
            told = f"WRONG: {result.wrong}" if result.wrong else result.ended
            print(f"{number:4} {result.fault}: {told} ({time.monotonic() - begun:.1f} s)", flush=True)
    wrong = [result for result in results if result.wrong]
    print(f"\n{table(results)}\n")
    print(
        f"{len(results)} faults, {len(wrong)} ended wrong; rows lost {sum(r.lost for r in results)}, doubled "
        f"{sum(r.doubled for r in results)}; all files identical: {'no' if wrong else 'yes'}; "
        f"{bench.ended} runs to the final files; seed {options.seed}, {time.monotonic() - started:.0f} s"
    )
    if not wrong and options.folder is None:
        shutil.rmtree(folder)
    return 1 if wrong or len(results) < (options.faults if options.only is None else 1) else 0


if __name__ == "__main__":
    sys.exit(main())
