"""What calls are given as tasks and features, checked."""

from typing import Any

from mptrec_tf.errors import SpecError
from mptrec_tf.spec.features import CategoricalFeature, Feature, NumericFeature
from mptrec_tf.spec.tasks import Task


def given_task(task: Any) -> Task:
    """A task that a call is given.

    Args:
        task: The task.

    Raises:
        SpecError: If it is something else, such as a name.
    """
    return _given(task, (Task,), "a task must be a Task, such as Task('click', label='click')")


def given_tasks(tasks: Any) -> tuple[Task, ...]:
    """The tasks that a call is given.

    Args:
        tasks: A list of tasks.

    Raises:
        SpecError: If it is no list, or one of something else, such as names.
    """
    if not isinstance(tasks, list | tuple):
        raise SpecError(
            "tasks must be a list of Tasks, such as [Task('click', label='click')]. "
            f"Received: {tasks!r}"
        )
    return tuple(map(given_task, tasks))


def given_features(features: Any) -> tuple[Feature, ...]:
    """The features that a call is given.

    Args:
        features: A list of features.

    Raises:
        SpecError: If it is no list, or one of something else.
    """
    expected = "features must be a list of features, such as [NumericFeature('age')]"
    if not isinstance(features, list | tuple):
        raise SpecError(f"{expected}. Received: {_shown(features)}")
    kinds = (NumericFeature, CategoricalFeature)
    return tuple(_given(feature, kinds, expected) for feature in features)


def _given(value: Any, kinds: tuple[type, ...], expected: str) -> Any:
    if not isinstance(value, kinds):
        raise SpecError(f"{expected}. Received: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__
