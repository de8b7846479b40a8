"""Labels and example weights of the tasks, read from raw columns. A missing label is NaN."""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mptrec_tf.data.columns import as_floats, as_strings
from mptrec_tf.data.readers import Chunk, Source, read_chunks
from mptrec_tf.errors import DataError
from mptrec_tf.spec import Task
from mptrec_tf.spec.features import LARGEST
from mptrec_tf.spec.tasks import Values

LARGEST_NUMBER = LARGEST**0.5
"""What a regression label can be at most: the loss squares it."""

A_NUMBER = f"a finite number, of {LARGEST_NUMBER:.1e} at most"

SHOWN_TEXTS = 10
MAX_TEXTS = 10_000
"""Different label texts that are counted; beyond them the rarest are let go."""


def encode_labels(
    tasks: Iterable[Task], chunk: Chunk
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels and weights of some rows.

    Args:
        tasks: The tasks.
        chunk: Rows with the tasks' label, mask and weight columns.

    Returns:
        Labels by task, float32 (rows,): 0 or 1 for a binary task, the index of the class for a
        multiclass task, the number for a regression task, NaN where a row has no label. And weights
        by task, float32 (rows,), for those tasks that have a weight column; where a row has no
        label, a weight that would be wrong is 0.

    Raises:
        DataError: If a mask, a label where the mask is 1, or a weight where there is a label is not
            one that the task allows; names the task, the column and the value.

    Example:

    >>> chunk = next(read_chunks({"stars": [5, 2, None]}))
    >>> labels, weights = encode_labels([Task("like", "stars", above=3.0)], chunk)
    >>> labels["like"]
    array([ 1.,  0., nan], dtype=float32)
    """
    labels, weights = {}, {}
    for task in tasks:
        column = chunk.table[task.label]
        if task.mask is not None:
            column = _where(column, _mask(task, task.mask, chunk))
        values = _labels(task, column, chunk)
        labels[task.name] = values.astype(np.float32)
        if task.weight is not None:
            weight = _weights(task, task.weight, chunk, ~np.isnan(values))
            weights[task.name] = weight.astype(np.float32)
    return labels, weights


def check_labels(task: Task, labels: np.ndarray, where: str) -> None:
    """Refuses labels in memory that a task does not allow.

    Raises:
        DataError: Names the task and the value.
    """
    known = labels[~np.isnan(labels)]
    if task.kind == "binary":
        wrong, allowed = ~np.isin(known, (0, 1)), "0 or 1"
    elif task.kind == "multiclass":
        wrong = ~np.isin(known, np.arange(task.num_outputs))
        allowed = f"a class index from 0 to {task.num_outputs - 1}"
    else:
        wrong, allowed = ~(np.abs(known) <= LARGEST_NUMBER), A_NUMBER
    if wrong.any():
        raise DataError(
            f"{where}: a label of the {task.kind} task {task.name!r} is {known[wrong][0]:g}, "
            f"expected {allowed}, or NaN for no label"
        )


def check_example_weights(task: Task, weights: Any, labels: Any, where: str) -> None:
    """Refuses example weights of labelled rows that are below 0, or not finite, or of other rows.

    Args:
        task: The task.
        weights: Numbers (B,) or (B, 1).
        labels: The task's labels likewise, NaN for no label.
        where: What to call them.

    Raises:
        DataError: Names the task and the value.
    """
    weights, known = np.ravel(weights), ~np.isnan(np.ravel(labels))
    if len(weights) != len(known):
        raise DataError(
            f"{where}: the task {task.name!r} has {len(weights):,} example weights for "
            f"{len(known):,} labels"
        )
    known = np.asarray(weights, np.float32)[known]
    wrong = ~((known >= 0) & (known <= LARGEST))
    if wrong.any():
        raise DataError(
            f"{where}: an example weight of the task {task.name!r} is {known[wrong][0]:g}, "
            "expected a number of 0 or more where a row has a label"
        )


def require_labels(tasks: Iterable[Task], labelled: dict[str, int], where: str) -> None:
    """Refuses data in which a task has no label at all.

    Args:
        tasks: The tasks.
        labelled: How many rows have a label, by task.
        where: What to call the source.

    Raises:
        DataError: Names the task and its columns.
    """
    for task in tasks:
        if labelled[task.name] == 0:
            raise DataError(
                f"{where}: no row has a label of the task {task.name!r} "
                f"(columns {list(task.columns)})"
            )


def has_labels(task: Task, source: Source) -> bool:
    """Whether a source has the columns of a task, and a label in at least one row.

    Rows are read up to the first label; those of a CSV file that cannot be parsed are passed over.

    Args:
        task: The task.
        source: The rows.

    Raises:
        DataError: If a label is not one that the task allows.

    Example:

    >>> has_labels(Task("click", "click"), {"click": [None, 1]})
    True
    """
    chunks = read_chunks(source, tasks=[task], left_out=lambda reason: None)
    try:
        first = next(chunks)
    except DataError:  # the columns are not there
        return False
    return any(
        not np.isnan(encode_labels([task], chunk)[0][task.name]).all()
        for chunk in itertools.chain([first], chunks)
    )


class RuleCounts:
    """Whether the values of each task's rule ever occur, and which texts do where they do not.

    A value that is spelled otherwise than in the data gives all rows the same label. One of several
    may be a rare category, so a rule is refused only if none of its values occurs. Rows that are
    trained on are also refused where all labels of a binary task are the same for another reason.

    Args:
        tasks: The tasks.

    Attributes:
        unmatched: By task whose rule has not matched yet, how often each label text occurs.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._binary = [task for task in tasks if task.kind == "binary"]
        self._tasks = {task.name: task for task in self._binary if _rule(task) is not None}
        self.unmatched: dict[str, Counter[str]] = {name: Counter() for name in self._tasks}
        self._seen: dict[str, set[float]] = {task.name: set() for task in self._binary}

    @property
    def open_tasks(self) -> list[Task]:
        """The tasks whose rule has not matched yet."""
        return [self._tasks[name] for name in self.unmatched]

    def update(self, chunk: Chunk, labels: Mapping[str, np.ndarray]) -> None:
        """Counts rows.

        Args:
            chunk: The rows.
            labels: What `encode_labels` gives of them, of `open_tasks` at least.
        """
        for name in self._seen.keys() & labels.keys():
            if len(seen := self._seen[name]) < 2:
                seen |= {value for value in (0.0, 1.0) if np.any(labels[name] == value)}
        for task in self.open_tasks:
            values = labels[task.name]
            if np.any(values == (0.0 if task.positive is None else 1.0)):
                del self.unmatched[task.name]
                continue
            labelled = chunk.table[task.label].filter(pa.array(~np.isnan(values)))
            counted = pc.value_counts(as_strings(labelled, task.label, chunk.where))
            self._add(task.name, {c["values"].as_py(): c["counts"].as_py() for c in counted})

    def merge(self, unmatched: Mapping[str, Mapping[str, int]]) -> None:
        """Adds the `unmatched` of other rows, which does not tell their labels."""
        self._seen = {}
        self.unmatched = {n: texts for n, texts in self.unmatched.items() if n in unmatched}
        for name in self.unmatched:
            self._add(name, unmatched[name])

    def require(self, names: Iterable[str], where: str) -> None:
        """Refuses a task whose labels are all the same; after `merge`, if its rule matched no row.

        Args:
            names: The tasks that are trained.
            where: What to call the rows.

        Raises:
            DataError: Names the task, the column, the rule and what the column holds.
        """
        names = set(names)
        for task, problem in self._alike():
            if task.name in names:
                raise DataError(f"{where}: {problem}")

    def warn(self, where: str) -> None:
        """Tells of the tasks whose labels are all the same, and so have no AUC.

        Args:
            where: What to call the rows.
        """
        for task, problem in self._alike():
            if self.unmatched.get(task.name, True):
                warnings.warn(f"{where}: {problem}", stacklevel=2)

    def _alike(self) -> Iterator[tuple[Task, str]]:
        """The tasks whose labels are all the same, and what to say of each."""
        for task in self.open_tasks:
            yield task, self._unmatched(task)
        for task in self._binary:
            seen, rule = self._seen.get(task.name, ()), _shown_rule(task)
            if task.name not in self.unmatched and len(seen) == 1:
                (value,) = seen
                yield (
                    task,
                    f"all labels of the task {task.name!r} in column {task.label!r} are "
                    f"{value:g}" + (f" by {rule}" if rule else ""),
                )

    def _unmatched(self, task: Task) -> str:
        common = [text for text, _ in self.unmatched[task.name].most_common(SHOWN_TEXTS)]
        return (
            f"no label of the task {task.name!r} in column {task.label!r} is {_shown_rule(task)}, "
            f"so all rows have the same label; the most frequent values are {common}"
        )

    def _add(self, name: str, texts: Mapping[str, int]) -> None:
        counts = self.unmatched[name]
        counts.update(texts)
        if len(counts) > MAX_TEXTS:
            self.unmatched[name] = Counter(dict(counts.most_common(MAX_TEXTS // 2)))


def _rule(task: Task) -> Values | None:
    return task.positive if task.positive is not None else task.negative


def _shown_rule(task: Task) -> str:
    for which in ("positive", "negative", "above"):
        if (rule := getattr(task, which)) is not None:
            return f"{which}={rule!r}"
    return ""


def _where(column: pa.ChunkedArray, counts: np.ndarray) -> pa.ChunkedArray:
    """A column that is empty in the rows that do not count, so that they are not checked."""
    return column.take(pa.array(np.arange(len(counts)), mask=~counts))


def _mask(task: Task, name: str, chunk: Chunk) -> np.ndarray:
    """In which rows the mask is 1."""
    mask = _numbers(task, name, chunk.table[name], chunk)
    _refuse(task, name, chunk, mask, ~np.isin(mask, (0, 1)) & ~np.isnan(mask), "0 or 1")
    return mask == 1


def _weights(task: Task, name: str, chunk: Chunk, labelled: np.ndarray) -> np.ndarray:
    """What the rows weigh."""
    weights = _numbers(task, name, chunk.table[name], chunk)
    wrong = ~((weights >= 0) & (weights <= LARGEST))
    _refuse(task, name, chunk, weights, labelled & wrong, "a weight of 0 or more")
    # A right one stays also without a label: a funnel may know the label from an earlier step.
    return np.where(wrong, 0, weights)


def _labels(task: Task, column: pa.ChunkedArray, chunk: Chunk) -> np.ndarray:
    rule = _rule(task)
    if rule is not None:
        texts = as_strings(column, task.label, chunk.where)
        found = _occurs(texts, [str(v) for v in (rule if isinstance(rule, tuple) else (rule,))])
        values = (found if task.positive is not None else ~found).astype(np.float64)
        return np.where(_is_empty(texts), np.nan, values)
    if task.classes is not None:
        texts = as_strings(column, task.label, chunk.where)
        index = {name: float(i) for i, name in enumerate(task.classes)}
        values = np.array([index.get(t, -1.0) for t in texts.to_pylist()])
        empty = _is_empty(texts)
        unknown = (values < 0) & ~empty
        if unknown.any():
            value = texts[int(np.argmax(unknown))].as_py()
            raise DataError(
                f"{chunk.where}: column {task.label!r} has {value!r}, which is none of the classes "
                f"of the task {task.name!r}: {list(task.classes)}"
            )
        return np.where(empty, np.nan, values)
    numbers = _numbers(task, task.label, column, chunk)
    if task.above is not None:
        return np.where(np.isnan(numbers), np.nan, numbers > task.above)
    if task.kind == "binary":
        wrong = ~np.isin(numbers, (0, 1)) & ~np.isnan(numbers)
        _refuse(task, task.label, chunk, numbers, wrong, "0 or 1 (or give the task a rule)")
    else:
        _refuse(task, task.label, chunk, numbers, np.abs(numbers) > LARGEST_NUMBER, A_NUMBER)
    return numbers


def _occurs(texts: pa.Array, values: list[str]) -> np.ndarray:
    """Which texts are one of some values; `1.0`, as pandas writes 1 beside an empty cell, is 1."""
    allowed = pa.array(values)
    found = pc.is_in(texts, value_set=allowed).to_numpy(zero_copy_only=False)
    if any(re.fullmatch(r"-?[0-9]+", value) for value in values):
        whole = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0*$", r"\1")
        found |= pc.is_in(whole, value_set=allowed).to_numpy(zero_copy_only=False)
    return found


def _numbers(task: Task, name: str, column: pa.ChunkedArray, chunk: Chunk) -> np.ndarray:
    """A column that a task reads as numbers."""
    try:
        return as_floats(column, name, chunk.where)
    except DataError as error:
        ruled = name == task.label and task.kind == "binary"
        hint = " (or give the task a rule, such as positive='yes')" if ruled else ""
        raise DataError(f"{error}; the task {task.name!r} reads it{hint}") from error


def _is_empty(texts: pa.Array) -> np.ndarray:
    return texts.fill_null("").to_numpy(zero_copy_only=False) == ""


def _refuse(
    task: Task, column: str, chunk: Chunk, values: np.ndarray, wrong: np.ndarray, expected: str
) -> None:
    if wrong.any():
        raise DataError(
            f"{chunk.where}: column {column!r} of the task {task.name!r} has "
            f"{values[wrong][0]:g}, expected {expected}"
        )
