"""What each baseline gives equals its formulas, for its own tasks and for an added one."""

import numpy as np
import pytest

from .conftest import Net, randomize, softmax

TASKS = ("click", "kind", "price")
OUTPUTS = [1, 3, 1]
SETTINGS = {
    "mmoe": {"num_experts": 4},
    "ple": {"levels": 3, "specific_experts": 2, "shared_experts": 2},
    "stem": {"specific_experts": 2, "shared_experts": 2},
}


def single_task(net):
    logits = []
    for k, task in enumerate(TASKS):
        x = net.inputs(f"features_{task}")
        own = net.expert("experts", k, x, side_by_side=False)
        logits.append(net.tower("towers", k, OUTPUTS, own))
    return logits


def shared_bottom(net):
    bottom = net.expert("bottom", 0, net.inputs(), side_by_side=True)
    logits = [net.tower("towers", k, OUTPUTS, bottom, side_by_side=True) for k in range(3)]
    return [*logits, net.tower("buy", 0, [1], bottom, side_by_side=True)]


def mmoe(net):
    x = net.inputs()
    experts = [net.expert("experts", e, x, side_by_side=True) for e in range(4)]
    logits = []
    for name, k, outputs in [*(("heads", k, OUTPUTS) for k in range(3)), ("buy", 0, [1])]:
        gate = net.columns(f"{name}/gates", k, 4, x)
        fused = sum(gate[:, e, None] * experts[e] for e in range(4))
        logits.append(net.tower(f"{name}/towers", k, outputs, fused))
    return logits


def ple(net, levels=3, weights_of=None):
    x = net.inputs()
    own, shared_input = dict.fromkeys(PATHS, x), x
    for level in range(levels):
        first = level == 0

        def gate(name, index, choices, values, first=first):
            return (net.columns if first else net.gate)(
                name, index, *([choices] if first else []), values
            )

        shared = [
            net.expert(f"shared_experts_{level}", e, shared_input, side_by_side=True)
            for e in range(2)
        ]
        specific = {
            (name, k): [
                net.expert(f"{name}/experts_{level}", 2 * k + e, own[name, k], side_by_side=first)
                for e in range(2)
            ]
            for name, k in PATHS
        }
        if level < levels - 1:
            everything = [*(e for k in range(3) for e in specific["specific", k]), *shared]
            weights = net.columns(f"shared_gate_{level}", 0, 8, shared_input)
            shared_input = sum(weights[:, e, None] * everything[e] for e in range(8))
        for name, k in PATHS:
            weights = gate(f"{name}/gates_{level}", k, 4, own[name, k])
            if weights_of is not None:
                weights_of[name, k] = weights
            choices = [*specific[name, k], *shared]
            own[name, k] = sum(weights[:, e, None] * choices[e] for e in range(4))
    return [
        net.tower(f"{name}/towers", k, OUTPUTS if name == "specific" else [1], own[name, k])
        for name, k in PATHS
    ]


PATHS = [("specific", 0), ("specific", 1), ("specific", 2), ("buy", 0)]


def stem(net):
    x = net.inputs()
    of_tasks = [net.inputs(f"features_{task}") for task in TASKS]
    shared = [net.expert("shared_experts", e, x, side_by_side=True) for e in range(2)]
    specific = [
        net.expert("experts", 2 * k + e, of_tasks[k], side_by_side=False)
        for k in range(3)
        for e in range(2)
    ]
    logits = []
    for k in range(3):
        gate = net.gate("gates", k, x + of_tasks[k])
        fused = sum(gate[:, e, None] * out for e, out in enumerate([*specific, *shared]))
        logits.append(net.tower("towers", k, OUTPUTS, fused))
    new = [net.expert("buy/experts", e, x, side_by_side=True) for e in range(2)]
    gate = net.columns("buy/gate", 0, 10, x)
    fused = sum(gate[:, e, None] * out for e, out in enumerate([*new, *specific, *shared]))
    return [*logits, net.tower("buy/tower", 0, [1], fused, side_by_side=True)]


def sparse_sharing(net):
    logits = []
    for k in range(3):
        values = net.inputs()
        for layer in range(2):
            mask = net.weights[f"network/mask_{layer}"]
            kernel = net.weights[f"network/kernel_{layer}"] * (mask[k] if layer else mask[:, k])
            values = np.maximum(values @ kernel + net.weights[f"network/bias_{layer}"], 0)
        logits.append(net.tower("towers", k, OUTPUTS, values))
    return logits


@pytest.mark.parametrize(
    "formulas", [single_task, shared_bottom, mmoe, ple, stem, sparse_sharing],
    ids=lambda formulas: formulas.__name__,
)  # fmt: skip
def test_logits(make_baseline, arrays, tasks, formulas):
    kind = formulas.__name__
    model = make_baseline(kind, *TASKS, **SETTINGS.get(kind, {}))
    randomize(model)
    if hasattr(model, "add_task"):
        model.count_epoch()
        model.add_task(tasks["buy"])
        randomize(model)
    if kind == "sparse_sharing":
        for task in range(3):
            model.network.prune(task, 0.3 + 0.2 * task)
    x, _ = arrays("click")

    logits = model.logits_of(x, [task.name for task in model.tasks])

    expected = formulas(Net(model, x))
    assert [out.shape[1] for out in logits.values()] == (OUTPUTS + [1])[: len(expected)]
    for (task, values), wanted in zip(logits.items(), expected, strict=True):
        assert values.dtype == "float32"
        assert np.std(wanted) > 0.1
        np.testing.assert_allclose(values, wanted, rtol=1e-3, atol=1e-4, err_msg=task)


def funnel_experts(net, names, sides=True):
    x = net.inputs()
    return [net.expert("experts", k, x, side_by_side=sides) for k in range(len(names))]


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


FUNNEL = ("click", "like", "buy")


@pytest.mark.parametrize("conditional", [False, True])
def test_esmm(make_baseline, arrays, conditional):
    """The tasks are given in another order than that of the funnel."""
    model = make_baseline("esmm", "buy", "click", "like", funnel=FUNNEL, conditional=conditional)
    randomize(model)
    x, _ = arrays("click")
    net = Net(model, x)

    scores = model(x)

    assert list(scores) == ["buy", "click", "like"]
    product = 1.0
    for k, (step, expert) in enumerate(zip(FUNNEL, funnel_experts(net, FUNNEL), strict=True)):
        own = sigmoid(net.tower("towers", k, [1, 1, 1], expert)[:, 0])
        product = product * own
        expected = own if conditional else product
        np.testing.assert_allclose(scores[step], expected, rtol=1e-3, atol=1e-6, err_msg=step)


def test_aitm(make_baseline, arrays):
    model = make_baseline("aitm", "buy", "click", "like", funnel=FUNNEL)
    randomize(model)
    x, _ = arrays("click")
    net = Net(model, x)

    scores = model(x)

    def dense(name, values):
        return values @ net.weights[f"{name}/kernel"] + net.weights[f"{name}/bias"]

    state = None
    for k, (step, own) in enumerate(zip(FUNNEL, funnel_experts(net, FUNNEL), strict=True)):
        if state is None:
            state = own
        else:
            name = f"transfer_{step}"
            both = [np.maximum(dense(f"{name}/handing_on", state), 0), own]
            products = [
                np.sum(dense(f"{name}/key", u) * dense(f"{name}/query", u), -1) / np.sqrt(6)
                for u in both
            ]
            weights = softmax(np.stack(products, axis=-1))
            state = sum(weights[:, i, None] * dense(f"{name}/value", both[i]) for i in range(2))
        expected = sigmoid(net.tower("towers", k, [1, 1, 1], state)[:, 0])
        np.testing.assert_allclose(scores[step], expected, rtol=1e-3, atol=1e-6, err_msg=step)


def test_mmoe_gate_weights(make_baseline, arrays, tasks):
    model = make_baseline("mmoe", *TASKS)
    model.count_epoch()
    model.add_task(tasks["buy"])
    x, _ = arrays("click")
    net = Net(model, x)

    weights = model.gate_weights(x)

    assert list(weights) == [*TASKS, "buy"]
    expected = net.columns("heads/gates", 1, 3, net.inputs())
    np.testing.assert_allclose(weights["kind"], expected, rtol=1e-4)
    expected = net.columns("buy/gates", 0, 3, net.inputs())
    np.testing.assert_allclose(weights["buy"], expected, rtol=1e-4)


@pytest.mark.parametrize("levels", [1, 3])
def test_ple_gate_weights(make_baseline, arrays, tasks, levels):
    model = make_baseline("ple", *TASKS, **{**SETTINGS["ple"], "levels": levels})
    randomize(model)
    model.count_epoch()
    model.add_task(tasks["buy"])
    randomize(model)
    x, _ = arrays("click")

    weights = model.gate_weights(x)

    assert list(weights) == [*TASKS, "buy"]
    expected = {}
    ple(Net(model, x), levels, expected)
    for (task, found), wanted in zip(weights.items(), expected.values(), strict=True):
        assert found.shape == (96, 4)
        assert np.std(wanted) > 0.1
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=task)


def test_stem_gate_weights(make_baseline, arrays, tasks):
    model = make_baseline("stem", *TASKS, **SETTINGS["stem"])
    randomize(model)
    model.count_epoch()
    model.add_task(tasks["buy"])
    randomize(model)
    x, _ = arrays("click")
    net = Net(model, x)

    weights = model.gate_weights(x)

    inputs = net.inputs()
    expected = {
        task: net.gate("gates", k, inputs + net.inputs(f"features_{task}"))
        for k, task in enumerate(TASKS)
    }
    expected["buy"] = net.columns("buy/gate", 0, 10, inputs)
    assert list(weights) == list(expected)
    for task, found in weights.items():
        assert found.shape == (96, 10 if task == "buy" else 8)
        np.testing.assert_allclose(found, expected[task], rtol=1e-3, atol=1e-5, err_msg=task)
