"""Pages of HTML that need no other file, all in one style."""

import pathlib
from typing import Any

DIRECTORY = pathlib.Path(__file__).parent


def page_template(path: pathlib.Path) -> Any:
    """The template of a page; it extends `page.html`, and all texts in it are escaped.

    Args:
        path: Its file.

    Returns:
        The `jinja2.Template`.

    Raises:
        ImportError: If jinja2 is not installed.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([DIRECTORY, path.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(path.read_text(encoding="utf-8"))
