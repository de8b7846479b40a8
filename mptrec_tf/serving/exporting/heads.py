"""The added tasks' heads as they are served: those of one shape in one pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from mptrec_tf.layers import FeatureEmbedding, RunningStandardization, TowerBank
from mptrec_tf.layers.softmax import softmax
from mptrec_tf.models import PromptModule
from mptrec_tf.models.backbone import Representation

CAPACITY = 3
"""Heads computed together. Always so many, unused ones zero: the numbers of a head must not depend
on how many others there are, and a matrix product of another size may round otherwise."""


class Heads:
    """Prompt modules of the same shape, up to `CAPACITY` of them, as a few plain products.

    On a CPU a head alone is some forty small operations, whose overhead is most of its time, and a
    batched product of small matrices costs more than one larger product. So all heads share each
    operation, and what can be computed from the weights alone is computed once. With
    `r = relu(V1 x)`, `V` being `V2` less the mean of its outputs:

    - the query `q = V r` is never computed: its variance is `r' (V'V / h) r`, and its products with
      the source prompts are `(P gamma V / tau) r`;
    - a gate over two is the sigmoid of one number: `a = sigmoid(x (w_0 - w_1))`;
    - the tower's first layer is linear in `g`, in each `s_k * p` and in the low-rank path of `x`,
      standardization and embeddings included, so it is applied to them before they are weighted by
      `1 - a` and `a w_k` and added;
    - the tower's other layers are block-diagonal matrices.

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
        width = source_prompts.shape[1]
        kernels, biases = zip(*(_tower(module.tower) for module in members), strict=True)
        first = _stack([layers[0] for layers in kernels])  # (n, h + p, u)
        self._units = first.shape[-1]
        gates = _stack([module.gate.kernel for module in members])
        of_x = [
            _side_by_side(_stack([a.query_hidden.kernel for a in attentions])),
            _side_by_side(gates[..., :1] - gates[..., 1:]),
        ]
        of_first, *of_later = (_stack(layer) for layer in zip(*biases, strict=True))
        self._embedding = None
        if members[0].input_path is not None:
            paths = [module.input_path for module in members]
            path = _stack([path.projection.kernel for path in paths]) @ first[:, width:]
            path, of_embedded = np.split(path, [gates.shape[1]], axis=1)
            if paths[0].embedding is not None:
                self._embedding = _embedding([path.embedding for path in paths])
                self._id_columns = paths[0].id_columns
                self._of_embedded = _constant(_by_column(of_embedded, paths[0].embedding_dim))
            means = _stack([path.standardization.mean for path in paths])
            scales = _stack([_scale(path.standardization) for path in paths])
            path = scales[:, :, None] * path
            of_x.append(_side_by_side(path))
            of_first -= (means[:, None] @ path)[:, 0]
        self._parts = [kernel.shape[-1] for kernel in of_x]
        self._of_x = _constant(np.concatenate(of_x, axis=-1))

        output = _stack([attention.query_output.kernel for attention in attentions])
        output -= output.mean(-1, keepdims=True)
        sources = _stack([source_prompts.T / a.temperature for a in attentions])
        gamma = _stack([attention.query_norm.gamma for attention in attentions])
        beta = _stack([attention.query_norm.beta for attention in attentions])
        gram = output @ output.swapaxes(1, 2) / width
        similarity = _block_diagonal(output @ (gamma[:, :, None] * sources))
        # Columns (n, K) become (K, n): what is weighted below has the heads side by side.
        similarity = similarity.reshape(-1, CAPACITY, len(source_prompts)).swapaxes(1, 2)
        self._of_query = _constant(
            np.concatenate(
                [_block_diagonal(gram), similarity.reshape(len(similarity), -1)], axis=-1
            )
        )
        self._offsets = _constant((beta[:, None] @ sources)[:, 0].T)
        self._epsilon = attentions[0].query_norm.epsilon

        prompts = _stack([module.prompt.prompts[0] for module in members])
        self._of_shared = _constant(_side_by_side(first[:, :width]))
        self._of_specific = _constant(_side_by_side(prompts[:, :, None] * first[:, :width]))
        self._biases = [_constant(np.ravel(layer)) for layer in (of_first, *of_later)]
        self._later = [
            _constant(_block_diagonal(_stack(layer)))
            for layer in list(zip(*kernels, strict=True))[1:]
        ]

    def __call__(self, representation: Representation) -> dict[str, tf.Tensor]:
        """Logits by task, float32 (B, outputs)."""
        x, shared, specific, ids = representation
        count, units = specific.shape[1], self._units
        query, gate, *path = tf.split(tf.matmul(x, self._of_x), self._parts, axis=-1)
        query = tf.nn.relu(query)
        of_query = tf.matmul(query, self._of_query)
        gram, similarity = tf.split(of_query, [self._parts[0], CAPACITY * count], axis=-1)
        products = tf.reshape(query * gram, (-1, CAPACITY, self._parts[0] // CAPACITY))
        variance = tf.reduce_sum(products, -1)[:, None]
        similarity = tf.reshape(similarity, (-1, count, CAPACITY))
        weights = softmax(similarity * tf.math.rsqrt(variance + self._epsilon) + self._offsets, 1)
        gate = tf.sigmoid(gate)[:, None]
        weights = tf.concat([1.0 - gate, gate * weights], axis=1)  # (B, 1 + K, n)
        of_shared = tf.reshape(tf.matmul(shared, self._of_shared), (-1, 1, CAPACITY, units))
        flat = tf.reshape(specific, (-1, specific.shape[-1]))
        of_specific = tf.reshape(tf.matmul(flat, self._of_specific), (-1, count, CAPACITY, units))
        parts = tf.concat([of_shared, of_specific], axis=1)  # (B, 1 + K, n, u)
        hidden = tf.reduce_sum(weights[..., None] * parts, axis=1)
        outputs = tf.reshape(hidden, (-1, CAPACITY * units)) + self._biases[0]
        for addend in path:
            outputs += addend
        if self._embedding is not None:
            embedded = self._embedding(tf.gather(ids, self._id_columns, axis=-1))
            outputs += tf.matmul(embedded, self._of_embedded)
        for kernel, bias in zip(self._later, self._biases[1:], strict=True):
            outputs = tf.matmul(tf.nn.relu(outputs), kernel) + bias
        logits = tf.split(outputs, CAPACITY, axis=-1)
        return dict(zip(self.names, logits, strict=False))


def shape_of(module: PromptModule) -> tuple[Any, ...] | None:
    """What modules must share to be computed together; `None` for those that are served alone."""
    if (
        module.attention_kind != "example"
        or module.representation_kind != "both"
        or module.compute_dtype != "float32"
        or module.tower.activation is not keras.activations.relu
    ):
        return None
    attention: Any = module.attention
    units = attention.query_hidden.units
    embedded = (module.embedding_dim, module.embedding_features)
    return (units, module.input_projection, *embedded, module.tower_units, module.num_outputs)


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


def _scale(standardization: RunningStandardization) -> np.ndarray:
    variance = np.asarray(standardization.variance, np.float64)
    return 1.0 / np.sqrt(variance + standardization.epsilon)


def _tower(tower: TowerBank) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Kernels and biases of a tower's layers."""
    banks = [tower.hidden, *tower.heads]
    kernels = [np.asarray(kernel[0]) for bank in banks for kernel in bank.kernels]
    return kernels, [np.asarray(bias[0]) for bank in banks for bias in bank.biases]


def _embedding(layers: Sequence[FeatureEmbedding]) -> FeatureEmbedding:
    """One layer that gives for each feature the embeddings of all heads side by side."""
    config = layers[0].get_config()
    dims = {key: [CAPACITY * dim for dim in config[key]] for key in ("dims", "multivalued_dims")}
    together = FeatureEmbedding.from_config({**config, **dims, "trainable": False})
    together.build()
    (table,) = together.tables
    table.assign(_side_by_side(_stack([layer.tables[0] for layer in layers])))
    return together


def _by_column(kernels: np.ndarray, dim: int) -> np.ndarray:
    """Kernels (n, F * dim, w), each for its own embeddings, as one for those of `_embedding`."""
    heads, width, units = kernels.shape
    together = np.zeros((width // dim, heads, dim, heads, units))
    for head, kernel in enumerate(kernels):
        together[:, head, :, head] = kernel.reshape(-1, dim, units)
    return together.reshape(-1, heads * units)


def _stack(weights: Sequence[Any]) -> np.ndarray:
    """(n, ...) in float64, zeros up to `CAPACITY`."""
    arrays = [np.asarray(weight, np.float64) for weight in weights]
    return np.stack(arrays + [np.zeros_like(arrays[0])] * (CAPACITY - len(arrays)))


def _side_by_side(kernels: np.ndarray) -> np.ndarray:
    """(n, d, w) as (d, n * w)."""
    return kernels.transpose(1, 0, 2).reshape(kernels.shape[1], -1)


def _block_diagonal(kernels: np.ndarray) -> np.ndarray:
    """(n, d, w) as (n * d, n * w)."""
    return scipy.linalg.block_diag(*kernels)


def _constant(weights: np.ndarray) -> tf.Variable:
    return tf.Variable(weights.astype(np.float32), trainable=False)
