"""The card of a data set, `README.md`: `render_card(...)` writes it, `read_card(folder)` gives the digests in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kun.config.files import dump
from kun.config.schema import Config
from kun.filters.privacy.rules import PLACEHOLDERS
from kun.pages.templates import render
from kun.pipeline.stage import Output
from kun.pipeline.status import State
from kun.store import digests
from kun.text.normal import preview, printable

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.jinja")
HEADER = re.compile(rb"---\r?\n(.*?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
ALGORITHM = "BLAKE2b-128"
ALL = "default"  # the name that datasets looks for
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M", 1e8: "10M<n<100M"}
SIZES |= {1e9: "100M<n<1B", 1e10: "1B<n<10B", 1e11: "10B<n<100B", 1e12: "100B<n<1T"}

FileName = Annotated[str, msgspec.Meta(pattern=r"\A[\w.-]+\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=rf"\A{ALGORITHM} [0-9a-f]{{32}}\Z")]


@dataclass(frozen=True)
class PersonalData:
    """Rows masked, rows whose output has the placeholder, and records dropped, of one kind of personal data."""

    kind: str
    meaning: str
    masked: int
    shown: int
    dropped: int


@dataclass(frozen=True)
class Card:
    """The digests that a card gives: pairs of file and digest. `problem` is what is wrong with the card itself."""

    files: frozenset[tuple[str, str]] = frozenset()
    problem: str = ""


class _Header(msgspec.Struct, frozen=True):
    """What Kun reads again of the header; it has more."""

    files: dict[FileName, Digest] = {}
    card: Digest | None = None
    configs: list[dict[str, Any]] = []


def render_card(
    config: Config,
    output: Output,
    rows: Mapping[str, int],
    files: Mapping[str, str],
    funnel: Sequence[State],
    personal: Sequence[PersonalData],
) -> str:
    """The whole card: the hub's YAML header, the funnel, personal data, models and settings. `rows` are counted by
    subset, `files` has the digests of all other files."""
    settings = dump(config)
    text = render(
        TEMPLATE,
        name=Path(config.run).name,
        total=sum(rows.values()),
        about=output.about or "rows.",
        rows=rows,
        funnel=funnel,
        personal=personal,
        placeholder=PLACEHOLDERS["phone"][0],
        base_model=Path(config.base_model or "none").name,
        prompts=config.prompts,
        settings=settings,
        fence=max(["```", *(run + "`" for run in re.findall("`{3,}", settings))], key=len),
        inline=_inline,
    )
    return f"---\n{_header(output, rows, files, text)}\n---\n\n{text}"


def _header(output: Output, rows: Mapping[str, int], files: Mapping[str, str], text: str) -> str:
    from huggingface_hub import DatasetCardData

    told = {name: f"{ALGORITHM} {digest}" for name, digest in sorted(files.items())}
    loadable = [subset for subset, count in rows.items() if count]  # datasets refuses a file without rows
    # datasets knows what it has cached by the name of the folder and by these entries: without the digests it would
    # give the rows of one run's `final` for those of another.
    configs: list[dict[str, Any]] = [
        {"config_name": name, "data_files": f"{name}.jsonl", "description": told[f"{name}.jsonl"]} for name in loadable
    ]
    if len(loadable) > 1 and ALL not in rows:  # what load_dataset gives where no subset is named
        every = " ".join(told[f"{name}.jsonl"] for name in loadable)
        paths = [f"{name}.jsonl" for name in loadable]
        configs.insert(0, {"config_name": ALL, "default": True, "data_files": paths, "description": f"all: {every}"})
    infos = [
        {"config_name": one["config_name"], "features": [{"name": field, "dtype": "string"} for field in output.fields]}
        for one in configs
    ]
    total = sum(rows.values())
    return DatasetCardData(
        language=["zh"],
        task_categories=["text-generation"],
        size_categories=[next((size for top, size in SIZES.items() if total < top), "n>1T")],
        configs=configs or None,
        dataset_info=infos or None,
        files=told,
        card=f"{ALGORITHM} {digests.of_bytes(text.encode())}",
    ).to_yaml()


def _inline(name: str) -> Any:
    """A name in a line of Markdown: it cannot end the line or a code span, and is no HTML."""
    from markupsafe import Markup

    return Markup(escape(" ".join(name.split())).replace("`", "'"))


def read_card(folder: Path) -> Card:
    """The digests in the header of the card; none where there is no card, or one without a header of Kun's."""
    from ruamel.yaml import YAML

    try:
        content = (folder / CARD).read_bytes()
    except OSError:
        return Card()
    found = HEADER.match(content)
    if not found:
        return Card(problem="its header has no end") if content.startswith(b"---") else Card()
    try:
        plain = YAML(typ="base", pure=True).load(found[1].decode())  # text, lists and mappings, and no merge keys
        header = msgspec.convert(plain, _Header)
    except Exception as error:  # ruamel.yaml raises what it likes
        why = printable(preview(" ".join(str(error).split())))
        return Card(problem=f"its header cannot be read ({why})")
    named = {(str(one.get("data_files")), str(one.get("description"))) for one in header.configs}
    named = {(name, digest) for name, digest in named if digest.startswith(f"{ALGORITHM} ")} | {*header.files.items()}
    files = frozenset((name, digest.removeprefix(f"{ALGORITHM} ")) for name, digest in named)
    text = content[found.end() :].removeprefix(b"\n")
    if header.card and header.card != f"{ALGORITHM} {digests.of_bytes(text)}":
        return Card(files, "its text is not the one that its header has the digest of")
    return Card(files)
