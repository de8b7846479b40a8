"""Tasks that Beam runs, each once: a run that was cut off goes on with those that are left.

What Beam moves is the number of a task, and a task reads and writes whole tables: the cost per
element of a runner does not matter.
"""

import contextlib
import functools
import json
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from mptrec_tf.errors import DataError
from mptrec_tf.files import write_json, write_text

LOCAL = ("--runner=FnApiRunner",)
"""Arguments of Beam for a run in this process."""

ERROR = "error.txt"


class Job(NamedTuple):
    """Something to be done once.

    Attributes:
        name: Name, of which its result has its file name.
        size: How much it is, for the progress bar.
        argument: What the function that does it is given.
    """

    name: str
    size: int
    argument: Any


def run_jobs(
    jobs: Sequence[Job],
    do: Callable[[Any], dict[str, Any]],
    directory: pathlib.Path,
    *,
    beam: Sequence[str] = LOCAL,
    label: str | None = None,
    unit: str = "B",
) -> list[dict[str, Any]]:
    """Runs jobs by Beam, except those whose result is there.

    Args:
        jobs: The jobs.
        do: Does a job, given its argument, and returns a result that JSON can hold. What it writes
            must be complete when it returns; it may be done twice where a run was cut off.
        directory: Where the results are kept; every worker needs to see it.
        beam: Arguments of Beam.
        label: Label of the progress bar. Defaults to `None`, no bar.
        unit: Unit of the sizes. Defaults to `"B"`.

    Returns:
        The results, in the order of the jobs.

    Raises:
        DataError: What a job raised; no further ones are begun then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    error = directory / ERROR
    error.unlink(missing_ok=True)
    left = [number for number, job in enumerate(jobs) if not _result(directory, job).is_file()]
    if left:
        run = functools.partial(_run, tuple(jobs), do, directory)
        with _progress_bar(jobs, directory, label, unit):
            _run_by_beam(left, run, beam)
    if error.is_file():
        raise DataError(error.read_text(encoding="utf-8"))
    return [json.loads(_result(directory, job).read_text(encoding="utf-8")) for job in jobs]


def _run_by_beam(numbers: list[int], run: Callable[[int], None], arguments: Sequence[str]) -> None:
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError("Apache Beam is not installed: pip install 'mptrec-tf[tfx]'") from error
    with apache_beam.Pipeline(options=PipelineOptions(list(arguments))) as pipeline:
        _ = (
            pipeline
            | "Jobs" >> apache_beam.Create(numbers, reshuffle=True)
            | "Run" >> apache_beam.Map(run)
        )


def _run(
    jobs: tuple[Job, ...],
    do: Callable[[Any], dict[str, Any]],
    directory: pathlib.Path,
    number: int,
) -> None:
    if (directory / ERROR).is_file():
        return
    try:
        result = do(jobs[number].argument)
    except DataError as error:
        # Kept, not raised: runners wrap what is raised in their own errors.
        write_text(directory / ERROR, str(error))
        return
    write_json(_result(directory, jobs[number]), result)


def _result(directory: pathlib.Path, job: Job) -> pathlib.Path:
    return directory / f"{job.name}.json"


@contextlib.contextmanager
def _progress_bar(
    jobs: Sequence[Job], directory: pathlib.Path, label: str | None, unit: str
) -> Iterator[None]:
    """Follows the results that appear, wherever the workers are."""
    waiting = {job.name: job for job in jobs}
    over = threading.Event()

    def look(bar: tqdm) -> None:
        for job in list(waiting.values()):
            if _result(directory, job).is_file():
                bar.update(job.size)
                del waiting[job.name]

    def follow(bar: tqdm) -> None:
        while not over.wait(0.5):
            look(bar)

    total = sum(job.size for job in jobs)
    with tqdm(desc=label, total=total, unit=unit, unit_scale=True, disable=label is None) as bar:
        look(bar)
        thread = threading.Thread(target=follow, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look(bar)
