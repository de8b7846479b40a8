"""Pages of HTML that need no other file, all in one style."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2

DIRECTORY = pathlib.Path(__file__).parent


def render(template: pathlib.Path, context: Mapping[str, Any]) -> str:
    """A page from a template that extends `page.html`; all texts are escaped.

    Args:
        template: The template.
        context: What it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([DIRECTORY, template.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = template.read_text(encoding="utf-8")
    return environment.from_string(text).render(context)
