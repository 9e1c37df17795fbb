"""The preview of stage 2 as one HTML file, which needs no other: `path.write_text(page(title, [sample, ...]))`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kun.report import filter_preview
from kun.report.filter_plot import WORDS, document_state, histogram
from kun.report.filter_preview import EXAMPLE_CHARACTERS, CorpusSample, SampledDocument
from kun.templates import render
from kun.text.normal import preview

TEMPLATE = Path(__file__).parent / "templates" / "filter_page.html.jinja"


def page(title: str, samples: Sequence[CorpusSample]) -> str:
    """The whole page. Text of the corpora is escaped, cut, and cannot reorder what is around it."""
    names = ("funnel", "limit_in_words", "measures", "near", "number", "overlaps", "place", "share")
    return render(
        TEMPLATE,
        title=title,
        samples=samples,
        legend=WORDS,
        histogram=histogram,
        notes=_notes,
        outcome=_outcome,
        document_state=document_state,
        excerpt=_excerpt,
        zip=zip,
        **{name: getattr(filter_preview, name) for name in names},
    )


def _notes(sample: CorpusSample) -> list[str]:
    """How the sample was taken, and what else there is to know of it, as sentences."""
    unread = ", ".join(f"{reason} {count:,}" for reason, count in sample.unread.items())
    notes = [f"the sample: {sample.how}", unread and f"rows that give no document: {unread}"]
    notes += [filter_preview.cleaning(sample), *sample.notes]
    return [f"{note[0].upper()}{note[1:]}." for note in notes if note]


def _outcome(one: SampledDocument) -> str:
    others = [reason for reason in one.broken if reason != one.reason]
    outcome = "kept" if one.reason is None else f"dropped: {one.reason}"
    return f"{outcome} (and {', '.join(others)})" if others else outcome


def _excerpt(one: SampledDocument) -> str:
    return preview(one.document.text, EXAMPLE_CHARACTERS)
