"""The data set that a run ends in: `assemble(run, polished_steps, config, funnel)` fills `runs/<name>/final/`.

One `<subset>.jsonl` of `instruction` and `output` per subset, `lineage.parquet` with everything else about each row,
and the card `README.md`. The folder appears whole, and loads by `datasets.load_dataset(folder, "wudao")`.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from kun.config.files import dump
from kun.config.schema import Config
from kun.filters.privacy.rules import MEANINGS, PLACEHOLDERS
from kun.pipeline.run_folder import RunFolder, StepManifest
from kun.pipeline.stage import Step
from kun.pipeline.status import Final, State
from kun.records import Polished
from kun.store import atomic, digests, shards
from kun.store.digests import Digests

LINEAGE = "lineage.parquet"


def is_current(run: RunFolder, polished: Sequence[Step], known: Digests) -> bool:
    """Whether `final/` holds what the steps that are complete hold now, in files that are as the card says."""
    done = _done(run, polished)
    folder, card = _folder(run, done), run.path / "final" / "README.md"
    if not done or (run.path / "final").resolve() != folder.resolve() or not card.is_file():
        return False
    paths = [folder / name for name in (*(f"{step.part}.jsonl" for step in done), LINEAGE)]
    told = card.read_text(encoding="utf-8", errors="replace")
    return all(path.is_file() for path in paths) and all(name in told for name in known.files(paths, "run"))


def final_state(run: RunFolder, polished: Sequence[Step], known: Digests, funnel: Sequence[State]) -> Final:
    """What there is of `final/`, without a change to it."""
    if not (run.path / "final").is_dir():
        return Final("missing")
    rows = _rows_in(run.path / "final" / LINEAGE)
    if any(state.condition == "blocked" for state in funnel):
        return Final("blocked", rows)
    return Final("current" if is_current(run, polished, known) else "stale", rows)


def _rows_in(lineage: Path) -> int:
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(lineage).num_rows)
    except (OSError, ValueError):  # gone or damaged: then it is stale, too
        return 0


def _done(run: RunFolder, polished: Sequence[Step]) -> dict[Step, StepManifest]:
    return {step: whole for step in polished if (whole := run.whole(step)) is not None}


def _folder(run: RunFolder, done: dict[Step, StepManifest]) -> Path:
    content = [[step.name, run.fingerprint(step).digest, whole.content, whole.failed] for step, whole in done.items()]
    return run.store / f"final-{digests.of_value(content)[:16]}"


def assemble(run: RunFolder, polished: Sequence[Step], config: Config, funnel: list[State], known: Digests) -> bool:
    """Bring `final/` up to date with the subsets that are complete; False where it is already, or none is."""
    done = _done(run, polished)
    if not done or is_current(run, polished, known):
        return False
    folder = _folder(run, done)
    atomic.discard(folder)
    building = atomic.temporary_of(folder)
    building.mkdir(parents=True)
    for step, whole in done.items():
        _write_rows(run.folder(step), whole, building / f"{step.part}.jsonl")
    _write_lineage(run, done, building / LINEAGE)
    files = {path.name: digests.of_file(path) for path in building.iterdir()}
    personal = _personal_data(run, done, config, funnel)
    atomic.write(building / "README.md", card(run, done, files, config, funnel, personal).encode())
    building.rename(folder)
    atomic.sync_folder(run.store)
    atomic.point(run.path / "final", folder)
    for old in run.store.glob("final-*"):
        if old != folder:
            shutil.rmtree(old)
    return True


def _write_rows(folder: Path, whole: StepManifest, target: Path) -> None:
    with atomic.replacing(target) as file:
        for index in range(whole.shards):
            for record in shards.read_kept(folder, index, Polished):
                file.write(row(record))


def row(record: Polished) -> bytes:
    """The line of a record in `<subset>.jsonl`."""
    return msgspec.json.encode({"instruction": record.instruction, "output": record.output}) + b"\n"


def _write_lineage(run: RunFolder, done: dict[Step, StepManifest], target: Path) -> None:
    """Row `line` (from 1) of `<subset>.jsonl`: id, origin, measures, source text. Models and prompts: file metadata."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    fields = {"subset": pa.string(), "line": pa.int64(), "id": pa.string()}
    fields |= {"file": pa.string(), "row": pa.int64(), "piece": pa.int64(), "ppl": pa.float64(), "tokens": pa.int64()}
    fields |= {"score": pa.float64(), "faithfulness": pa.float64(), "instruction": pa.string(), "text": pa.string()}
    fields |= {"cleaned": pa.list_(pa.string())}
    made_by = {step.name: run.fingerprint(step).parts for step in _with_needs(list(done))}
    schema = pa.schema(fields, metadata={"kun": msgspec.json.encode(made_by)})
    with atomic.replacing(target) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for step, whole in done.items():
            line = 0
            for index in range(whole.shards):
                rows = []
                for record in shards.read_kept(run.folder(step), index, Polished):
                    line += 1
                    rows.append(lineage(record, line))
                if rows:
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def lineage(record: Polished, line: int) -> dict[str, Any]:
    """All that is known of a line of `<subset>.jsonl`; `lineage.parquet` has the most of it."""
    known = {**msgspec.structs.asdict(record), **msgspec.structs.asdict(record.origin), "line": line}
    return {**known, "cleaned": list(record.cleaned)}


def _with_needs(steps: list[Step]) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps:
        found |= {need.name: need for need in _with_needs(list(step.needs))}
        found[step.name] = step
    return list(found.values())


def _personal_data(run: RunFolder, done: dict[Step, StepManifest], config: Config, funnel: list[State]) -> str:
    """What the card says of it; nothing where no kind is looked for."""
    settings = [config.of_subset(step.part).filter.privacy for step in done]
    kinds = [kind for kind in PLACEHOLDERS if any(getattr(own, kind) for own in settings)]
    if not kinds:
        return ""
    masked, shown = Counter[str](), Counter[str]()
    for step, whole in done.items():
        for index in range(whole.shards):
            for record in shards.read_kept(run.folder(step), index, Polished):
                masked.update(record.cleaned)
                shown.update(kind for kind in kinds if any(word in record.output for word in PLACEHOLDERS[kind]))
    dropped = Counter[str]()
    for state in funnel:
        dropped.update({kind: state.counts.rejected.get(kind, 0) for kind in kinds})
    rows = "\n".join(
        f"| {MEANINGS[kind]} (`{kind}`) | {masked[kind]:,} | {shown[kind]:,} | {dropped[kind]:,} |" for kind in kinds
    )
    return f"""## Personal data

Looked for in Chinese formats. Masked: rows of this data set whose source text had such a thing, and has a placeholder
for it ({PLACEHOLDERS["phone"][0]}); with the placeholder: rows whose output has one. Dropped: records of all steps.

| kind | masked | with the placeholder | dropped |
|---|---|---|---|
{rows}

"""


def card(
    run: RunFolder,
    done: dict[Step, StepManifest],
    files: dict[str, str],
    config: Config,
    funnel: list[State],
    personal: str = "",
) -> str:
    """The data set card: the hub's YAML header, the funnel, personal data, models and settings. `files`: digests of
    all others."""
    loadable = [step.part for step, whole in done.items() if whole.kept]  # datasets refuses a file without rows
    # What datasets caches it knows by the name of the folder and by this header: without the digests it would give the
    # rows of one run's `final` for those of another.
    configs = "\n".join(
        f'- config_name: "{name}"\n  data_files: {name}.jsonl\n  description: "BLAKE2b-128 {files[f"{name}.jsonl"]}"'
        for name in loadable
    )
    infos = "\n".join(
        f'- config_name: "{name}"\n  features:\n  - name: instruction\n    dtype: string\n'
        "  - name: output\n    dtype: string"
        for name in loadable
    )
    settings = dump(config)
    fence = max(["```", *(run[0] + "`" for run in re.finditer("`{3,}", settings))], key=len)  # longer than any in it
    header = f"configs:\n{configs}\ndataset_info:\n{infos}\n" if loadable else ""
    rows = sum(whole.kept for whole in done.values())
    size = next((f"n<{name}" if name == "1K" else name for name, top in _SIZES if rows < top), "n>1T")
    return f"""---
language:
- zh
task_categories:
- text-generation
size_categories:
- {size}
{header}---

# {_inline(Path(config.run).name)}

{rows:,} pairs of instruction and output, made from raw text by instruction back-translation with answer polishment
(Kun): a label model wrote the instruction to each text, a primary chat judged the instruction, and polished the text
into its output. No row was written or checked by a person.

| subset | rows |
|---|---|
{chr(10).join(f"| {step.part} | {whole.kept:,} |" for step, whole in done.items())}

## Where the rows went

{funnel_table(funnel)}

{personal}## Models and settings

Base model `{_inline(Path(config.base_model or "none").name)}`, prompts `{_inline(config.prompts)}`.
`lineage.parquet` has, for every row, its id, the file and row it was read from, perplexity, score, faithfulness, source
text and what cleaning changed.

{fence}yaml
{settings}{fence}

## Files

{chr(10).join(f"- `{name}`: BLAKE2b-128 {digest}" for name, digest in sorted(files.items()))}
"""


def _inline(name: str) -> str:
    """A name in a line of Markdown: it cannot end the line or a code span, and is no HTML."""
    return escape(" ".join(name.split())).replace("`", "'")


_SIZES = [("1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6), ("1M<n<10M", 1e7)]
_SIZES += [("10M<n<100M", 1e8), ("100M<n<1B", 1e9)]


def funnel_table(funnel: list[State]) -> str:
    """The funnel in Markdown."""
    lines = ["| step | in | kept | rejected | failed | reasons |", "|---|---|---|---|---|---|"]
    for state in funnel:
        if state.records:
            counts = state.counts
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.rejected.items())
            lines.append(
                f"| {state.stage}/{state.part} | {counts.rows:,} | {counts.kept:,} | "
                f"{sum(counts.rejected.values()):,} | {counts.failed:,} | {reasons} |"
            )
    return "\n".join(lines)
