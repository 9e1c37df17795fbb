"""The preview of stage 2 as one HTML file, which needs no other: `path.write_text(page(title, [seen, ...]))`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from kun.filters.bounds import Bound
from kun.report.filter_plot import STATES, WORDS, histogram
from kun.report.filter_preview import (
    EXAMPLE_CHARACTERS,
    CorpusSample,
    Measure,
    SampledDocument,
    cleaning,
    funnel,
    limit_in_words,
    measures,
    near,
    number,
    overlaps,
    place,
    share,
)
from kun.text.normal import preview


def page(title: str, subsets: Sequence[CorpusSample]) -> str:
    """The whole page. Text of the corpora is escaped, cut, and cannot reorder what is around it."""
    links = " · ".join(f'<a href="#{escape(seen.subset)}">{escape(seen.subset)}</a>' for seen in subsets)
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><header><h1>{escape(title)}</h1>"
        "<p>What the rules of stage 2 would do with a sample, before anything is run. Every rule measures every "
        f"document; stage 2 stops at the first that is broken.</p><nav>{links}</nav></header>"
        + "".join(_subset(seen) for seen in subsets)
        + "</body></html>\n"
    )


def _subset(seen: CorpusSample) -> str:
    found = measures(seen)
    on, off = [m for m in found if m.bounds], [m for m in found if not m.bounds]
    parts = [f'<section id="{escape(seen.subset)}"><h2>{escape(seen.subset)}</h2>', _sample(seen)]
    if not seen.judged:
        return "".join([*parts, "<p>No document in the sample: there is nothing to measure.</p></section>"])
    parts += [_funnel(seen), _overlaps(seen), f"<h3>Values and limits</h3>{LEGEND}"]
    parts += [_measure(seen, measure) for measure in on]
    if off:
        parts += [
            "<h3>Rules that are off</h3><div class=grid>",
            *(_measure(seen, measure) for measure in off),
            "</div>",
        ]
    return "".join([*parts, "</section>"])


def _sample(seen: CorpusSample) -> str:
    kept = sum(one.reason is None for one in seen.judged)
    total = len(seen.judged)
    tiles = [("rows sampled", f"{seen.rows:,}"), ("documents", f"{total:,}"), ("kept", f"{share(kept, total)}")]
    shown = "".join(f"<div class=tile><b>{value}</b><span>{name}</span></div>" for name, value in tiles)
    notes = [f"The sample: {seen.how}."]
    if seen.unread:
        notes += ["Rows that give no document: " + ", ".join(f"{r} {n:,}" for r, n in seen.unread.items()) + "."]
    notes += [f"{said[0].upper()}{said[1:]}." for said in (cleaning(seen), *seen.notes) if said]
    return f"<div class=tiles>{shown}</div>" + "".join(f"<p class=note>{escape(note)}</p>" for note in notes)


def _funnel(seen: CorpusSample) -> str:
    total = len(seen.judged)
    heads = ("rule", "limit", "broken by", "", "alone", "dropped here", "left", "")
    rows = [f"<tr class=all><td>all documents<td><td><td><td><td><td>{total:,}<td>{_bar(total, 0, total)}"]
    for line in funnel(seen):
        cells = [escape(line.reason), "", "", "", "", f"{line.dropped:,}", f"{line.left:,}"]
        if line.bound is not None:
            link = f'<a href="#{_anchor(seen, line.reason)}">{escape(line.reason)}</a>'
            own = [limit_in_words(line.bound), f"{line.breaks:,}", share(line.breaks, total), f"{line.alone:,}"]
            cells[:5] = [link, *own]
        rows.append("<tr><td>" + "<td>".join([*cells, _bar(line.left, line.dropped, total)]))
    head = "".join(f"<th>{name}" for name in heads)
    return (
        f"<h3>Funnel</h3><table class=funnel><thead><tr>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        "<p class=note>Broken by: documents beyond the limit, whatever the other rules say. Alone: those that no other "
        "rule would drop; they come back when this rule is switched off. Dropped here: what the stage counts, in its "
        "order.</p>"
    )


def _bar(left: int, dropped: int, total: int) -> str:
    widths = [100 * part / total for part in (left, dropped)]
    return f'<div class=bar><i style="width:{widths[0]:.2f}%"></i><u style="width:{widths[1]:.2f}%"></u></div>'


def _overlaps(seen: CorpusSample) -> str:
    table = overlaps(seen)
    if len(table) < 2:
        return ""
    head = "".join(f"<th><span>{escape(name)}</span>" for name in table)
    rows = []
    for first, counts in table.items():
        cells = []
        for second, count in counts.items():
            part = count / counts[first]
            said = f"{count:,} of the {counts[first]:,} documents that break {first} break {second}"
            inside = f"<b>{count:,}</b>" if first == second else f"{part:.0%}" if count else ""
            cells.append(f'<td style="--part:{part:.3f}" title="{escape(said)}">{inside}')
        rows.append(f"<tr><th>{escape(first)}{''.join(cells)}")
    return (
        f"<h3>Overlaps</h3><table class=overlaps><thead><tr><th>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        "<p class=note>A row: of the documents that break this rule, the share that breaks the other one as well; on "
        "the diagonal their number.</p>"
    )


def _measure(seen: CorpusSample, measure: Measure) -> str:
    names = ", ".join(measure.reasons)
    quantiles = " · ".join(f"{name} {number(value)}" for name, value in measure.quantiles.items())
    anchors = "".join(f'<a id="{_anchor(seen, reason)}"></a>' for reason in measure.reasons)
    examples = "".join(_examples(seen, bound) for bound in measure.bounds)
    return (
        f"<article>{anchors}<h4>{escape(names)} <small>{escape(measure.meaning)}</small></h4>"
        f"{histogram(seen, measure)}<p class=note>{quantiles}</p>{examples}</article>"
    )


def _anchor(seen: CorpusSample, reason: str) -> str:
    return escape(f"{seen.subset}.{reason}")


def _examples(seen: CorpusSample, bound: Bound) -> str:
    allowed, beyond = near(seen, bound)
    sides = [("Just allowed", allowed), ("Just beyond", beyond)]
    columns = "".join(
        f"<div><h5>{head}</h5>{''.join(_example(seen, bound, one) for one in shown) or '<p class=note>none</p>'}</div>"
        for head, shown in sides
    )
    return (
        f"<details><summary>{escape(bound.reason)}: texts next to the limit "
        f"({escape(limit_in_words(bound))})</summary><div class=sides>{columns}</div></details>"
    )


def _example(seen: CorpusSample, bound: Bound, one: SampledDocument) -> str:
    fate = "kept" if one.reason is None else f"dropped: {one.reason}"
    more = [reason for reason in one.broken if reason != one.reason]
    fate += f" (and {', '.join(more)})" if more else ""
    state = "kept" if one.reason is None else "here" if bound.reason in one.broken else "elsewhere"
    where = f"{place(seen, one.document.origin)} · {one.document.id}"
    return (
        f"<figure class={state}><figcaption><b>{number(one.values[bound.reason])}</b> <em>{escape(fate)}</em>"
        f"<span>{escape(where)}</span></figcaption>"
        f"<blockquote><bdi>{escape(preview(one.document.text, EXAMPLE_CHARACTERS))}</bdi></blockquote></figure>"
    )


LEGEND = "<p class=legend>" + "".join(f"<span><i class={state}></i>{WORDS[state]}</span>" for state in STATES) + "</p>"
STYLE = Path(__file__).with_suffix(".css")
