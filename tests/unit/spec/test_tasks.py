import pytest

from mptrec_tf import SpecError, Task


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positive": "1", "above": 3.0}, r"give one of \['positive', 'above'\]"),
        ({"positive": "1", "negative": "0"}, r"give one of \['positive', 'negative'\]"),
        ({"kind": "regression", "above": 3.0}, "above is for binary tasks only"),
        ({"kind": "multiclass", "positive": "a", "classes": ("a", "b")}, "positive is for binary"),
        ({"kind": "multiclass"}, "needs 2 or more classes"),
        ({"kind": "multiclass", "classes": ("a",)}, "needs 2 or more classes"),
        ({"kind": "multiclass", "classes": ("a", "b", "a")}, "classes must differ"),
        ({"classes": ("a", "b")}, "classes is for multiclass tasks only"),
    ],
)
def test_rules_that_do_not_fit_the_kind_are_refused_with_the_task_name(arguments, message):
    with pytest.raises(ValueError, match=f"task 'click': .*{message}"):
        Task("click", label="click", **arguments)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        ({"kind": "ranking"}, "kind", "ranking"),
        ({"positive": 1.5}, "positive", "1.5"),
        ({"positive": True}, "positive", "True"),
        ({"above": "3"}, "above", "3"),
        ({"loss_weight": -1.0}, "loss_weight", "-1.0"),
        ({"loss_weight": float("inf")}, "loss_weight", "inf"),
        ({"mask": ""}, "mask", "''"),
        ({"masks": "seen"}, "masks", "no such key"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_value(arguments, key, value):
    with pytest.raises(SpecError) as caught:
        Task("click", label="click", **arguments)
    assert str(caught.value).startswith(f"Task: {key}")
    assert value in str(caught.value)


@pytest.mark.parametrize("name", ["", "2nd", "a b", "a-b", "a/b", "_a", "été"])
def test_a_task_name_is_an_identifier_since_metrics_and_signatures_are_named_after_it(name):
    with pytest.raises(SpecError, match=r"^Task: name: "):
        Task(name=name, label="click")


@pytest.mark.parametrize("name", ["columns", "encoded", "heads", "serving_default"])
def test_a_task_with_the_name_of_another_signature_is_refused(name):
    with pytest.raises(ValueError, match=f"task '{name}': every exported model has a signature of"):
        Task(name, label="click")


@pytest.mark.parametrize(("name", "metric"), [("mean", "mean_auc"), ("val", "val_loss")])
def test_a_task_whose_metric_would_be_that_of_all_tasks_is_refused(name, metric):
    with pytest.raises(
        ValueError, match=f"task '{name}': a metric of it would be named '{metric}'"
    ):
        Task(name, label="click")


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        (Task("t", "l"), 1),
        (Task("t", "l", kind="regression"), 1),
        (Task("t", "l", kind="multiclass", classes=("a", "b", "c")), 3),
    ],
)
def test_a_tower_has_an_output_for_each_class_or_one(task, outputs):
    assert task.num_outputs == outputs


def test_columns_are_label_mask_and_weight():
    assert Task("t", "l").columns == ("l",)
    assert Task("t", "l", weight="w").columns == ("l", "w")
    assert Task("t", "l", mask="m", weight="w").columns == ("l", "m", "w")


def test_a_name_like_a_metric_of_validation_is_refused():
    with pytest.raises(
        SpecError, match="'val_click': metrics that begin with val_ are those of val"
    ):
        Task("val_click", "click")
