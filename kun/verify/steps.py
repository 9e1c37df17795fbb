"""The steps of a run as its folder tells them, without configuration, corpora or models: `find(Path("runs/demo"))`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kun.errors import InputError
from kun.pipeline.run_folder import Fingerprint, StepManifest, read_manifest
from kun.store import atomic, digests
from kun.verify.part import Problem

Key = tuple[str, str]  # of a step: stage3_label/wudao, and its fingerprint
MARKERS = ("fingerprint.json", "done.json")


@dataclass
class StepFolder:
    """A step's folder. `needs` are the names and fingerprints of what it reads, the records' source first; `lost` tells
    that they are not known. `astray`: the plain name leads to another step."""

    name: str
    folder: Path
    needs: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    whole: StepManifest | None = None
    problems: list[Problem] = field(default_factory=list)
    lost: bool = False
    astray: bool = False

    @property
    def stage(self) -> str:
        return self.name.partition("/")[0]

    @property
    def source(self) -> Key | None:
        """The step whose records this one reads."""
        return next(iter(self.needs.items()), None)


def find(run: Path) -> tuple[list[StepFolder], dict[Key, Path]]:
    """The steps that plain names stand for, links or, in a copy, folders, in the order of the pipeline; and the folder
    of every step that is there, by name and fingerprint."""
    current = [read_step(run, path) for path in sorted(run.glob("stage*/*"))]
    known = {(step.name, step.digest): step.folder for step in current if step.digest}
    for folder in sorted((run / "store").glob("stage*-*")):
        name, digest = _of_store(folder)
        known.setdefault((name, digest), folder)
    return _ordered(current), known


def read_step(run: Path, path: Path) -> StepFolder:
    """What a step's folder, which a plain name of the run stands for, says of itself."""
    step = StepFolder(f"{path.parent.name}/{path.name}", path.resolve())
    if wrong := astray(run, path):
        return StepFolder(step.name, path, problems=[wrong], astray=True)
    if not path.exists():
        return step
    _read_fingerprint(step, path)
    what = "the marker is damaged" if (path / "done.json").exists() else "is not there: the step is not finished"
    try:
        step.whole = read_manifest(path)
    except OSError as error:
        what = f"the marker cannot be read ({error.strerror})"
    if step.whole is None:
        step.problems.append(Problem("done.json", what))
    return step


def _read_fingerprint(step: StepFolder, path: Path) -> None:
    try:
        fingerprint = msgspec.json.decode((path / "fingerprint.json").read_bytes(), type=Fingerprint)
        whole = digests.of_value(fingerprint.parts)[:16] == fingerprint.digest
        what = "is damaged: its digest is not that of what it says"
    except FileNotFoundError:
        whole, what = False, "is gone"
    except ValueError:
        whole, what = False, "is damaged: it is not the JSON that was written"
    except OSError as error:
        whole, what = False, f"cannot be read ({error.strerror})"
    if not whole:  # nothing in it is to be relied on
        step.problems.append(Problem("fingerprint.json", f"{what}; of what the step was made is not known"))
        step.digest, step.lost = _of_store(step.folder)[1] if step.folder != path else "", True
        return
    step.digest = fingerprint.digest
    needs = {key: value for key, value in fingerprint.parts.items() if key.startswith("needs.")}
    step.needs = {key.removeprefix("needs."): str(value) for key, value in needs.items()}
    if step.folder.name not in (path.name, f"{path.parent.name}-{path.name}-{fingerprint.digest}"):
        step.problems.append(Problem("fingerprint.json", f"is not the one of a folder named {step.folder.name}"))


def astray(run: Path, path: Path) -> Problem | None:
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


def leftovers(run: Path, used: set[Path]) -> list[tuple[Path, str]]:
    """What nothing points at any more: files of a killed process, folders of older settings."""
    found = [(path, "left by a killed process") for path in sorted((run / "store").rglob(f".*{atomic.SUFFIX}"))]
    for folder in sorted(path for path in (run / "store").glob("*-*") if path.is_dir() and path.name[0] != "."):
        if folder.resolve() not in used and not any(path.name in folder.name for path in used):  # merged-<adapter>
            found.append((folder, "of older settings"))
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


def made_from(needs: Iterable[Key], known: Mapping[Key, Path]) -> set[Path]:
    """The folders of these steps, and of all that they were made from, as far as they are there."""
    found: set[Path] = set()
    waiting = list(needs)
    while waiting:
        folder = known.get(waiting.pop())
        if folder is not None and folder not in found:
            found.add(folder)
            step = StepFolder("", folder)
            _read_fingerprint(step, folder)
            waiting += step.needs.items()
    return found


def size(path: Path) -> int:
    """Bytes of a file, or of a folder and below."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def _of_store(folder: Path) -> tuple[str, str]:
    """`stage3_label-wu-dao-0123456789abcdef` is stage3_label/wu-dao with that fingerprint."""
    stage, _, rest = folder.name.partition("-")
    part, _, digest = rest.rpartition("-")
    return f"{stage}/{part}", digest


def _ordered(steps: list[StepFolder]) -> list[StepFolder]:
    """By command, then every stage after those that it reads."""
    by_name = {step.name: step for step in steps}

    def depth(step: StepFolder, below: tuple[str, ...] = ()) -> int:
        above = [by_name[name] for name in step.needs if name in by_name and name not in below]
        return 1 + max((depth(need, (*below, step.name)) for need in above), default=0)

    depths: dict[str, int] = {}
    for step in steps:
        depths[step.stage] = min(depth(step), depths.get(step.stage, 1000))
    return sorted(steps, key=lambda step: (step.stage.split("_")[0], depths[step.stage], step.name))
