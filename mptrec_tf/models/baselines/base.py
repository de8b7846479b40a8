"""What the baselines share: their settings, and layers made with these."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from mptrec_tf.data.encoding import FeatureEncoder
from mptrec_tf.layers import ExpertBank, Gate, TowerBank
from mptrec_tf.layers.dropout import seed_of
from mptrec_tf.models.arguments import check_sizes, check_weights
from mptrec_tf.models.growing import GrowingModel
from mptrec_tf.models.inputs import InputLayers
from mptrec_tf.spec import Task


@dataclasses.dataclass(frozen=True)
class LayerMaker:
    """Makes layers with the settings that all layers of a model share.

    Args:
        settings: The arguments of a `BaselineModel`.
        dtype: The model's dtype policy.
    """

    settings: Mapping[str, Any]
    dtype: Any

    def inputs(self, encoder: FeatureEncoder, name: str) -> InputLayers:
        """Input layers with embedding tables of their own."""
        settings = self.settings
        return InputLayers(
            encoder,
            settings["embedding_dim"],
            settings["l2_embedding"],
            name=name,
            dtype=self.dtype,
        )

    def experts(self, count: int, name: str) -> ExpertBank:
        """Some experts."""
        return ExpertBank(
            count,
            self.settings["expert_units"],
            self.settings["activation"],
            self.settings["expert_dropout"],
            kernel_regularizer=self.regularizer,
            seed=self.seed(name),
            name=name,
            dtype=self.dtype,
        )

    def gate(self, tasks: int, choices: int, name: str) -> Gate:
        """A gate over so many choices for each of some tasks."""
        return Gate(
            tasks, choices, kernel_regularizer=self.regularizer, name=name, dtype=self.dtype
        )

    def towers(self, outputs: Sequence[int], name: str) -> TowerBank:
        """Towers with so many outputs each."""
        return TowerBank(
            outputs,
            self.settings["tower_units"],
            self.settings["activation"],
            self.settings["tower_dropout"],
            kernel_regularizer=self.regularizer,
            seed=self.seed(name),
            name=name,
            dtype=self.dtype,
        )

    def seed(self, layer: str) -> int | None:
        """The seed of the dropout in a layer of that name."""
        return seed_of(self.settings["seed"], layer)

    @property
    def regularizer(self) -> keras.regularizers.Regularizer | None:
        """The regularizer of kernels."""
        l2 = self.settings["l2"]
        return keras.regularizers.L2(l2) if l2 else None

    @property
    def width(self) -> int:
        """Width of an expert's output."""
        return self.settings["expert_units"][-1]


class BaselineModel(GrowingModel):
    """A multi-task model to compare with, on the same features, tasks and layers as `MPTRec`.

    A subclass adds arguments of its own to `self._settings`, makes its layers with `self.make` and
    then calls `self.build()`; it gives `build`, `_represent` and `stage1_logits`.

    Args:
        encoder: An adapted `FeatureEncoder`.
        tasks: The tasks.
        embedding_dim: Width of the embeddings of features that give none of their own. Defaults to
            8.
        expert_units: Widths of each expert's layers. Defaults to (256, 128).
        tower_units: Hidden widths of each tower. Defaults to (64, 32).
        activation: Activation of experts and towers. Defaults to `"relu"`.
        expert_dropout: Dropout after each layer of the experts. Defaults to 0.
        tower_dropout: Dropout after each hidden layer of the towers. Defaults to 0.
        l2_embedding: L2 penalty on the embeddings that a batch looks up, a mean over its rows.
            Defaults to 0.
        l2: L2 penalty on the other kernels. Defaults to 0.
        seed: Seed of the dropout. Weights are seeded by `keras.utils.set_random_seed`. Defaults to
            `None`.
        **kwargs: `name` and `dtype` (such as `"mixed_bfloat16"`).

    Input, output, labels and metrics are those of `MPTRec`.

    Raises:
        SpecError: If a task's label column is a feature, or a task name is given twice.
        ModelError: If the encoder is not adapted, or there is no task.
        ValueError: If a size is below 1 or a penalty below 0.

    Example:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Towers(BaselineModel):
    ...     default_name = "towers"
    ...
    ...     def __init__(self, encoder, tasks, **kwargs):
    ...         super().__init__(encoder, tasks, **kwargs)
    ...         self.features = self.make.inputs(encoder, "features")
    ...         self.towers = self.make.towers([task.num_outputs for task in self.tasks], "towers")
    ...         self.build()
    ...
    ...     def build(self, input_shape=None):
    ...         self.features.build()
    ...         self.towers.build((None, self.features.input_dim))
    ...         super().build()
    ...
    ...     def _represent(self, inputs, training):
    ...         return self.features(inputs, training=training)
    ...
    ...     def stage1_logits(self, representation, training=False):
    ...         return self.towers(representation, training=training)
    >>> rows = {"age": [31, 45, 60], "click": [0, 1, 1], "like": [1, 0, 1]}
    >>> encoder = FeatureEncoder([NumericFeature("age")]).adapt(rows)
    >>> model = Towers(encoder, [Task("click", "click"), Task("like", "like")])
    >>> sorted(model(encoder.encode(rows)))
    ['click', 'like']
    """

    default_name: ClassVar[str]

    def __init__(
        self,
        encoder: FeatureEncoder,
        tasks: Sequence[Task],
        *,
        embedding_dim: int = 8,
        expert_units: Sequence[int] = (256, 128),
        tower_units: Sequence[int] = (64, 32),
        activation: Any = "relu",
        expert_dropout: float = 0.0,
        tower_dropout: float = 0.0,
        l2_embedding: float = 0.0,
        l2: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        expert_units, tower_units = tuple(expert_units), tuple(tower_units)
        check_sizes(embedding_dim=embedding_dim, expert_units=expert_units, tower_units=tower_units)
        check_weights(l2_embedding=l2_embedding, l2=l2)
        settings = {
            "embedding_dim": embedding_dim,
            "expert_units": expert_units,
            "tower_units": tower_units,
            "activation": keras.activations.serialize(keras.activations.get(activation)),
            "expert_dropout": expert_dropout,
            "tower_dropout": tower_dropout,
            "l2_embedding": l2_embedding,
            "l2": l2,
            "seed": seed,
        }
        super().__init__(encoder, tasks, settings, **{"name": self.default_name, **kwargs})
        self.make = LayerMaker(settings, self.dtype_policy)

    def represent(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        return self._represent(inputs, training and self.tuned_task is None)

    def _represent(self, inputs: Mapping[str, Any], training: bool) -> Any:
        raise NotImplementedError


class FineTunedModel(BaselineModel):
    """A baseline to which tasks can be added by fine-tuning.

    A subclass gives `_new_module` and `_added_logits` as well. What is new has the model's sizes,
    dropout and penalties.

    Example:

    ```python
    model = SharedBottom(encoder, old)  # one of these
    model.compile("adam")
    model.fit(make_dataset(rows.train, encoder, old), epochs=10)
    model.add_task(new)
    model.fit(make_dataset(rows.train, encoder, [new]), epochs=5)
    ```
    """

    def add_task(self, task: Task, *, optimizer: Any = None) -> None:
        """Freezes all that exists, adds the parts of a new task, and compiles for it alone.

        Args:
            task: The new task.
            optimizer: Optimizer of the new parts. Defaults to `None`: as the model was compiled
                before, begun anew.

        Raises:
            ModelError: If the model was not compiled or not trained, or has a task of that name.
            SpecError: If the task's label column is a feature.

        Reference: the fine-tuning of the baselines in arXiv:2408.17214, figure 3.
        """
        self._add(task, lambda: self._new_module(task, {}), optimizer)


def mix(weights: Any, values: Any) -> Any:
    """Weighted sums of representations.

    Args:
        weights: float (..., n).
        values: float (..., n, h).

    Returns:
        float (..., h).

    Example:

    >>> mix(ops.array([0.25, 0.75]), ops.array([[4.0], [8.0]])).numpy()
    array([7.], dtype=float32)
    """
    return ops.sum(weights[..., None] * values, axis=-2)
