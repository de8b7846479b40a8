"""Which weights learn from which task."""

import numpy as np
import pytest

from mptrec_tf import ModelError

from .conftest import randomize

TASKS = ("click", "kind", "price")


def touched(gradient, axis=0):
    """The positions along an axis that get a gradient."""
    others = tuple(a for a in range(gradient.ndim) if a != axis)
    return set(np.flatnonzero(np.any(gradient != 0, axis=others)).tolist())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_stem_lets_no_task_into_the_experts_of_another(make_baseline, arrays, gradients_of, number):
    """Also from the second task on, each task does train its own experts and embeddings."""
    model = make_baseline("stem", *TASKS, specific_experts=2, shared_experts=2)
    randomize(model)
    x, y = arrays(*TASKS)

    gradients = gradients_of(model, x, y, TASKS[number])

    own = {2 * number, 2 * number + 1}
    for layer in range(2):
        assert touched(gradients[f"experts/kernel_{layer}"]) == own
        assert touched(gradients[f"experts/bias_{layer}"]) == own
        experts = gradients[f"shared_experts/kernel_{layer}"]
        assert touched(experts, axis=0 if layer else 1) == {0, 1}
    assert touched(gradients["gates/kernel"]) == {number}
    assert touched(gradients["gates/kernel"], axis=2) == set(range(8))
    assert touched(gradients["towers/hidden/kernel_0"]) == {number}
    for table in ("table_3", "table_4"):
        assert touched(gradients[f"features/embedding/{table}"])
        learning = {t for t in TASKS if touched(gradients[f"features_{t}/embedding/{table}"])}
        assert learning == {TASKS[number]}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_single_tasks_share_nothing(make_baseline, arrays, gradients_of, number):
    model = make_baseline("single_task", *TASKS)
    randomize(model)
    x, y = arrays(*TASKS)

    gradients = gradients_of(model, x, y, TASKS[number])

    learning = {t for t in TASKS if touched(gradients[f"features_{t}/embedding/table_4"])}
    assert learning == {TASKS[number]}
    for name in ("experts/kernel_0", "experts/kernel_1", "towers/hidden/kernel_0"):
        assert touched(gradients[name]) == {number}


@pytest.mark.parametrize(("name", "kind"), [("gradnorm", "GradNorm"), ("pcgrad", "PCGrad")])
def test_single_tasks_have_no_gradients_to_compare(make_baseline, name, kind):
    with pytest.raises(ModelError, match=f"balancing by {kind} .* in a SingleTask they share none"):
        make_baseline("single_task", *TASKS, compile_with={"balancing": name})
    assert make_baseline("single_task", *TASKS, compile_with={"balancing": "famo"}).balancing
    assert make_baseline("single_task", "click", compile_with={"balancing": name}).compiled


def test_a_weight_that_is_shared_sparsely_learns_from_the_tasks_that_use_it(
    make_baseline, arrays, gradients_of
):
    model = make_baseline("sparse_sharing", *TASKS, activation="tanh")
    randomize(model)
    rng = np.random.default_rng(1)
    for mask in model.network.masks:
        mask.assign(rng.random(mask.shape) < 0.4)
    x, y = arrays(*TASKS)

    for number, name in enumerate(TASKS):
        gradients = gradients_of(model, x, y, name)

        for layer, mask in enumerate(model.network.masks):
            used = np.take(mask, number, axis=0 if layer else 1) > 0
            gradient = gradients[f"network/kernel_{layer}"]
            assert not used.all()
            np.testing.assert_array_equal(gradient[~used], 0)
            assert np.mean(gradient[used] != 0) > 0.8  # inner units that lead nowhere get none
        assert set(gradients) == {
            weight.path.removeprefix(f"{model.name}/") for weight in model.trainable_weights
        }
        assert touched(gradients["towers/hidden/kernel_0"]) == {number}


def test_ple_specific_experts_of_the_last_level_are_of_one_task(
    make_baseline, arrays, gradients_of
):
    """At the last level a task's experts are its own; before, the shared path mixes all."""
    model = make_baseline("ple", *TASKS, levels=2)
    randomize(model)
    x, y = arrays(*TASKS)

    gradients = gradients_of(model, x, y, "kind")

    assert touched(gradients["specific/experts_1/kernel_0"]) == {1}
    assert touched(gradients["specific/experts_0/kernel_1"]) == {0, 1, 2}
    assert touched(gradients["specific/gates_1/kernel"]) == {1}
