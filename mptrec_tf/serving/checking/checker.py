"""Whether an exported version would be served, tried without the code that made it."""

import json
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mptrec_tf.errors import ServingError
from mptrec_tf.serving.cases import Case, Value, from_value, read_cases, to_value
from mptrec_tf.serving.checking.files import VersionFiles
from mptrec_tf.serving.checking.lint import lint
from mptrec_tf.serving.layout import CASES_FILE, INPUTS
from mptrec_tf.serving.manifest import Manifest
from mptrec_tf.spec.tasks import SIGNATURES

TOLERANCE = 1e-5
"""Largest difference to the Keras model's score, relative to the task's largest score above 1."""

LOADERS = {
    "c_api": "TensorFlow's C++ loader, no Python of TensorFlow",
    "session": "a session in Python, without mptrec_tf",
}


class Finding(NamedTuple):
    """Something that was checked.

    Attributes:
        what: What was checked.
        problem: What is wrong, `None` if nothing is.

    Example:

    ```python
    for finding in check("serving/census/2"):
        print(finding.what, finding.problem or "is right")
    ```
    """

    what: str
    problem: str | None


class Run(NamedTuple):
    """A run of the graph: what it feeds and fetches, and the case that it tries, if any."""

    what: str
    feeds: dict[str, Value]
    fetches: list[str]
    case: Case | None = None


def check(
    path: str | os.PathLike[str], loaders: Sequence[str] = ("c_api", "session")
) -> list[Finding]:
    """Checks an exported version: its manifest, signatures, answers and warm-up requests.

    The answers come from processes that do not import mptrec_tf, and are compared with those of the
    Keras model that were stored at export.

    Args:
        path: The version's directory.
        loaders: `"c_api"`, a process without any Python of TensorFlow, and `"session"`, a
            `tf.compat.v1.Session`. Defaults to both.

    Returns:
        What was checked, and what is wrong.

    Raises:
        ServingError: If there is no SavedModel at all, or the stored answers cannot be read.

    Example:

    ```python
    problems = [finding for finding in check("serving/census/2") if finding.problem]
    ```
    """
    files = VersionFiles(pathlib.Path(path).absolute())
    findings = check_without_manifest(files, loaders)
    if findings[0].problem:  # the files cannot be read
        return findings
    return [*findings, Finding("manifest", _incomplete(files))]


def check_without_manifest(files: VersionFiles, loaders: Sequence[str]) -> list[Finding]:
    """As `check`, before there is a manifest.

    Args:
        files: Those of the version.
        loaders: As for `check`.
    """
    problems = lint(files)
    findings = [Finding("signatures and files", "; ".join(problems) or None)]
    if problems:
        return findings
    cases = read_cases(files.directory)
    if not cases:
        findings.append(Finding("cases", f"{CASES_FILE} is missing: no answers to compare with"))
    runs = [*_runs_of_cases(files, cases), *_runs_of_warmup(files)]
    for loader in loaders:
        findings += _run(files.directory, loader, runs)
    return findings


def _incomplete(files: VersionFiles) -> str | None:
    """What of a version is missing by its manifest."""
    try:
        manifest = Manifest.read(files.directory)
    except ServingError as error:
        return str(error)
    found = len(files.warmup)
    if found != manifest.warmup_requests:
        return f"there are {found} warm-up requests, and were {manifest.warmup_requests}"
    return None


def _runs_of_cases(files: VersionFiles, cases: Sequence[Case]) -> Iterator[Run]:
    for case in cases:
        signature = files.signatures[case.signature]
        feeds = {signature.inputs[alias].name: value for alias, value in case.inputs.items()}
        outputs = sorted(case.outputs or signature.outputs)
        yield Run(case.name, feeds, [signature.outputs[alias].name for alias in outputs], case)


def _runs_of_warmup(files: VersionFiles) -> Iterator[Run]:
    for number, log in enumerate(files.warmup):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        if kind == "predict_log":
            used = [files.signatures[request.model_spec.signature_name]]
            inputs: dict[str, Any] = {
                alias: tf.make_ndarray(proto) for alias, proto in request.inputs.items()
            }
        else:
            tasks = request.tasks if kind == "multi_inference_log" else [request]
            used = [files.signatures[task.model_spec.signature_name] for task in tasks]
            examples = request.input.example_list.examples
            inputs = {INPUTS: np.array([e.SerializeToString() for e in examples], object)}
        feeds = {used[0].inputs[alias].name: to_value(array) for alias, array in inputs.items()}
        fetches = [tensor.name for signature in used for tensor in signature.outputs.values()]
        yield Run(f"warm-up request {number} ({kind})", feeds, fetches)


def _run(directory: pathlib.Path, loader: str, runs: Sequence[Run]) -> list[Finding]:
    job = {
        "path": str(directory),
        "runs": [{"feeds": run.feeds, "fetches": run.fetches} for run in runs],
    }
    program = pathlib.Path(__file__).parent / "loaders" / f"{loader}.py"
    process = subprocess.run(  # noqa: S603
        [sys.executable, str(program)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
        check=False,
    )
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    label, scales = LOADERS[loader], _scales(run.case for run in runs if run.case)
    if process.returncode:
        where = runs[len(answers)].what if 0 < len(answers) < len(runs) else "loading"
        return [Finding(f"{label}: {where}", process.stderr.strip()[-2000:] or "it crashed")]
    findings = [
        Finding(f"{label}: {run.what}", _compare(run.case, answer, scales))
        for run, answer in zip(runs, answers, strict=True)
        if run.case is not None
    ]
    failed = [
        f"{run.what}: {answer['error']}"
        for run, answer in zip(runs, answers, strict=True)
        if run.case is None and "error" in answer
    ]
    replayed = sum(run.case is None for run in runs)
    findings.append(Finding(f"{label}: {replayed} warm-up requests", "; ".join(failed) or None))
    return findings


def _scales(cases: Iterable[Case]) -> dict[str, float]:
    """The largest score of each task, at least 1.

    A score near 0 is rounded as the large ones are of which it is the difference.
    """
    scales: dict[str, float] = {}
    for case in cases:
        for alias, value in case.outputs.items():
            if value["dtype"] != "string":
                scores, task = np.abs(from_value(value)), _task(case, alias)
                largest = np.max(scores, where=np.isfinite(scores), initial=1.0)
                scales[task] = max(float(largest), scales.get(task, 1.0))
    return scales


def _task(case: Case, alias: str) -> str:
    return alias if case.signature in SIGNATURES else case.signature


def _compare(case: Case, answer: dict[str, Any], scales: Mapping[str, float]) -> str | None:
    if case.error is not None:
        if "error" not in answer:
            return f"was answered, expected an error with {case.error!r}"
        if case.error not in answer["error"]:
            return f"gave the error {answer['error']!r}, expected {case.error!r} in it"
        return None
    if "error" in answer:
        return str(answer["error"])
    for alias, value in zip(sorted(case.outputs), answer["outputs"], strict=True):
        expected, actual = from_value(case.outputs[alias]), from_value(value)
        if expected.shape != actual.shape:
            return f"{alias!r} has the shape {actual.shape}, expected {expected.shape}"
        if expected.dtype == object:
            if not np.array_equal(expected, actual):
                return f"{alias!r} differs from the model's"
            continue
        tolerance = TOLERANCE * scales[_task(case, alias)]
        if not np.allclose(actual, expected, rtol=TOLERANCE, atol=tolerance):
            difference = float(np.max(np.abs(actual - expected), initial=-math.inf))
            return f"{alias!r} differs from the Keras model's score by up to {difference:.2g}"
    return None
