"""A run on disk: `RunFolder(Path("runs/demo")).folder(step)`; every step in a folder named by its fingerprint."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.pipeline.stage import Output, Role, Step, StepContext, StepSettings
from kun.store import atomic, digests, markers, shards
from kun.store.markers import Marker


class StepInfo(msgspec.Struct, frozen=True):
    """What a step's stage declares (kun.pipeline.stage.StageSpec), for readers who have only the folder of a run."""

    stage: str
    part: str
    command: str
    role: Role
    per_subset: bool
    reads: str
    writes: str
    output: Output | None = None


class Fingerprint(Marker, frozen=True):
    """`digest` hashes `parts`, everything that decides a step's output; comparing parts shows why a step is stale."""

    digest: str
    parts: dict[str, Any]
    step: StepInfo


class StepManifest(Marker, frozen=True):
    """`done.json` of a finished step. `content` is the digest of what it wrote, `source` of what it read."""

    shards: int = 0
    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    failed: int = 0
    content: str = ""
    source: str = ""
    seconds: float = 0.0
    report: dict[str, Any] = msgspec.field(default_factory=dict)


NEEDS, VERSION = "needs.", "version of the code"  # parts of a fingerprint that are not settings
MARKERS = ("fingerprint.json", "done.json")  # of a step; all else in its folder is what it wrote
ANEW = ".anew"  # suffix of a folder that is made with --force, beside the one that it will replace
NOTHING = digests.of_value([])  # the content of a step without shards or files


class RunFolder:
    """Paths and markers of one run. Fingerprints are computed, and manifests read, once, on first use.

    `settings`, if any, become the run's config.yaml as soon as something is made with them, or a plain name is pointed
    at what was made with them. A run that is refused, or finds nothing to do, leaves config.yaml alone.
    """

    def __init__(self, path: Path, settings: bytes | None = None) -> None:
        self.path = path
        self.store = path / "store"
        self._config_yaml = settings
        self._settings: dict[str, StepSettings] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._manifests: dict[Path, StepManifest | None] = {}
        self._current: dict[str, StepManifest | None] = {}
        self._anew: set[str] = set()

    def settings(self, step: Step) -> StepSettings:
        if step.name not in self._settings:
            self._settings[step.name] = step.settings()
        return self._settings[step.name]

    def fingerprint(self, step: Step) -> Fingerprint:
        """Raises InputError if a file that decides the output cannot be read."""
        if step.name not in self._fingerprints:
            parts: dict[str, Any] = {VERSION: step.spec.version, **self.settings(step).parts}
            parts |= {f"{NEEDS}{need.name}": self.fingerprint(need).digest for need in step.needs}
            parts = msgspec.json.decode(msgspec.json.encode(parts))  # as they are read back: tuples are lists
            spec, part = step.spec, step.part
            types = spec.reads.__name__, spec.writes.__name__
            info = StepInfo(spec.name, part, spec.command, spec.role, spec.per_subset, *types, spec.output)
            self._fingerprints[step.name] = markers.checked(Fingerprint(digests.of_value(parts)[:16], parts, info))
        return self._fingerprints[step.name]

    def context(self, step: Step) -> StepContext:
        return StepContext(step, self.settings(step).config, self.folder(step), self.folder)

    def folder(self, step: Step) -> Path:
        """Where this step's output is, or will be, with the present settings."""
        name = folder_name(step.stage, step.part, self.fingerprint(step).digest)
        return self.store / (f"{name}{ANEW}" if step.name in self._anew else name)

    def link(self, step: Step) -> Path:
        return self.path / step.stage / step.part

    @contextmanager
    def anew(self, steps: Sequence[Step]) -> Iterator[None]:
        """In this block these steps are made in folders beside their own, which they replace if the block succeeds. If
        it does not, the next such block resumes."""
        self._anew = {step.name for step in steps}
        self._forget(steps)
        try:
            yield
            made = [(self.folder(step), step) for step in steps]
        finally:
            self._forget(steps)
            self._anew = set()
        for new, step in made:
            atomic.discard(self.folder(step))
            new.rename(self.folder(step))
            self.show(step)
        self._forget(steps)
        atomic.sync(self.store)

    def begin(self, step: Step) -> Path:
        """The step's folder: created, cleared of half-written files, and linked as the current one."""
        folder = self.folder(step)
        left = folder.with_name(folder.name + ANEW)
        if not folder.exists() and left.exists():  # killed when the new one was about to take the old one's place
            left.rename(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.keep_settings()
        atomic.remove_temporaries(folder)
        (folder / "done.json").unlink(missing_ok=True)
        self._forget([step])
        self.show(step)
        return folder

    def show(self, step: Step) -> None:
        """Write the fingerprint into the step's folder, if it is not there, and point the plain name at the folder."""
        path, fingerprint = self.folder(step) / "fingerprint.json", msgspec.json.encode(self.fingerprint(step))
        present = None
        with contextlib.suppress(OSError):  # gone, or unreadable
            present = path.read_bytes()
        if present != fingerprint:
            atomic.write(path, fingerprint)
        if step.name in self._anew:
            return
        if self.link(step).resolve() != self.folder(step).resolve():
            self.keep_settings()
        atomic.point(self.link(step), self.folder(step))

    def keep_settings(self) -> None:
        """Write the settings, unless that was done already."""
        if self._config_yaml is not None:
            atomic.write(self.path / "config.yaml", self._config_yaml)
            self._config_yaml = None

    def finish(self, step: Step, manifest: StepManifest) -> None:
        markers.write_marker(self.folder(step) / "done.json", manifest)
        self._forget([step])

    def manifest(self, folder: Path) -> StepManifest | None:
        """The manifest in a step's folder, or in the one to which a plain name points; read once."""
        folder = folder.resolve()
        if folder not in self._manifests:
            self._manifests[folder] = read_manifest(folder)
        return self._manifests[folder]

    def current(self, step: Step) -> StepManifest | None:
        """The manifest of a step that finished on what its needs hold now, or None."""
        if step.name not in self._current:
            manifest = self.manifest(self.folder(step))
            same = manifest is not None and manifest.source == self.source(step)
            self._current[step.name] = manifest if same else None
        return self._current[step.name]

    def content(self, step: Step) -> str:
        """Digest of what a step without records wrote, for `StepManifest.content`. Reads all of it."""
        return digests.of_folder(self.folder(step), leave_out=MARKERS)

    def check(self, step: Step) -> None:
        """InputError if a model or an index is not what was written. Shards are checked when they are read."""
        manifest = self.current(step)
        if manifest is not None and not manifest.shards and manifest.content not in (NOTHING, self.content(step)):
            folder = self.folder(step)
            raise InputError(
                f"{folder}: {step.name} is not what was written there, a file of it is damaged or was changed; put it "
                f"back from a copy, or delete the folder and run `kun run {step.command}` to make it again"
            )

    def source(self, step: Step) -> str | None:
        """Digest of what a step's needs hold; None if one of them is not finished."""
        needs = [self.current(need) for need in step.needs]
        return digests.of_value([need.content for need in needs if need]) if all(needs) else None

    def why_stale(self, step: Step) -> list[str]:
        """What changed since the folder to which the plain name still points; empty if nothing did."""
        old = read_fingerprint(self.link(step))
        new = self.fingerprint(step)
        if old is None or old.digest == new.digest:  # never made, or nothing to compare with
            return []
        names = sorted(name for name in old.parts | new.parts if old.parts.get(name) != new.parts.get(name))
        own = [change(name, old.parts.get(name), new.parts.get(name)) for name in names if not is_need(name)]
        above = [f"{name.removeprefix(NEEDS)} changed" for name in names if is_need(name)]
        return own or above

    def progress(self, step: Step) -> StepManifest:
        """The counts of a step so far, from the markers of its shards."""
        return counts_so_far(self.folder(step))

    def _forget(self, steps: Sequence[Step]) -> None:
        """These steps have changed on the disk; the manifests of all others stay known."""
        for step in steps:
            self._manifests.pop(self.folder(step).resolve(), None)
        self._current.clear()


def folder_name(stage: str, part: str, digest: str) -> str:
    """The name of a step's folder in the store."""
    return f"{stage}-{part}-{digest}"


def change(name: str, old: Any, new: Any) -> str:
    """How a part of a fingerprint changed; for a list of files, which of them."""
    try:
        before, after = dict(old), dict(new)
    except (TypeError, ValueError):
        return f"{name} changed"
    files = [f"{file} {'new' if file not in before else 'gone' if file not in after else 'changed'}"
             for file in sorted(before | after) if before.get(file) != after.get(file)]  # fmt: skip
    shown = ", ".join(files[:3]) + (f" and {len(files) - 3:,} more" if len(files) > 3 else "")
    return f"{name} changed" + (f" ({shown})" if files else "")


def is_need(name: str) -> bool:
    """Whether a part of a fingerprint is that of a needed step."""
    return name.startswith(NEEDS)


def counts_so_far(folder: Path) -> StepManifest:
    """The counts of the finished shards in a folder."""
    return summarise([shards.marker(folder, index) for index in shards.finished(folder)], source="")


def summarise(manifests: Sequence[shards.ShardManifest | None], source: str) -> StepManifest:
    """The sums over the shards of a step, in order; a shard that is gone (None) does not count."""
    found = [manifest for manifest in manifests if manifest is not None]
    rejected: Counter[str] = Counter()
    for manifest in found:
        rejected.update(manifest.rejected)
    return StepManifest(
        shards=len(found),
        rows=sum(manifest.rows for manifest in found),
        kept=sum(manifest.kept for manifest in found),
        rejected=dict(sorted(rejected.items())),
        failed=sum(manifest.failed for manifest in found),
        content=digests.of_value([manifest.digests["kept"] for manifest in found]),
        source=source,
        seconds=round(sum(manifest.seconds for manifest in found), 3),
    )


def read_manifest(folder: Path) -> StepManifest | None:
    return markers.read_marker(folder / "done.json", StepManifest)


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint in a step's folder; None if it is gone or damaged."""
    try:
        return markers.read_marker(folder / "fingerprint.json", Fingerprint)
    except OSError:
        return None
