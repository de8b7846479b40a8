"""Files that are complete at every moment."""

import json
import os
import pathlib
from typing import Any


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Writes plain data; the file is complete at every moment."""
    path = pathlib.Path(path)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)
