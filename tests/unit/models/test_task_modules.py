"""Probes and LoRA: what an added task may train instead of a prompt module."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf import LoRAModule, ModelError, MPTRec, ProbeModule, PromptModule
from mptrec_tf.cache import cache_rows
from mptrec_tf.data.encoded import RowsInMemory
from mptrec_tf.models import TaskModule

STAGE1 = ("click", "like")
MODULES = {
    "linear": ProbeModule(),
    "tower": ProbeModule(tower_units=(4, 3)),
    "lora": LoRAModule(rank=2, alpha=3.0, tower_units=(4,)),
}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def relu(values):
    return np.maximum(values, 0)


def head(weights, name, values):
    return values @ weights[f"{name}/kernel_0"].reshape(values.shape[1], -1) + weights[
        f"{name}/bias_0"
    ].reshape(-1)


def tower(weights, layers, values, activation=relu, outputs=3):
    for layer in range(layers):
        kernel, bias = (weights[f"tower/hidden/{w}_{layer}"] for w in ("kernel", "bias"))
        kernel = kernel.reshape(values.shape[1], -1)
        values = activation(values @ kernel + bias.reshape(-1))
    return head(weights, f"tower/head_{outputs}", values)


def linear_probe(weights, model, x, shared, specific):
    return head(weights, "linear", np.column_stack([shared, *specific]))


def tower_probe(weights, model, x, shared, specific):
    return tower(weights, 2, np.column_stack([shared, *specific]))


def lora(weights, model, x, shared, specific):
    experts, fused = model.backbone.experts, 0
    gate = softmax(x @ weights["gate/kernel"])
    for e in range(3):
        values = x
        for layer in range(2):
            kernel = np.array(experts.kernels[layer], float)
            kernel = kernel[e] if layer else kernel[:, e]
            down = weights[f"adapter/lora_kernel_a_{layer}"]
            down = down[e] if layer else down[:, e]
            kernel = kernel + 3.0 / 2 * down @ weights[f"adapter/lora_kernel_b_{layer}"][e]
            values = np.maximum(values @ kernel + np.array(experts.biases[layer])[e], 0)
        fused = fused + gate[:, e, None] * values
    return tower(weights, 1, fused)


@pytest.mark.parametrize(
    ("name", "formulas"),
    [("linear", linear_probe), ("tower", tower_probe), ("lora", lora)],
    ids=MODULES,
)
def test_logits_equal_the_formulas(trained, arrays, tasks, name, formulas):
    """A task of three classes, so that the module is made with its number of outputs."""
    trained.add_task(tasks["grade"], module=MODULES[name])
    rng = np.random.default_rng(0)
    for weight in trained.trainable_weights:
        weight.assign(rng.normal(0.1, 0.6, weight.shape))
    x, _ = arrays("click")
    inputs, shared, specific = (np.array(part, float) for part in trained.represent(x)[:3])

    logits = trained.logits_of(x, ["grade"])["grade"]

    weights = {w.path.removeprefix("grade/"): np.array(w) for w in trained.trainable_weights}
    expected = formulas(weights, trained, inputs, shared, specific.transpose(1, 0, 2))
    assert expected.shape == (96, 3)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


ONE_LAYER = {"tower_units": (4,)}
TOWERS = {
    "default": {"attention": "fixed", "representation": "shared", "input_projection": 0},
    "prompt": PromptModule(representation="shared", input_projection=0, **ONE_LAYER),
    "probe": ProbeModule(**ONE_LAYER),
    "lora": LoRAModule(rank=1, **ONE_LAYER),
}


def tower_input(model, name, x):
    """What the tower of an added task reads."""
    inputs, shared, specific = (np.array(part, float) for part in model.represent(x)[:3])
    experts = np.concatenate([shared[:, None], specific], axis=1)
    if name == "probe":
        return experts.reshape(len(experts), -1)
    if name == "lora":  # whose matrices begin as zero
        kernel = np.array(model.task_modules.modules["buy"].gate.kernel)
        return np.sum(softmax(inputs @ kernel)[:, :, None] * experts, axis=1)
    return shared


def logits_of_tower(model, name, x, activation):
    module = model.task_modules.modules["buy"]
    weights = {w.path.removeprefix("buy/"): np.array(w) for w in module.weights}
    return tower(weights, 1, tower_input(model, name, x), activation, outputs=1)


@pytest.mark.parametrize("own", [None, "sigmoid"])
@pytest.mark.parametrize("name", TOWERS)
def test_towers_have_the_activation_of_the_model(make_model, arrays, tasks, tmp_path, name, own):
    """Unless the module has its own; also when read from a file, and from one without either."""
    model = make_model(*STAGE1, activation="tanh")
    model.train_on_batch(*arrays(*STAGE1))
    model.count_epoch()
    if name == "default":
        model.add_task(tasks["buy"], activation=own, **TOWERS[name], **ONE_LAYER)
    else:
        config = {**TOWERS[name].get_config(), "activation": own}
        model.add_task(tasks["buy"], module=type(TOWERS[name]).from_config(config))
    x, _ = arrays("click")
    activations = {None: np.tanh, "sigmoid": lambda values: 1 / (1 + np.exp(-values))}

    model.save(tmp_path / "model.keras")
    read = keras.models.load_model(tmp_path / "model.keras")

    for found in (model, read):
        expected = logits_of_tower(found, name, x, activations[own])
        np.testing.assert_allclose(found.logits_of(x, ["buy"])["buy"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["prompt", "probe", "lora"])
def test_older_files_hold_towers_with_relu(make_model, arrays, tasks, name):
    model = make_model(*STAGE1, activation="tanh")
    model.train_on_batch(*arrays(*STAGE1))
    model.count_epoch()
    model.add_task(tasks["buy"], module=TOWERS[name])
    x, _ = arrays("click")
    config = json.loads(json.dumps(model.get_config()))
    assert config["added"][0]["module"]["config"].pop("activation") == "tanh"

    for _ in range(2):  # it stays so when the model is saved anew
        read = MPTRec.from_config(config)
        read.set_weights(model.get_weights())
        config = json.loads(json.dumps(read.get_config()))

        expected = logits_of_tower(read, name, x, relu)
        np.testing.assert_allclose(read.logits_of(x, ["buy"])["buy"], expected, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_only_the_module_is_trained(trained, arrays, tasks, name):
    x, y = arrays("buy")
    before, fingerprint = trained(x), trained.fingerprint()
    frozen = [weight.value for weight in trained.trainable_weights]
    trained.add_task(tasks["buy"], module=MODULES[name])
    module = trained.task_modules.modules["buy"]
    started = [np.array(weight) for weight in module.weights]

    with tf.GradientTape(persistent=True) as tape:
        loss = trained.training_outcome(x, y, {}).loss
    assert all(gradient is None for gradient in tape.gradient(loss, frozen))
    for _ in range(3):
        trained.train_on_batch(x, y)

    assert [w.path for w in trained.trainable_weights] == [w.path for w in module.weights]
    moved = zip(started, module.weights, strict=True)
    assert all(not np.array_equal(old, new) for old, new in moved)
    assert trained.fingerprint(frozen_only=True) == fingerprint
    after = trained(x)
    assert list(after) == [*STAGE1, "buy"]
    for task in STAGE1:
        np.testing.assert_array_equal(after[task], before[task])


def test_lora_begins_with_the_experts_as_they_are(trained, arrays, tasks):
    trained.add_task(tasks["buy"], module=LoRAModule(rank=3))
    module = trained.task_modules.modules["buy"]
    x, shared, specific, _ = trained.represent(arrays("click")[0])

    outputs = module.adapter(x, experts=trained.backbone.experts)

    np.testing.assert_array_equal(outputs[:, 0], shared)
    np.testing.assert_array_equal(outputs[:, 1:], specific)
    first = np.array(module.adapter.downs[1])
    assert not np.allclose(first[0], first[1])
    assert np.abs(first).max() <= np.sqrt(6 / 8)  # He's bound for the 8 inputs of one expert


@pytest.mark.parametrize("name", ["tower", "lora"])
def test_cached_representations_are_enough(trained, copy_of, arrays, tasks, name):
    x, y = arrays("buy")
    twin = copy_of(trained)
    for model in (trained, twin):
        keras.utils.set_random_seed(7)
        model.add_task(tasks["buy"], module=MODULES[name])
    rows = cache_rows(twin, RowsInMemory((x, y)))

    trained.train_on_batch(x, y)
    twin.train_on_batch(*next(iter(rows.batches(96))))

    for one, other in zip(trained.trainable_weights, twin.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)


def test_modules_of_all_kinds_in_one_model(trained, arrays, tasks, tmp_path):
    kinds = {"grade": "linear", "cost": "tower", "share": "lora"}
    for task, name in kinds.items():
        trained.add_task(tasks[task], module=MODULES[name])
        trained.train_on_batch(*arrays(task))
        trained.count_epoch()
    trained.add_task(tasks["buy"], attention="fixed", tower_units=(4,))
    trained.tune_task("cost")
    x, _ = arrays("click")

    trained.save(tmp_path / "model.keras")
    read = keras.models.load_model(tmp_path / "model.keras")

    configs = [json.loads(json.dumps(model.get_config())) for model in (read, trained)]
    assert MPTRec.from_config(configs[1]).tuned_task == "cost"
    for config in configs:
        del config["encoder"]
    assert configs[0] == configs[1]
    modules = read.task_modules.modules
    assert [type(modules[task]) for task in modules] == [
        *(ProbeModule, ProbeModule, LoRAModule, PromptModule),
    ]
    assert read.fingerprint() == trained.fingerprint()
    assert read.tuned_task == "cost"
    for task, scores in read(x).items():
        np.testing.assert_array_equal(scores, trained(x)[task])
    assert list(read.gate_weights(x)) == [*STAGE1, "buy"]
    assert list(read.prompt_weights(x)) == ["buy"]


def test_a_module_is_a_description(trained, tasks):
    """The same one serves for several tasks, and is not changed."""
    module = ProbeModule(tower_units=(4,), l2=0.1)
    trained.add_task(tasks["grade"], module=module)
    trained.count_epoch()
    trained.add_task(tasks["buy"], module=module)

    own = trained.task_modules.modules
    assert not module.weights
    assert (own["grade"].num_outputs, own["buy"].num_outputs) == (3, 1)
    assert own["buy"].l2 == 0.1


def test_what_is_refused(trained, tasks):
    with pytest.raises(TypeError, match=r"not both. Received: \{'l2': 0.1\}"):
        trained.add_task(tasks["buy"], module=ProbeModule(), l2=0.1)
    with pytest.raises(ValueError, match=r"rank must be 1 or more. Received: 0"):
        LoRAModule(rank=0)

    class Unregistered(TaskModule):
        pass

    with pytest.raises(ModelError, match="'Unregistered' is not a registered TaskModule"):
        trained.add_task(tasks["buy"], module=Unregistered())
    assert [task.name for task in trained.tasks] == list(STAGE1)
