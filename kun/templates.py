"""Text from Jinja templates, escaped for HTML: `render(Path("page.html.jinja"), title="Preview")`."""

from __future__ import annotations

from pathlib import Path


def render(template: Path, **values: object) -> str:
    """The template filled in. What is not marked as `safe` there, or `markupsafe.Markup`, is escaped; a name that the
    template uses and `values` lacks is an error. Templates beside it can be included by their names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
