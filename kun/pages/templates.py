"""Text from Jinja templates, escaped for HTML: `render(Path("page.html.jinja"), title="Preview")`."""

from __future__ import annotations

from pathlib import Path


def render(template: Path, **values: object) -> str:
    """Fill in the template. Values are escaped unless marked `safe` in it, or `markupsafe.Markup`; a missing value is
    an error. The template may include others in its folder by name."""
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
