"""Tools for pages and pictures: jinja2 templates, matplotlib plots."""
