"""What no current step of a run uses: `for leftover in unused(run, *find(run)): print(leftover)`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from kun.dataset import lineage
from kun.pipeline.run_folder import ANEW, read_manifest
from kun.store import atomic
from kun.verify.steps import Key, StepFolder, output_steps, with_all_above


class Leftover(msgspec.Struct, frozen=True):
    """A file or folder of the store, or these `files` of a folder; and their bytes."""

    path: Path
    why: str
    bytes: int
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path} ({self.bytes / 1e6:,.1f} MB), {self.why}"

    def remove(self) -> None:
        for path in [self.path / name for name in self.files] or [self.path]:
            atomic.discard(path)


def unused(run: Path, steps: list[StepFolder], known: dict[Key, Path]) -> list[Leftover]:
    """Files of killed processes, and folders that no plain name leads to, and from which nothing current was made.
    `steps` and `known` as `kun.verify.steps.find` gives them.

    What a current step was made from counts as used, even if its plain name now points elsewhere. If it is not clear
    which folder of a step is the current one, all of them do.
    """
    outputs = output_steps(run, steps)
    needs = [need for step in steps for need in step.needs.items()]
    needs += [need for output in outputs for need in lineage.made_by(output.folder).items()]
    used = {step.folder for step in (*steps, *outputs)}
    used |= with_all_above(needs, known)
    unclear = {step.name for step in steps if step.misled}
    used |= {folder for (name, _), folder in known.items() if name in unclear}
    found = list(_left(run / "store", {folder.resolve() for folder in used}))
    return found + [old for folder in sorted(used) if (old := _old_shards(folder)) is not None]


def _old_shards(folder: Path) -> Leftover | None:
    """The shards of a finished step that it does not use any more."""
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None or not manifest.shards:
        return None
    current = {f"part-{key}" for key in manifest.shards}
    files = sorted(path for path in folder.glob("part-*") if path.name.partition(".")[0] not in current)
    # markers first, so that a kill leaves no shard without its rows
    files.sort(key=lambda path: not path.name.endswith(".done.json"))
    count = sum(path.name.endswith(".done.json") for path in files)
    why = f"{count:,} shards of rows that its corpus no longer has so; should they come back, they are made again"
    names = tuple(path.name for path in files)
    return Leftover(folder, why, sum(path.stat().st_size for path in files), names) if files else None


def _left(store: Path, used: set[Path]) -> Iterator[Leftover]:
    for path in sorted(store.rglob(f".*{atomic.SUFFIX}")):
        yield Leftover(path, "left by a killed process", size(path))
    names = {path.name for path in used}
    for folder in sorted(path for path in store.glob("*-*") if path.is_dir() and path.name[0] != "."):
        if folder.resolve() in used or any(_is_copy_of(folder.name, name) for name in names):
            continue
        unfinished = folder.name.endswith(ANEW)
        yield Leftover(
            folder,
            "of an unfinished --force" if unfinished else "of older settings; going back to them makes it again",
            size(folder),
        )


def _is_copy_of(name: str, used: str) -> bool:
    """Whether a folder is derived from one in use, such as a merged model: `merged-<name>-float32`."""
    return used in name and not name.endswith(ANEW)


def size(path: Path) -> int:
    """Bytes of a file, or of a folder and below."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
