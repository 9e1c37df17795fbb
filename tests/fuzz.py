"""Fuzzing: `python tests/fuzz.py [TARGET ...] --inputs 100000 --seed 1`; `make fuzz N=100000`. One line per target.

Inputs are made from seed, target and number alone, valid files that are then broken (tests/fuzzing/inputs.py); each
target runs in a process of its own, so that a crash of a library costs one input. Every failure is printed with the
command that shows it again: `--only NUMBER`. `--guided SECONDS` hands the same targets to atheris (libFuzzer), which
looks for bytes that reach new lines: for pure Python code, where the seeded inputs find nothing more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

LIMIT = 5.0  # CPU seconds of one input
STUCK = 20  # CPU seconds after which the process of an input is ended, where a call of C never returns
WATCH = 600.0  # seconds without a report, after which it is ended: it waits for something
MEMORY = 500  # MB at the peak of a process
CHUNK = 200  # inputs between two reports of a process


class Hang(BaseException):
    """Not an Exception: no handler of the code under test may swallow it."""


@dataclass
class Report:
    """What became of the inputs of one target. `slowest`: seconds, number; `failures`: number, what, where."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    peak: float = 0.0

    def add(self, other: Report) -> None:
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.peak = max(self.peak, other.peak)

    def line(self, name: str) -> str:
        hangs = sum(what.startswith("hang") for _, what, _ in self.failures)
        said = ", ".join(f"{outcome} {number:,}" for outcome, number in self.outcomes.most_common(14))
        return (
            f"{name:<16}{self.inputs:>8,} inputs {len(self.failures) - hangs} crashes {hangs} hangs; slowest "
            f"{1000 * self.slowest[0]:.0f} ms (number {self.slowest[1]}); peak {self.peak:.0f} MB; {said}"
        )


def run(name: str, seed: int, numbers: range) -> Report:
    """The inputs of one target, in this process."""
    from tests.fuzzing.inputs import rng_of
    from tests.fuzzing.targets import TARGETS, outcomes

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    report = Report()
    for number in numbers:
        start = time.process_time()
        try:
            data = TARGETS[name].make(rng_of(seed, name, number))
            signal.setitimer(signal.ITIMER_PROF, LIMIT)
            resource.setrlimit(resource.RLIMIT_CPU, (int(start) + STUCK, resource.RLIM_INFINITY))
            report.outcomes.update(outcomes(TARGETS[name], data))
        except Hang:
            report.failures.append((number, f"hang: over {LIMIT:g} s", ""))
        except Exception as error:
            report.failures.append((number, f"{type(error).__name__}: {str(error)[:200]}", traceback.format_exc()))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        report.slowest = max(report.slowest, (time.process_time() - start, number))
        report.inputs += 1
    report.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return report


def _process(name: str, seed: int, first: int, inputs: int, pipe: Any) -> None:
    from tests.fuzzing.targets import folder

    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))  # or a bomb would take the machine with it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        for start in range(first, inputs, CHUNK):
            pipe.send(run(name, seed, range(start, min(start + CHUNK, inputs))))
    finally:
        shutil.rmtree(folder(), ignore_errors=True)


def fuzz(name: str, seed: int, inputs: int) -> Report:
    """All inputs of one target; a chunk that its process does not survive is run again, one by one."""
    report, context = Report(), multiprocessing.get_context("spawn")
    while report.inputs < inputs:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_process, args=(name, seed, report.inputs, inputs, theirs))
        process.start()
        theirs.close()
        try:
            while report.inputs < inputs and ours.poll(WATCH):
                report.add(ours.recv())
        except EOFError:
            pass
        if report.inputs < inputs:
            process.kill()
            process.join()
            report.add(_one_by_one(name, seed, range(report.inputs, min(report.inputs + CHUNK, inputs))))
        process.join()
    return report


def _one_by_one(name: str, seed: int, numbers: range) -> Report:
    report, context = Report(), multiprocessing.get_context("fork")
    for number in numbers:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=lambda n=number, pipe=theirs: pipe.send(run(name, seed, range(n, n + 1))))
        process.start()
        theirs.close()
        try:
            found = ours.recv() if ours.poll(WATCH) else Report(1, failures=[(number, f"hang: over {WATCH:g} s", "")])
        except EOFError:
            process.join()
            found = Report(1, failures=[(number, f"the process ended with {process.exitcode}", "")])
        process.kill()
        process.join()
        report.add(found)
    return report


def guided(name: str, seed: int, seconds: int) -> None:
    """libFuzzer on one target, from 500 seeded inputs on; it ends the process at the first failure."""
    import tempfile

    import atheris

    with atheris.instrument_imports(include=["kun"]):
        from tests.fuzzing.inputs import rng_of
        from tests.fuzzing.targets import TARGETS, outcomes
    corpus = Path(tempfile.mkdtemp(prefix="kun-guided-"))
    for number in range(500):
        (corpus / str(number)).write_bytes(TARGETS[name].make(rng_of(seed, name, number)))
    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=10", "-rss_limit_mb=2000", "-max_len=4096"]
    atheris.Setup(
        [sys.argv[0], *options, f"-artifact_prefix={corpus}/", str(corpus)],
        lambda data: outcomes(TARGETS[name], data) and None,
    )
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, where none is named")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="show one input and what becomes of it")
    parser.add_argument("--guided", type=int, metavar="SECONDS", help="by coverage, with atheris")
    arguments = parser.parse_args()
    if arguments.guided:
        guided(arguments.targets[0], arguments.seed, arguments.guided)
    from tests.fuzzing.targets import TARGETS

    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; targets: {', '.join(TARGETS)}")
    names = arguments.targets or list(TARGETS)
    if arguments.only is not None:
        from tests.fuzzing.inputs import rng_of

        for name in names:
            print(name, TARGETS[name].make(rng_of(arguments.seed, name, arguments.only)))
            report = run(name, arguments.seed, range(arguments.only, arguments.only + 1))
            print(report.line(name), *(trace for *_, trace in report.failures), sep="\n")
        return
    failed = False
    for name in names:
        report = fuzz(name, arguments.seed, arguments.inputs)
        print(report.line(name), flush=True)
        for number, what, _ in report.failures[:10]:
            print(f"    number {number}: {what}", flush=True)
        failed |= bool(report.failures) or report.peak > MEMORY
    sys.exit(failed)


if __name__ == "__main__":
    main()
