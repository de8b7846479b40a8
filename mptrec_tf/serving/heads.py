"""The added tasks' heads as they are served: those of one shape in one pass."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mptrec_tf.layers.softmax import softmax
from mptrec_tf.models import PromptModule
from mptrec_tf.models.backbone import Representation

CAPACITY = 4
"""Heads computed together. Always so many, unused ones zero: the numbers of a head must not depend
on how many others there are, and a matrix product of another size may round otherwise."""


class Heads:
    """Prompt modules of the same shape, up to `CAPACITY` of them, as one batch of products.

    On a CPU a head alone is some forty small operations, whose overhead is most of its time. Here
    the weights that read the input `x` (query, gate, low-rank path) of all heads are one matrix,
    and what can be computed from the weights alone is computed once:

    - the query's mean is subtracted from `V2` instead, so that `V2 relu(V1 x)` is centred;
    - scale and offset of its normalization and the temperature go into the source prompts;
    - a gate over two is the sigmoid of one number.

    Args:
        modules: Built modules by task for which `shape_of` is the same, at most `CAPACITY`.
        source_prompts: float32 (K, h), the prompts of the stage 1 tasks.

    Raises:
        ValueError: If there are too many modules.
    """

    def __init__(self, modules: Mapping[str, PromptModule], source_prompts: np.ndarray) -> None:
        if len(modules) > CAPACITY:
            raise ValueError(f"at most {CAPACITY} modules. Received: {len(modules)}")
        self.names = list(modules)
        members: list[Any] = list(modules.values())
        attentions = [module.attention for module in members]
        gates = _stack([module.gate.kernel for module in members])
        of_x = [
            _stack([attention.query_hidden.kernel for attention in attentions]),
            gates[..., :1] - gates[..., 1:],
        ]
        if members[0].projection is not None:
            of_x.append(_stack([module.projection.kernel for module in members]))
        self._parts = [kernel.shape[-1] for kernel in of_x]
        joined = np.concatenate(of_x, axis=-1)  # (n, d, q + 1 + p), for one product (d, n * ...)
        self._of_x = tf.Variable(joined.transpose(1, 0, 2).reshape(joined.shape[1], -1))

        output = _stack([attention.query_output.kernel for attention in attentions])
        self._query = tf.Variable(output - output.mean(-1, keepdims=True))
        self._epsilon = attentions[0].query_norm.epsilon
        sources = _stack([source_prompts.T / a.temperature for a in attentions])
        gamma = _stack([attention.query_norm.gamma for attention in attentions])
        beta = _stack([attention.query_norm.beta for attention in attentions])
        self._sources = tf.Variable(gamma[:, :, None] * sources)
        self._offsets = tf.Variable(beta[:, None] @ sources)

        self._prompts = tf.Variable(_stack([module.prompt.prompts for module in members]))
        towers = [module.tower for module in members]
        self._tower = [
            (
                tf.Variable(_stack([bank.kernels[layer][0] for bank in banks])),
                tf.Variable(_stack([bank.biases[layer] for bank in banks])),
            )
            for banks in ([t.hidden for t in towers], [t.heads[0] for t in towers])
            for layer in range(len(banks[0].kernels))
        ]

    def __call__(self, representation: Representation) -> dict[str, tf.Tensor]:
        """Logits by task, float32 (B, outputs)."""
        x, shared, specific = representation
        of_x = tf.reshape(tf.matmul(x, self._of_x), (-1, CAPACITY, sum(self._parts)))
        query, gate, *path = tf.split(tf.transpose(of_x, (1, 0, 2)), self._parts, axis=-1)
        query = tf.matmul(tf.nn.relu(query), self._query)
        variance = tf.reduce_mean(tf.square(query), -1, keepdims=True)
        similarity = tf.matmul(query, self._sources) * tf.math.rsqrt(variance + self._epsilon)
        weights = softmax(similarity + self._offsets)
        mixed = tf.reduce_sum(weights[..., None] * specific, axis=2)
        fused = shared + tf.sigmoid(gate) * (mixed * self._prompts - shared)
        outputs = tf.concat([fused, *path], axis=-1)
        for layer, (kernel, bias) in enumerate(self._tower):
            outputs = tf.matmul(outputs, kernel) + bias
            if layer < len(self._tower) - 1:
                outputs = tf.nn.relu(outputs)
        return {name: outputs[position] for position, name in enumerate(self.names)}


def shape_of(module: PromptModule) -> tuple[Any, ...] | None:
    """What modules must share to be computed together; `None` for those that are served alone."""
    if (
        module.attention_kind != "example"
        or module.representation_kind != "both"
        or module.compute_dtype != "float32"
    ):
        return None
    attention: Any = module.attention
    units = attention.query_hidden.units
    return (units, module.input_projection, module.tower_units, module.num_outputs)


def group(modules: Mapping[str, PromptModule]) -> tuple[list[dict[str, PromptModule]], list[str]]:
    """Which modules are computed together, in the order in which the tasks came.

    Args:
        modules: The modules by task.

    Returns:
        Groups of at most `CAPACITY` modules of the same shape, and the tasks that are left.
    """
    groups: dict[tuple[Any, ...], list[dict[str, PromptModule]]] = {}
    alone = []
    for name, module in modules.items():
        shape = shape_of(module)
        if shape is None:
            alone.append(name)
            continue
        same = groups.setdefault(shape, [{}])
        if len(same[-1]) == CAPACITY:
            same.append({})
        same[-1][name] = module
    return [members for same in groups.values() for members in same], alone


def _stack(weights: list[Any]) -> np.ndarray:
    """(n, ...) with zeros up to `CAPACITY`."""
    arrays = [np.asarray(weight, np.float32) for weight in weights]
    return np.stack(arrays + [np.zeros_like(arrays[0])] * (CAPACITY - len(arrays)))
