"""What the rules of stage 2 would do, on a sample: `judge(rules, documents)`, `summary(seen)`.

Every rule measures every document, where the stage stops at the first that is broken: so it shows what a rule drops,
what it alone drops, and what others would drop anyway. `kun.report.filter_page` makes a page of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kun.filters import quality
from kun.filters.bounds import Bound
from kun.filters.perplexity.percentiles import percentile
from kun.filters.privacy import rules as privacy
from kun.filters.rules import Rules
from kun.records import Document, Origin, Reject
from kun.text.normal import preview

PERCENTS = (1, 5, 25, 50, 75, 95, 99)
EXAMPLES = 4  # on each side of a limit
EXAMPLE_CHARACTERS = 240


@dataclass(frozen=True)
class SampledDocument:
    """A document as cleaned, what cleaning changed, all that was measured, all rules that it breaks, and the one that
    stage 2 names (None: kept)."""

    document: Document
    cleaned: tuple[str, ...]
    values: Mapping[str, float]
    broken: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class CorpusSample:
    """The sample of a subset. `how` says how it was taken, `unread` counts rows that gave no document by reason,
    `notes` are for people; `by_byte` are files whose rows are numbered by bytes."""

    subset: str
    how: str
    rows: int
    unread: Mapping[str, int]
    bounds: tuple[Bound, ...]
    judged: tuple[SampledDocument, ...]
    notes: tuple[str, ...] = ()
    by_byte: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Line:
    """A rule in the funnel: documents that break it, that it alone drops, that the stage drops for it, and that are
    left after it. `bound` is None for a reason that is no bound of a value."""

    reason: str
    bound: Bound | None
    breaks: int
    alone: int
    dropped: int
    left: int


@dataclass(frozen=True)
class Measure:
    """What one or more rules look at: `values` of the documents, in their order."""

    reasons: tuple[str, ...]
    meaning: str
    bounds: tuple[Bound, ...]
    values: tuple[float, ...]

    @property
    def quantiles(self) -> dict[str, float]:
        ordered = sorted(self.values)
        return {f"p{percent}": percentile(ordered, percent) for percent in PERCENTS} if ordered else {}


def judge(rules: Rules, documents: Sequence[Document]) -> tuple[SampledDocument, ...]:
    """Each document with what the rules measure of it and with what the stage decides."""
    found = []
    for document, outcome in zip(documents, rules(documents), strict=True):
        values = rules.values(document)
        broken = tuple(bound.reason for bound in rules.bounds if bound.broken_by(values[bound.reason]))
        text, cleaned = rules.clean(document)
        shown = msgspec.structs.replace(document, text=text)
        reason = outcome.reason if isinstance(outcome, Reject) else None
        found.append(SampledDocument(shown, cleaned, values, broken, reason))
    return tuple(found)


def funnel(seen: CorpusSample) -> list[Line]:
    """The rules in the order in which they decide."""
    bounds = {bound.reason: bound for bound in seen.bounds}
    dropped = Counter(one.reason for one in seen.judged if one.reason is not None)
    breaks = Counter(reason for one in seen.judged for reason in one.broken)
    alone = Counter(one.broken[0] for one in seen.judged if len(one.broken) == 1)
    left, lines = len(seen.judged), []
    for reason in [*bounds, *(name for name in dropped if name not in bounds)]:
        left -= dropped[reason]
        lines.append(Line(reason, bounds.get(reason), breaks[reason], alone[reason], dropped[reason], left))
    return lines


def overlaps(seen: CorpusSample) -> dict[str, dict[str, int]]:
    """How many documents break both of two rules; of rules that any breaks. A rule with itself: all it breaks."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in seen.judged:
        counts.update((first, second) for first in one.broken for second in one.broken)
    hit = [bound.reason for bound in seen.bounds if counts[bound.reason, bound.reason]]
    return {first: {second: counts[first, second] for second in hit} for first in hit}


def measures(seen: CorpusSample) -> list[Measure]:
    """What is measured, in the order of the rules, those that are off last; rules on the same value are one."""
    meanings = privacy.MEANINGS | {rule.reason: rule.meaning for rule in quality.RULES}
    meanings |= {bound.reason: bound.meaning for bound in seen.bounds}
    reasons = [bound.reason for bound in seen.bounds]
    reasons += [reason for reason in (seen.judged[0].values if seen.judged else ()) if reason not in reasons]
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(meanings.get(reason, reason), []).append(reason)
    return [
        Measure(
            tuple(names),
            meaning,
            tuple(bound for bound in seen.bounds if bound.reason in names),
            tuple(one.values[names[0]] for one in seen.judged),
        )
        for meaning, names in groups.items()
    ]


def near(
    seen: CorpusSample, bound: Bound, count: int = EXAMPLES
) -> tuple[list[SampledDocument], list[SampledDocument]]:
    """The documents nearest to a limit, nearest first: those that it allows, those that it does not."""
    allowed: list[SampledDocument] = []
    beyond: list[SampledDocument] = []
    for one in sorted(seen.judged, key=lambda one: abs(one.values[bound.reason] - bound.limit)):
        (beyond if bound.reason in one.broken else allowed).append(one)
    return allowed[:count], beyond[:count]


def cleaning(seen: CorpusSample) -> str:
    """How many documents cleaning changed, in words; empty where none."""
    counts = Counter(change for one in seen.judged for change in one.cleaned)
    changed = sum(bool(one.cleaned) for one in seen.judged)
    how = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    return f"cleaning changed {changed:,} documents ({how})" if changed else ""


def place(seen: CorpusSample, origin: Origin) -> str:
    """Where a document is from, for people."""
    row = f"{origin.file}, {'byte' if origin.file in seen.by_byte else 'row'} {origin.row:,}"
    return f"{row}, piece {origin.piece}" if origin.piece else row


def number(value: float) -> str:
    """A value for people: three digits, or a whole number."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def limit_in_words(bound: Bound) -> str:
    return f"{'at least' if bound.side == 'at_least' else 'at most'} {number(bound.limit)}"


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def summary(seen: CorpusSample) -> str:
    """The funnel as text for a terminal."""
    total = len(seen.judged)
    unread = ", ".join(f"{reason} {count}" for reason, count in seen.unread.items())
    lines = [f"{seen.subset}: {seen.how}", f"  {total:,} documents" + (f" ({unread})" if unread else "")]
    heads = ("rule", "limit", "broken by", "share", "alone", "dropped here", "left")
    rows = [
        (
            line.reason,
            limit_in_words(line.bound) if line.bound else "",
            f"{line.breaks:,}" if line.bound else "",
            share(line.breaks, total) if line.bound else "",
            f"{line.alone:,}" if line.bound else "",
            f"{line.dropped:,}",
            f"{line.left:,}",
        )
        for line in funnel(seen)
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    lines += [f"  {cleaned}"] if (cleaned := cleaning(seen)) else []
    kept = sum(one.reason is None for one in seen.judged)
    lines.append(f"  kept {kept:,} of {total:,} ({share(kept, total)})")
    lines += [f"  {note}" for note in seen.notes]
    return "\n".join(lines)


def as_json(seen: CorpusSample) -> dict[str, Any]:
    """All of it but the documents themselves, of which the examples are shown."""
    return {
        "subset": seen.subset,
        "sample": {"how": seen.how, "rows": seen.rows, "unread": dict(seen.unread), "documents": len(seen.judged)},
        "kept": sum(one.reason is None for one in seen.judged),
        "notes": seen.notes,
        "rules": [
            {
                "reason": line.reason,
                "side": line.bound.side if line.bound else None,
                "limit": line.bound.limit if line.bound else None,
                "breaks": line.breaks,
                "alone": line.alone,
                "dropped": line.dropped,
                "left": line.left,
            }
            for line in funnel(seen)
        ],
        "overlaps": overlaps(seen),
        "measures": [
            {"reasons": measure.reasons, "meaning": measure.meaning, "quantiles": measure.quantiles}
            for measure in measures(seen)
        ],
        "examples": {bound.reason: _examples(seen, bound) for bound in seen.bounds},
    }


def _examples(seen: CorpusSample, bound: Bound) -> dict[str, list[dict[str, Any]]]:
    sides = zip(("allowed", "dropped"), near(seen, bound), strict=True)
    return {
        side: [
            {
                "id": one.document.id,
                "value": one.values[bound.reason],
                "reason": one.reason,
                "origin": place(seen, one.document.origin),
                "text": preview(one.document.text, EXAMPLE_CHARACTERS),
            }
            for one in examples
        ]
        for side, examples in sides
    }
