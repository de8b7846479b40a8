"""Tasks that are made of label columns' values."""

import pandas as pd

from many_tasks import LABELS, task_per_value


def test_the_most_frequent_values_come_first_and_labels_are_no_features():
    frame = pd.DataFrame({label: ["a", "a", "b"] for label in LABELS})
    frame["marital_stat"] = ["c", "c", "c"]
    features, tasks = task_per_value(frame)
    assert (tasks[0].label, tasks[0].positive) == ("marital_stat", "c")
    assert sorted((t.label, t.positive) for t in tasks if t.label == "education") == [
        ("education", "a"),
        ("education", "b"),
    ]
    assert len({task.name for task in tasks}) == len(tasks) == 7
    assert not {f.name for f in features} & {task.label for task in tasks}
