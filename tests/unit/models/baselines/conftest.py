"""Baselines with random weights, and what their weights give in NumPy."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from mptrec_tf.models import MODELS

SMALL = {"embedding_dim": 4, "expert_units": (8, 6), "tower_units": (5,)}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def randomize(model):
    """Makes every weight matter that is trained."""
    rng = np.random.default_rng(5)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0.1, 0.6, weight.shape))


class Net:
    """Perceptrons, gates and towers in NumPy float64, from a model's weights by their names."""

    def __init__(self, model, x):
        prefix = f"{model.name}/"
        self.weights = {w.path.removeprefix(prefix): np.asarray(w, float) for w in model.weights}
        self.encoder = model.encoder
        self.x = x

    def inputs(self, name="features"):
        """`x` of the features age, gain (numeric), city (width 4), tags (3 values, width 3)."""
        ages, gains = self.x["numeric"].astype(float).T
        edges = self.encoder.numeric_state["age"]
        age = [
            np.clip((ages - low) / (high - low), 0, 1) for low, high in itertools.pairwise(edges)
        ]
        mean, deviation = self.encoder.numeric_state["gain"]
        city = self.weights[f"{name}/embedding/table_4"][self.x["categorical"][:, 0]]
        table = self.weights[f"{name}/embedding/table_3"]
        tags = np.array([table[ids[ids > 0]].mean(0) if ids.any() else np.zeros(3)
                         for ids in self.x["multivalued"]])  # fmt: skip
        return np.column_stack([*age, (gains - mean) / deviation, city, tags])

    def expert(self, name, index, values, *, side_by_side):
        """One expert of a bank; `side_by_side` if the bank's experts share their input."""
        layers = sum(path.startswith(f"{name}/kernel_") for path in self.weights)
        for layer in range(layers):
            kernel = self.weights[f"{name}/kernel_{layer}"]
            kernel = kernel[:, index] if side_by_side and layer == 0 else kernel[index]
            values = np.maximum(values @ kernel + self.weights[f"{name}/bias_{layer}"][index], 0)
        return values

    def gate(self, name, index, values):
        """One of the gates; those with an input each have kernels of three dimensions."""
        kernel = self.weights[f"{name}/kernel"]
        return softmax(values @ kernel[index])

    def columns(self, name, index, choices, values):
        """One of the gates that share their input."""
        kernel = self.weights[f"{name}/kernel"]
        return softmax(values @ kernel[:, index * choices : (index + 1) * choices])

    def tower(self, name, index, outputs, values, *, side_by_side=False):
        """One tower of several with these numbers of outputs."""
        values = self.expert(f"{name}/hidden", index, values, side_by_side=side_by_side)
        position = [k for k, n in enumerate(outputs) if n == outputs[index]].index(index)
        head = f"{name}/head_{outputs[index]}"
        kernel = self.weights[f"{head}/kernel_0"][position]
        return values @ kernel + self.weights[f"{head}/bias_0"][position]


@pytest.fixture(scope="session")
def make_baseline(encoder, tasks):
    """Makes a small baseline of the tasks named, to be run eagerly."""

    def make(kind, *names, compile_with=None, **settings):
        settings = {**SMALL, **settings}
        model = MODELS[kind](encoder, [tasks[name] for name in names], **settings)
        model.compile(**{"optimizer": "adam", "run_eagerly": True, **(compile_with or {})})
        return model

    return make


@pytest.fixture(scope="session")
def gradients_of():
    """By weight, the gradient of one task's loss in a training step."""

    def gradients(model, x, y, name):
        y = {task: v if task == name else np.full_like(v, np.nan) for task, v in y.items()}
        with tf.GradientTape() as tape:
            loss = model.training_outcome(x, y, {}).loss
        weights = [weight.value for weight in model.trainable_weights]
        found = tape.gradient(loss, weights, unconnected_gradients="zero")
        prefix = f"{model.name}/"
        return {
            weight.path.removeprefix(prefix): tf.convert_to_tensor(gradient).numpy()
            for weight, gradient in zip(model.trainable_weights, found, strict=True)
        }

    return gradients
