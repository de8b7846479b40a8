"""Features and tasks together."""

import dataclasses
import os
import pathlib
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from mptrec_tf.errors import SpecError
from mptrec_tf.spec.features import Feature
from mptrec_tf.spec.parsing import STRICT, dump, load_yaml, parse, raises_spec_errors, to_yaml
from mptrec_tf.spec.tasks import Task


@raises_spec_errors
@dataclass(frozen=True, config=STRICT)
class DataSpec:
    """What a data set holds: the features that models read and the tasks that they predict.

    Args:
        features: The features, in the order in which the model reads them.
        tasks: The tasks of every stage. A model takes those that it is given, see `with_tasks`.

    Raises:
        SpecError: If there is no feature, if a name is given twice, or if a task's label column is
            also a feature: a model that reads a label predicts nothing.

    Example:

    >>> spec = DataSpec(
    ...     features=[NumericFeature("age"), CategoricalFeature("city", hash_buckets=100)],
    ...     tasks=[Task("click", label="click"), Task("like", label="like")],
    ... )
    >>> [task.name for task in spec.with_tasks("like").tasks]
    ['like']
    """

    features: Annotated[tuple[Feature, ...], Field(strict=False)]
    tasks: Annotated[tuple[Task, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _check_names(self) -> "DataSpec":
        if not self.features:
            raise ValueError("features: at least one is required")
        for what, names in (
            ("feature", [feature.name for feature in self.features]),
            ("task", [task.name for task in self.tasks]),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"the {what} {repeated[0]!r} is given twice")
        check_labels_are_not_features(self.features, self.tasks)
        return self

    def with_tasks(self, *names: str) -> "DataSpec":
        """The same features with some of the tasks, in the order given.

        Args:
            *names: Task names.

        Returns:
            A new `DataSpec`.

        Raises:
            SpecError: If there is no such task.
        """
        return dataclasses.replace(self, tasks=tuple(self.task(name) for name in names))

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            SpecError: If there is no such task; the message lists those there are.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        raise SpecError(f"no task {name!r}; the tasks are {[task.name for task in self.tasks]}")

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> "DataSpec":
        """Reads a spec from a YAML file with the keys `features` and `tasks`.

        Raises:
            SpecError: If the file does not fit; every problem is named with its key and value.
        """
        return parse(cls, load_yaml(path), str(path))

    def to_yaml(self, path: str | os.PathLike[str]) -> None:
        """Writes the spec as YAML, leaving out what is at its default."""
        pathlib.Path(path).write_text(to_yaml(dump(self)), encoding="utf-8")


def check_labels_are_not_features(features: tuple[Feature, ...], tasks: tuple[Task, ...]) -> None:
    """Refuses a task whose label column a model would read.

    Raises:
        SpecError: Names the task and the column.
    """
    names = {feature.name for feature in features}
    for task in tasks:
        if task.label in names:
            raise SpecError(
                f"task {task.name!r}: its label column {task.label!r} is also a feature; "
                f"remove {task.label!r} from the features"
            )
