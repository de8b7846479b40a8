"""One network of which each task uses a part, found by pruning."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.errors import ModelError
from mptrec_tf.layers import HashedDropout
from mptrec_tf.layers.experts import expert_products
from mptrec_tf.models.arguments import check_sizes
from mptrec_tf.models.baselines.base import BaselineModel, LayerMaker
from mptrec_tf.models.labels import check_label_arrays
from mptrec_tf.models.multi_task import Outcome
from mptrec_tf.spec import Task

PASSED_ON = ("batch_size", "sample_weight", "shuffle", "steps_per_epoch", "validation_split")
"""Arguments of `fit` that the search for the masks trains with too."""


class MaskedNetwork(keras.layers.Layer):
    """A multi-layer perceptron, and for each task the part of its kernels that the task uses.

    Args:
        make: Gives widths, activation, dropout and regularizer.
        num_tasks: Number of tasks, `K`.
        **kwargs: `name`.

    Attributes:
        masks: For each layer 0 and 1, (d, K, h) of the first, (K, d, h) of the others.

    Input shape: float (B, d). Output shape: float (B, K, h).
    """

    def __init__(self, make: LayerMaker, num_tasks: int, **kwargs: Any) -> None:
        super().__init__(dtype=make.dtype, **kwargs)
        self.num_tasks = num_tasks
        self.units = make.settings["expert_units"]
        self.activation = keras.activations.get(make.settings["activation"])
        self.regularizer = make.regularizer
        self.dropout = HashedDropout(
            make.settings["expert_dropout"], seed=make.seed("network"), dtype=make.dtype
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernels, self.biases, self.masks = [], [], []
        fan_in = input_shape[-1]
        for layer, width in enumerate(self.units):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{layer}",
                    shape=(fan_in, width),
                    initializer="he_uniform",
                    regularizer=self.regularizer,
                )
            )
            self.biases.append(
                self.add_weight(name=f"bias_{layer}", shape=(width,), initializer="zeros")
            )
            tasks = self.num_tasks
            self.masks.append(
                self.add_weight(
                    name=f"mask_{layer}",
                    shape=(tasks, fan_in, width) if layer else (fan_in, tasks, width),
                    initializer="ones",
                    trainable=False,
                )
            )
            fan_in = width

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs
        layers = zip(self.kernels, self.biases, self.masks, strict=True)
        for layer, (kernel, bias, mask) in enumerate(layers):
            masked = ops.expand_dims(kernel, 0 if layer else 1) * mask
            outputs = self.activation(expert_products(outputs, masked) + bias)
            outputs = self.dropout(outputs, training=training)
        return outputs

    def prune(self, task: int, share: float) -> None:
        """Takes the smallest weights of each kernel that a task still uses away from it.

        Args:
            task: Number of the task.
            share: Share of them that it keeps.
        """
        for layer, (kernel, variable) in enumerate(zip(self.kernels, self.masks, strict=True)):
            masks = np.array(variable)
            mask = masks[task] if layer else masks[:, task]
            used = np.flatnonzero(mask)
            order = np.argsort(np.abs(np.asarray(kernel)).flat[used], kind="stable")
            mask.flat[used[order[: len(used) - round(share * len(used))]]] = 0
            variable.assign(masks)

    def use_all(self) -> None:
        """Gives every task the whole network."""
        for variable in self.masks:
            variable.assign(ops.ones_like(variable))


@keras.saving.register_keras_serializable("mptrec_tf")
class SparseSharing(BaselineModel):
    """Each task uses a part of one network, and the parts overlap.

    For task `k`: `T_k(E(x; W * M_k))` with masks `M_k` of 0 and 1 on the kernels of one network;
    embeddings and biases are shared as they are. A weight learns from the tasks that use it.

    The masks are found by iterative magnitude pruning, once, when `fit` is first called: for each
    task the model is trained from its beginning on that task alone, the smallest of the weights
    that are left in each kernel go, and it is repeated from the beginning with what is left. Then
    all weights are set back, and all tasks are trained together. So the data must be readable more
    than once. The paper also picks among the masks of all rounds by validation; here the last ones,
    of the density that is asked for, are used.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        density: Share of each kernel that a task uses. Defaults to 0.5.
        pruning_rounds: Rounds of pruning for each task. Defaults to 3.
        pruning_epochs: Epochs of a round. Defaults to 1.
        **kwargs: See `BaselineModel`; the network has the widths `expert_units`.

    Example:

    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> tasks = [Task("click", "click"), Task("like", "like")]
    >>> model = SparseSharing(encoder, tasks, expert_units=(8, 4), density=0.25, pruning_rounds=2)
    >>> model.compile("adam", run_eagerly=True)
    >>> history = model.fit(make_dataset(rows, encoder, tasks), verbose=0)
    >>> model.mask_densities()
    {'click': 0.25, 'like': 0.25}

    Reference: Sun et al., "Learning Sparse Sharing Architectures for Multiple Tasks", AAAI 2020,
    arXiv:1911.05034, section 3 and algorithm 1.
    """

    default_name = "sparse_sharing"

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        density: float = 0.5,
        pruning_rounds: int = 3,
        pruning_epochs: int = 1,
        **kwargs: Any,
    ) -> None:
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1]. Received: {density}")
        rounds = {"pruning_rounds": pruning_rounds, "pruning_epochs": pruning_epochs}
        check_sizes(**rounds)
        super().__init__(encoder, tasks, **kwargs)
        self._settings.update({"density": density, **rounds})
        self.density = density
        self.pruning_rounds = pruning_rounds
        self.pruning_epochs = pruning_epochs
        self.features = self.make.inputs(encoder, "features")
        self.network = MaskedNetwork(self.make, len(self.tasks), name="network")
        self.towers = self.make.towers([task.num_outputs for task in self.tasks], "towers")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.features.build()
        self.network.build((None, self.features.input_dim))
        self.towers.build((None, len(self.tasks), self.make.width))
        # What each task's loss counts: all alike, or one task while its mask is searched.
        self._counts = self.add_weight(
            name="counts",
            shape=(len(self.tasks),),
            initializer="ones",
            dtype="float32",
            trainable=False,
        )
        super().build()

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        return self.network(self.features(inputs, training=training), training=training)

    def stage1_logits(self, representation: Any, training: bool = False) -> list[Any]:
        return self.towers(representation, training=training)

    def training_outcome(self, x: Any, y: Mapping[str, Any], weights: Mapping[str, Any]) -> Outcome:
        """The losses of the tasks, or of the one whose mask is searched."""
        counts = ops.unstack(ops.convert_to_tensor(self._counts), len(self.tasks))
        counted = {}
        for task, count in zip(self.tasks, counts, strict=True):
            own = weights.get(task.name)
            labels = ops.cast(y[task.name], "float32")
            counted[task.name] = count * (ops.ones_like(labels) if own is None else own)
        return super().training_outcome(x, y, counted)

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Finds the masks if there are none yet, and trains all tasks; see `keras.Model.fit`.

        A training that `ResumableEarlyStopping` resumes has masks: they come back with the weights.
        """
        if self.compiled and self.density < 1 and min(self.mask_densities().values()) == 1:
            given = inspect.signature(keras.Model.fit).bind(self, x, y, *args, **kwargs).arguments
            if _resumes(given.get("callbacks")):
                self._pass_over_search(x)
            else:
                settings = {name: given[name] for name in PASSED_ON if name in given}
                # Rows that are held out are left out here, and not scored.
                settings["validation_freq"] = self.pruning_epochs + 1
                self.find_masks(x, y, verbose=given.get("verbose", "auto"), **settings)
        return super().fit(x, y, *args, **kwargs)

    def find_masks(self, x: Any, y: Any = None, **kwargs: Any) -> None:
        """Finds the masks anew, from the weights as they are, which it leaves as they are.

        Tasks are not balanced meanwhile, since one is trained at a time.

        Args:
            x: The training data, as for `fit`.
            y: The labels, as for `fit`. Defaults to `None`.
            **kwargs: Other arguments of `fit`. `verbose` defaults to 0.

        Raises:
            ModelError: If the model was not compiled.
        """
        if not self.compiled:
            raise ModelError("compile the model before its masks are searched")
        check_label_arrays(y, self.task)
        self.network.use_all()
        self.build_optimizer()
        masks = {id(mask) for mask in self.network.masks}
        state = [*self.weights, *self.optimizer.variables]
        state = [variable for variable in state if id(variable) not in masks]
        beginning = [np.array(variable) for variable in state]

        def begin(counts: Any) -> None:
            for variable, value in zip(state, beginning, strict=True):
                variable.assign(value)
            self._counts.assign(counts)

        share = self.density ** (1 / self.pruning_rounds)
        settings = {"verbose": 0, **kwargs, "epochs": self.pruning_epochs}
        balancing, found = self.balancing, False
        try:
            self._balance_by(None)
            for number, alone in enumerate(np.eye(len(self.tasks), dtype=np.float32)):
                for _ in range(self.pruning_rounds):
                    begin(alone)
                    super().fit(x, y, **settings)
                    self.network.prune(number, share)
            found = True
        finally:
            begin(np.ones(len(self.tasks)))
            self._balance_by(balancing)
            if not found:
                self.network.use_all()

    def _pass_over_search(self, x: Any) -> None:
        """Leaves a dataset where the search would, so that the same batches come after it."""
        if isinstance(x, tf.data.Dataset):
            epochs = len(self.tasks) * self.pruning_rounds * self.pruning_epochs
            # Each iteration shuffles anew, also one that is not read; Keras begins two an epoch.
            for _ in range(2 * epochs):
                iter(x)

    def mask_densities(self) -> dict[str, float]:
        """The share of all kernels that each task uses, by task."""
        used = np.zeros(len(self.tasks))
        for layer, mask in enumerate(self.network.masks):
            used += np.sum(np.asarray(mask), axis=(1, 2) if layer else (0, 2))
        total = sum(np.asarray(kernel).size for kernel in self.network.kernels)
        return {
            task.name: float(count / total) for task, count in zip(self.tasks, used, strict=True)
        }


def _resumes(callbacks: Any) -> bool:
    """Whether a callback will put back weights, and so masks, when the training begins."""
    callbacks = getattr(callbacks, "callbacks", callbacks)
    return any(getattr(one, "resumes", False) for one in keras.tree.flatten(callbacks))
