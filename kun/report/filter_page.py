"""The preview of stage 2 as one HTML file, which needs no other: `path.write_text(page(title, [sample, ...]))`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kun.pages.templates import render
from kun.report import filter_preview
from kun.report.filter_plot import WORDS, Histogram, document_state, histograms
from kun.report.filter_preview import EXAMPLE_CHARACTERS, CorpusSample, Measure, SampledDocument
from kun.text.normal import preview

TEMPLATE = Path(__file__).parent / "templates" / "filter_page.html.jinja"


def page(title: str, samples: Sequence[CorpusSample]) -> str:
    """The whole page. Text of the corpora is escaped, cut, and cannot reorder what is around it."""
    return render(
        TEMPLATE,
        title=title,
        samples=samples,
        legend=WORDS,
        plots=_plots,
        notes=_notes,
        outcome=_outcome,
        document_state=document_state,
        excerpt=_excerpt,
        preview=filter_preview,
        zip=zip,
    )


def _plots(sample: CorpusSample) -> list[tuple[Measure, Histogram]]:
    found = filter_preview.measures(sample)
    return list(zip(found, histograms(sample, found), strict=True))


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
