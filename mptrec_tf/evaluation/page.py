"""Pages of HTML that need no other file, all in one style."""

import pathlib
import re
from typing import Any

DIRECTORY = pathlib.Path(__file__).parent


def page_template(path: pathlib.Path) -> Any:
    """The template of a page; it extends `page.html`, and all texts in it are escaped.

    Args:
        path: Its file.

    Returns:
        The `jinja2.Template`. Its filter `marked` shows Markdown's code and bold.

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
    environment.filters["marked"] = _marked
    return environment.from_string(path.read_text(encoding="utf-8"))


def _marked(text: str) -> Any:
    """An escaped text in which `code` and **bold** of Markdown are HTML."""
    import markupsafe

    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(text)))
    html = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html)
    return markupsafe.Markup(html)  # noqa: S704 (escaped before the marks were looked for)
