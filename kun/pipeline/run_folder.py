"""A run on disk: `RunFolder(Path("runs/demo")).folder(step)`; every step in a folder named by its fingerprint."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from kun.errors import InputError
from kun.pipeline.stage import Inputs, Output, Role, Step, StepContext, StepSettings
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
    """`done.json` of a finished step. `shards` are their keys, in order; `content` is the digest of what it wrote, but
    for the origins of rows, and `files` that of what lies on the disk; `source` has those of what it read, by name."""

    shards: list[shards.Key] = msgspec.field(default_factory=list)
    rows: int = 0
    kept: int = 0
    rejected: dict[str, int] = msgspec.field(default_factory=dict)
    failed: int = 0
    content: str = ""
    files: str = ""
    source: dict[str, str] = msgspec.field(default_factory=dict)
    seconds: float = 0.0
    report: dict[str, Any] = msgspec.field(default_factory=dict)


SHARD = "shard"  # in the source of a shard: the rows of the one above
DECIDED = "decided"  # what was found in the whole subset
NEEDS, VERSION = "needs.", "version of the code"  # parts of a fingerprint that are not settings
INPUTS = "inputs.json"  # the files of a corpus that a step has read
MARKERS = ("fingerprint.json", "done.json", INPUTS)  # of a step; all else in its folder is what it wrote
CORPUS = "corpus"  # in the source of a step: the files that it reads
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
        self.asked: Counter[str] = Counter()  # records that a model was asked about, by step
        self.unread: list[str] = []  # stages that had nothing to do, whose files were not looked at
        self._settings: dict[str, StepSettings] = {}
        self._inputs: dict[str, Inputs] = {}
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

    def inputs(self, step: Step) -> Inputs | None:
        """The files that a step reads; where no path of them exists here, those that it has read. InputError where
        there is neither."""
        if step.inputs is None:
            return None
        if step.name not in self._inputs:
            found = step.inputs()
            if found.missing:
                known = read_inputs(self.folder(step))
                if known is None or known.paths != found.paths:
                    raise InputError(found.missing)
                found = msgspec.structs.replace(known, missing=found.missing)
            self._inputs[step.name] = found
        return self._inputs[step.name]

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
        self.inputs(step)  # as they are before they are read
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
        if inputs := self.inputs(step):
            known = msgspec.structs.replace(inputs, missing="")
            atomic.write(self.folder(step) / INPUTS, msgspec.json.encode(known))
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

    def source(self, step: Step) -> dict[str, str] | None:
        """Digests of what a step reads, by name; None if a step that it needs is not finished."""
        found = self.contents(step.needs)
        whole = all(need.name in found for need in step.needs)
        if inputs := self.inputs(step):
            found[CORPUS] = digests.of_value(inputs.files)
        return found if whole else None

    def contents(self, steps: Sequence[Step]) -> dict[str, str]:
        """The digests of what these steps hold, by name, of those that are finished."""
        return {step.name: manifest.content for step in steps if (manifest := self.current(step)) is not None}

    def why(self, step: Step) -> list[str]:
        """Why a step that was made is not current: settings, files, or what the steps above it hold now."""
        if changed := self.why_stale(step):
            return changed
        manifest = self.manifest(self.folder(step))
        if manifest is None:
            return []
        known, inputs = read_inputs(self.folder(step)), self.inputs(step)
        if inputs and manifest.source.get(CORPUS) != digests.of_value(inputs.files):
            return [change(f"corpus {step.part}", known.files if known else (), inputs.files)]
        above = [need for need in step.needs if self.current(need) is None]
        if above:
            return list(
                dict.fromkeys(why for need in above for why in self.why(need) or [f"{need.name} is not complete"])
            )
        source = self.source(step) or {}
        other = [name for name, content in source.items() if manifest.source.get(name) != content]
        shards_of = self._stale_shards(step, source) if step.spec.makes_records else ""
        return [f"{shards_of}{name} has other content" for name in other]

    def _stale_shards(self, step: Step, source: dict[str, str]) -> str:
        """How many of its shards were made from something else, in words; "" for a step without shards above."""
        first, *others = step.needs
        above = self.current(first)
        if above is None or not above.shards:
            return ""
        other = {need.name: source[need.name] for need in others}
        stale = 0
        for key in above.shards:
            reads, here = shards.marker(self.folder(first), key), shards.marker(self.folder(step), key)
            due = {**other, SHARD: reads.content if reads else ""}
            stale += here is None or any(here.source.get(name) != digest for name, digest in due.items())
        return f"{stale:,} of {len(above.shards):,} shards: "

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
        above = self.current(step.needs[0]) if step.spec.role != "ingest" else None
        return counts_so_far(self.folder(step), above.shards if above else None)

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


def counts_so_far(folder: Path, keys: Sequence[str] | None = None) -> StepManifest:
    """The counts of the finished shards in a folder, of these or of all."""
    there = shards.finished(folder)
    return summarise(folder, [key for key in (sorted(there) if keys is None else keys) if key in there], {})


def summarise(folder: Path, keys: Sequence[str], source: dict[str, str]) -> StepManifest:
    """The sums over these shards of a step; one that is gone does not count."""
    found = {key: manifest for key in keys if (manifest := shards.marker(folder, key)) is not None}
    return sums(found, source)


def sums(found: Mapping[str, shards.ShardManifest], source: dict[str, str]) -> StepManifest:
    """The sums over the shards of a step, in order."""
    rejected: Counter[str] = Counter()
    for manifest in found.values():
        rejected.update(manifest.rejected)
    return StepManifest(
        shards=list(found),
        rows=sum(manifest.rows for manifest in found.values()),
        kept=sum(manifest.kept for manifest in found.values()),
        rejected=dict(sorted(rejected.items())),
        failed=sum(manifest.failed for manifest in found.values()),
        content=digests.of_value([[key, manifest.content] for key, manifest in found.items()]),
        files=digests.of_value([[key, manifest.digests["kept"]] for key, manifest in found.items()]),
        source=source,
        seconds=round(sum(manifest.seconds for manifest in found.values()), 3),
    )


def read_inputs(folder: Path) -> Inputs | None:
    """The files of a corpus that a step has read, as far as its folder remembers them."""
    try:
        return msgspec.json.decode((folder / INPUTS).read_bytes(), type=Inputs)
    except (OSError, ValueError):
        return None


def read_manifest(folder: Path) -> StepManifest | None:
    return markers.read_marker(folder / "done.json", StepManifest)


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """The fingerprint in a step's folder; None if it is gone or damaged."""
    try:
        return markers.read_marker(folder / "fingerprint.json", Fingerprint)
    except OSError:
        return None
