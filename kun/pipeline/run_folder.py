"""A run on disk: `RunFolder(Path("runs/demo")).folder(step)`; every step in a folder named by its fingerprint."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.pipeline.stage import Step
from kun.store import atomic, digests, markers, shards
from kun.store.markers import Marker


class Fingerprint(msgspec.Struct, frozen=True):
    """`digest` hashes `parts`, everything that decides a step's output; parts are compared to tell why it is stale."""

    digest: str
    parts: dict[str, Any]


class StepManifest(Marker, frozen=True):
    """`done.json` of a finished step. `content` digests what it wrote; `source`, what it read."""

    shards: int = 0
    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    failed: int = 0
    content: str = ""
    source: str = ""
    seconds: float = 0.0
    report: dict[str, Any] = msgspec.field(default_factory=dict)


NOTHING = digests.of_value([])  # the content of no shards, and of no files


class RunFolder:
    """Paths and markers of one run. Fingerprints are computed once, when first asked for.

    `settings`, where given, become the run's config.yaml as soon as something is made with them, or a plain name
    leads to what was: a run that is refused, or finds all as it should be, leaves those that made it.
    """

    def __init__(self, path: Path, settings: bytes | None = None) -> None:
        self.path = path
        self.store = path / "store"
        self._settings = settings
        self._fingerprints: dict[str, Fingerprint] = {}

    def fingerprint(self, step: Step) -> Fingerprint:
        """Raises InputError where a file that decides the output cannot be read."""
        if step.name not in self._fingerprints:
            parts: dict[str, Any] = {"version of the code": step.version, **step.decides()}
            parts |= {f"needs.{need.name}": self.fingerprint(need).digest for need in step.needs}
            parts = msgspec.json.decode(msgspec.json.encode(parts))  # as it is read back: tuples are lists
            self._fingerprints[step.name] = Fingerprint(digests.of_value(parts)[:16], parts)
        return self._fingerprints[step.name]

    def folder(self, step: Step) -> Path:
        """Where this step's output is, or will be, under the present settings."""
        return self.store / f"{step.stage}-{step.part}-{self.fingerprint(step).digest}"

    def link(self, step: Step) -> Path:
        return self.path / step.stage / step.part

    def begin(self, step: Step) -> Path:
        """The step's folder, made, cleared of half-written files, and linked as the current one."""
        folder = self.folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        self.keep_settings()
        atomic.remove_temporaries(folder)
        (folder / "done.json").unlink(missing_ok=True)
        self.show(step)
        return folder

    def show(self, step: Step) -> None:
        """Write what decided the step into its folder, where it is not there, and point the plain name at that."""
        path, fingerprint = self.folder(step) / "fingerprint.json", msgspec.json.encode(self.fingerprint(step))
        present = None
        with contextlib.suppress(OSError):  # gone, or not to be read any more
            present = path.read_bytes()
        if present != fingerprint:
            atomic.write(path, fingerprint)
        if self.link(step).resolve() != self.folder(step).resolve():
            self.keep_settings()
        atomic.point(self.link(step), self.folder(step))

    def keep_settings(self) -> None:
        """Write the settings, where they are not written yet."""
        if self._settings is not None:
            atomic.write(self.path / "config.yaml", self._settings)
            self._settings = None

    def finish(self, step: Step, whole: StepManifest) -> None:
        markers.write_marker(self.folder(step) / "done.json", whole)

    def whole(self, step: Step) -> StepManifest | None:
        """The marker of a step that finished on what its needs hold now, or None."""
        whole = read_manifest(self.folder(step))
        return whole if whole is not None and whole.source == self.source(step) else None

    def content(self, step: Step) -> str:
        """Digest of what a step that is no records wrote, for `StepManifest.content`. Reads it."""
        return digests.of_folder(self.folder(step), leave_out=("fingerprint.json", "done.json"))

    def check(self, step: Step) -> None:
        """InputError where a model or an index is not what was written. Shards are checked when they are read."""
        whole = self.whole(step)
        if whole is not None and not whole.shards and whole.content not in (NOTHING, self.content(step)):
            folder = self.folder(step)
            raise InputError(
                f"{folder}: {step.name} is not what was written there, a file of it is damaged or was changed; put it "
                f"back from a copy, or delete the folder and run `kun run {step.command}` to make it again"
            )

    def source(self, step: Step) -> str | None:
        """Digest of what a step's needs hold; None where one of them is not whole."""
        needs = [self.whole(need) for need in step.needs]
        return digests.of_value([need.content for need in needs if need]) if all(needs) else None

    def why_stale(self, step: Step) -> list[str]:
        """What changed since the folder that the plain name still points at; empty where nothing did."""
        try:
            old = msgspec.json.decode((self.link(step) / "fingerprint.json").read_bytes(), type=Fingerprint)
        except (OSError, ValueError):  # never made, or nothing to compare with
            return []
        new = self.fingerprint(step)
        if old.digest == new.digest:
            return []
        names = sorted(name for name in old.parts | new.parts if old.parts.get(name) != new.parts.get(name))
        own = [f"{name} changed" for name in names if not name.startswith("needs.")]
        above = [f"{name.removeprefix('needs.')} changed" for name in names if name.startswith("needs.")]
        return own or above

    def progress(self, step: Step) -> StepManifest:
        """What is done of a step so far, from the markers of its shards."""
        folder = self.folder(step)
        markers = [shards.marker(folder, index) for index in shards.finished(folder)]
        return summarise([marker for marker in markers if marker is not None], source="")


def summarise(markers: list[shards.ShardManifest], source: str) -> StepManifest:
    """The counts of all shards of a step, in order."""
    rejected: dict[str, int] = {}
    for marker in markers:
        for reason, count in marker.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return StepManifest(
        shards=len(markers),
        rows=sum(m.rows for m in markers),
        kept=sum(m.kept for m in markers),
        rejected=dict(sorted(rejected.items())),
        failed=sum(m.failed for m in markers),
        content=digests.of_value([m.digests["kept"] for m in markers]),
        source=source,
        seconds=round(sum(m.seconds for m in markers), 3),
    )


def read_manifest(folder: Path) -> StepManifest | None:
    return markers.read_marker(folder / "done.json", StepManifest)
