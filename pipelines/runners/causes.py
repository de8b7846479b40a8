"""What stopped a component, in the words of whoever noticed it."""

import os
import re
import traceback
from collections.abc import Iterator

from mptrec_tf import errors

# Beam hands errors of its workers on as text: a traceback, with the name of the step at its end.
STEP = re.compile(r"( \[while running '[^']*'\])+\s*$")
OURS = re.compile(rf"^{re.escape(errors.__name__)}\.(\w+): ", re.MULTILINE)


def explain(
    error: BaseException, component: str, log_file: str | os.PathLike[str]
) -> errors.MPTRecError:
    """The error that a user is to see.

    Args:
        error: What the component raised.
        component: Its name.
        log_file: Where the whole traceback is.

    Returns:
        The error of the library that is at the ground of it, of the same class, with the
        component's name before its message. A `PipelineError` with the last line and the log where
        it is none of the library's.
    """
    for cause in _chain(error):
        if isinstance(cause, errors.MPTRecError):
            return type(cause)(f"{component}: {_without_step(str(cause))}")
    for cause in _chain(error):
        found = from_text(str(cause), component)
        if found is not None:
            return found
    text = "".join(traceback.format_exception_only(error))
    return errors.PipelineError(f"{component}: {last_line(text)}; see {os.fspath(log_file)}")


def from_text(text: str, component: str) -> errors.MPTRecError | None:
    """The last error of the library in a traceback, if there is one."""
    found = list(OURS.finditer(text))
    if not found:
        return None
    kind = getattr(errors, found[-1][1], errors.PipelineError)
    message = re.split(r"\n\n|\nTraceback ", text[found[-1].end() :])[0]
    return kind(f"{component}: {_without_step(message)}")


def last_line(text: str) -> str:
    """The last line of a traceback that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _without_step(lines[-1]) if lines else ""


def _without_step(text: str) -> str:
    return STEP.sub("", text).strip()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
