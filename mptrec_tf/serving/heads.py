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

    Computes what each `PromptModule` does, with the weights that read the input `x` (query, gate,
    low-rank path) side by side in one matrix, and the towers in one batched product. On a CPU a
    head alone is some forty small operations, whose overhead is most of its time.

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
        queries = [attention.query_hidden.kernel for attention in attentions]
        paths = [module.projection.kernel for module in members if module.projection is not None]
        gates = [module.gate.kernel for module in members]
        self._parts = [kernels[0].shape[1] for kernels in (queries, gates, paths) if kernels]
        of_x = np.concatenate([_stack(k) for k in (queries, gates, paths) if k], axis=-1)
        # (n, d, q + 2 + p) -> (d, n * (q + 2 + p))
        self._of_x = tf.Variable(of_x.transpose(1, 0, 2).reshape(of_x.shape[1], -1))
        self._query = tf.Variable(_stack([a.query_output.kernel for a in attentions]))
        self._gamma = tf.Variable(_stack([a.query_norm.gamma for a in attentions])[:, None])
        self._beta = tf.Variable(_stack([a.query_norm.beta for a in attentions])[:, None])
        self._epsilon = attentions[0].query_norm.epsilon
        temperatures = [np.float32(a.temperature) for a in attentions]
        temperatures += [np.float32(1)] * (CAPACITY - len(members))
        sources = source_prompts.T[None] / np.reshape(temperatures, (-1, 1, 1))
        self._sources = tf.Variable(sources.astype(np.float32))
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
        width = sum(self._parts)
        of_x = tf.reshape(tf.matmul(x, self._of_x), (-1, CAPACITY, width))
        query, gate, *path = tf.split(tf.transpose(of_x, (1, 0, 2)), self._parts, axis=-1)
        query = tf.matmul(tf.nn.relu(query), self._query)
        mean = tf.reduce_mean(query, -1, keepdims=True)
        centred = query - mean
        variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
        query = centred * tf.math.rsqrt(variance + self._epsilon) * self._gamma + self._beta
        weights = softmax(tf.matmul(query, self._sources))
        gate = softmax(gate)
        # (n, B, K) * (B, K, h), summed over K one by one: K is a handful.
        mixed = tf.add_n(
            [weights[:, :, k, None] * specific[None, :, k] for k in range(specific.shape[1])]
        )
        fused = gate[..., :1] * (mixed * self._prompts) + gate[..., 1:] * shared
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
