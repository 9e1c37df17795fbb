"""The steps of a run as its folder tells them, without configuration, corpora or models: `find(Path("runs/demo"))`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kun.dataset import lineage
from kun.errors import InputError
from kun.pipeline.run_folder import (
    MARKERS,
    NEEDS,
    Fingerprint,
    StepInfo,
    StepManifest,
    folder_name,
    is_need,
    read_manifest,
)
from kun.pipeline.stage import Role
from kun.records import Raw
from kun.store import digests, markers, shards
from kun.verify.part import Problem

Key = tuple[str, str]  # the name of a step, stage/part, and its fingerprint
FINGERPRINTED = re.compile(r"(?P<name>.+)-(?P<digest>[0-9a-f]{16})")  # a folder of the store


@dataclass
class StepFolder:
    """A step's folder. `needs` are the names and fingerprints of what it reads, the records' source first; they are not
    `known` where its fingerprint is gone or damaged. `misled`: the plain name leads to another step."""

    name: str
    folder: Path
    info: StepInfo
    needs: dict[str, str] = field(default_factory=dict)
    known: bool = True
    digest: str = ""
    manifest: StepManifest | None = None
    problems: list[Problem] = field(default_factory=list)
    misled: bool = False

    @property
    def stage(self) -> str:
        return self.name.partition("/")[0]

    @property
    def source(self) -> Key | None:
        """The step whose records this one reads."""
        return next(iter(self.needs.items()), None)

    @property
    def makes_records(self) -> bool:
        return self.info.role not in ("model", "artefact")


def find(run: Path) -> tuple[list[StepFolder], dict[Key, Path]]:
    """The steps that plain names stand for, links or, in a copy, folders, in the order of the pipeline; and the folder
    of every step that is there, by name and fingerprint."""
    names = [path for path in sorted(run.glob("*/*")) if path.parent.name != "store" and _is_step(path)]
    current = [read_step(run, path) for path in names]
    _lend_info(current)
    known = {(step.name, step.digest): step.folder for step in current if step.digest}
    for folder in sorted((run / "store").glob("*-*")):
        if FINGERPRINTED.fullmatch(folder.name) and (step := _in_store(folder)).name:
            known.setdefault((step.name, step.digest), folder)
    return _ordered(current), known


def read_step(run: Path, path: Path) -> StepFolder:
    """What a step's folder, which a plain name of the run stands for, says of itself."""
    step = StepFolder(f"{path.parent.name}/{path.name}", path.resolve(), _unknown(path))
    if wrong := misleading(run, path):
        return StepFolder(step.name, path, _unknown(path), problems=[wrong], misled=True)
    if not path.exists():
        step.known = False
        return step
    _read_fingerprint(step, path)
    what = "the marker is damaged" if (path / "done.json").exists() else "is not there: the step is not finished"
    try:
        step.manifest = read_manifest(path)
    except OSError as error:
        what = f"the marker cannot be read ({error.strerror})"
    if step.manifest is None:
        step.problems.append(Problem("done.json", what))
    return step


def misleading(run: Path, path: Path) -> Problem | None:
    """What is wrong with a plain name that is neither a folder of the run nor a link to its own in the store.

    InputError where it leads elsewhere: a run that was received could name any folder of this machine.
    """
    name = "-".join(path.relative_to(run).parts)
    found = path.resolve()
    if found == run.resolve().joinpath(*path.relative_to(run).parts):
        return None
    if found.parent != (run / "store").resolve():
        raise InputError(f"{path}: leads to {found}, which is not of this run; nothing is read there")
    if found.name.rpartition("-")[0] == name:
        return None
    return Problem(".", f"its plain name leads to {found.name}, which is not its own; nothing is read there")


def output_steps(run: Path, steps: Iterable[StepFolder]) -> list[StepFolder]:
    """The data sets that steps of the run declare, whether they are there or not, each as a step that reads those; by
    the fingerprints that its lineage tells, or else those of the present steps."""
    sources: dict[str, list[StepFolder]] = {}
    for step in steps:
        if step.info.output is not None:
            sources.setdefault(step.info.output.folder, []).append(step)
    found = []
    for name, rows in sources.items():
        folder = run / name
        made_by = lineage.made_by(folder)
        needs = {step.name: made_by.get(step.name, step.digest) for step in rows}
        found.append(StepFolder(name, folder, rows[0].info, needs))
    return found


def outdated(steps: list[StepFolder]) -> dict[str, list[str]]:
    """The steps that were made from other settings of one above them than it has now, by name; each with the names of
    those above. `steps` are in the order of the pipeline."""
    present = {step.name: step.digest for step in steps}
    found: dict[str, list[str]] = {}
    for step in steps:
        anew = [name for name, digest in step.needs.items() if present.get(name) not in (digest, "", None)]
        above = [root for name in step.needs for root in found.get(name, [])]
        if anew or above:
            found[step.name] = list(dict.fromkeys(anew + above))
    return found


def other_settings(above: list[str]) -> str:
    return f"made from other settings than the present ones of {', '.join(above)}"


def with_all_above(needs: Iterable[Key], known: Mapping[Key, Path]) -> set[Path]:
    """The folders of these steps, and of all that they were made from, as far as they are there."""
    found: set[Path] = set()
    waiting = list(needs)
    while waiting:
        folder = known.get(waiting.pop())
        if folder is not None and folder not in found:
            found.add(folder)
            waiting += _in_store(folder).needs.items()
    return found


def _is_step(path: Path) -> bool:
    return (path.is_symlink() and not path.is_file()) or any((path / name).exists() for name in MARKERS)


def _in_store(folder: Path) -> StepFolder:
    """A folder of the store; without a name where its fingerprint does not tell it."""
    step = StepFolder("", folder, _unknown(folder))
    _read_fingerprint(step, folder)
    if step.known:
        step.name = f"{step.info.stage}/{step.info.part}"
    return step


def _unknown(path: Path) -> StepInfo:
    """What is taken for granted of a step that says nothing of itself: its files decide whether it has shards."""
    role: Role = "filter" if path.is_dir() and shards.finished(path) else "artefact"
    return StepInfo(path.parent.name, path.name, "", role, True, Raw.__name__, Raw.__name__)


def _read_fingerprint(step: StepFolder, path: Path) -> None:
    found, what = None, "is damaged: its digest is not that of what it says"
    try:
        found = msgspec.json.decode((path / "fingerprint.json").read_bytes(), type=Fingerprint)
    except FileNotFoundError:
        what = "is gone"
    except ValueError:
        what = "is damaged: it is not the JSON that was written"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    if found is None or markers.checked(found) != found or digests.of_value(found.parts)[:16] != found.digest:
        # nothing in it is to be relied on
        step.problems.append(Problem("fingerprint.json", f"{what}; of what the step was made is not known"))
        named = FINGERPRINTED.fullmatch(step.folder.name)
        step.digest, step.known = named["digest"] if named else "", False
        return
    step.digest, step.info = found.digest, found.step
    step.needs = {key.removeprefix(NEEDS): str(value) for key, value in found.parts.items() if is_need(key)}
    own = folder_name(found.step.stage, found.step.part, found.digest)
    if step.folder.name not in (path.name, own):
        step.problems.append(Problem("fingerprint.json", f"is not the one of a folder named {step.folder.name}"))


def _lend_info(steps: list[StepFolder]) -> None:
    """To a step that says nothing of itself, what another of its stage says; or at least that it has records, and comes
    before the filter or the model that reads them."""
    by_stage = {step.stage: step.info for step in steps if step.known and not step.misled}
    readers = {step.source[0]: step for step in steps if step.source and step.info.role in ("filter", "inference")}
    for step in steps:
        if not step.known and step.stage in by_stage:
            step.info = msgspec.structs.replace(by_stage[step.stage], part=step.info.part)
        elif not step.known and step.name in readers:
            step.info = msgspec.structs.replace(step.info, role="filter", command=readers[step.name].info.command)


def _ordered(steps: list[StepFolder]) -> list[StepFolder]:
    """By command, then every stage after those that it reads."""
    by_name = {step.name: step for step in steps}

    def depth(step: StepFolder, below: tuple[str, ...] = ()) -> int:
        above = [by_name[name] for name in step.needs if name in by_name and name not in below]
        return 1 + max((depth(need, (*below, step.name)) for need in above), default=0)

    stages: dict[str, int] = {}
    commands: dict[str, int] = {}
    for step in steps:
        reached = depth(step)
        stages[step.stage] = min(reached, stages.get(step.stage, reached))
        commands[step.info.command] = max(reached, commands.get(step.info.command, 0))

    def place(step: StepFolder) -> tuple[int, str, int, str]:
        return commands[step.info.command], step.info.command, stages[step.stage], step.name

    return sorted(steps, key=place)
