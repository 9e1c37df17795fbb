"""Templates: everything is escaped, and a name that is missing is an error rather than an empty place."""

import pytest
from jinja2 import UndefinedError

from kun.pages.templates import render


def test_values_are_escaped_whatever_the_template_is_called(tmp_path):
    (tmp_path / "page.md.jinja").write_text("<b>{{ text }}</b>\n", encoding="utf-8")
    assert render(tmp_path / "page.md.jinja", text='<i a="b">') == "<b>&lt;i a=&#34;b&#34;&gt;</b>\n"


def test_a_missing_value_is_an_error(tmp_path):
    (tmp_path / "page.html.jinja").write_text("{{ text }}", encoding="utf-8")
    with pytest.raises(UndefinedError, match="text"):
        render(tmp_path / "page.html.jinja")
