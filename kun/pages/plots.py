"""Plots, by matplotlib: draw on `axes = new_axes(title="loss")`, then `png(axes)`; `svg(axes, "loss")` for a page."""

from __future__ import annotations

import io
import re
from typing import Any


def new_axes(**labels: str) -> Any:
    """Axes in a new figure; `labels` are `title`, `xlabel` and `ylabel`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(8, 4.5), layout="constrained").add_subplot(**labels)


def png(axes: Any) -> bytes:
    """The figure of these axes as PNG."""
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def svg(axes: Any, name: str) -> str:
    """The figure of these axes as an SVG element for an HTML page, with text as text; equal plots give equal bytes.
    `name` must be unique on the page: the ids of the parts are derived from it."""
    import matplotlib

    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        axes.figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text[text.index("<svg ") :], count=1, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # ids of groups, unused and the same in every plot
    return re.sub(r"\s+", " ", text)
