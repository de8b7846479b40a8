"""One optimizer for the embedding tables, another one for all other weights."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

TABLES = r"(^|/)(table_\w+|embeddings)$"


@keras.saving.register_keras_serializable("mptrec_tf")
class SplitOptimizer(keras.optimizers.Optimizer):
    """Trains the embedding tables with one optimizer and all other weights with another one.

    A variable is an embedding table if the regular expression `tables` is found in its path, such
    as `"backbone/embedding/table_8"`. Learning rate, clipping, weight decay and averaging are those
    of the two optimizers, each over its own variables. Where no table is trained, as in stage 2
    by a module without embeddings of its own, only `rest` is at work.

    The attribute `learning_rate` is that of `rest`, so that callbacks find one; the other one is
    `embeddings.learning_rate`. `keras.callbacks.SwapEMAWeights` finds no averages here: those of
    the two optimizers take the place of the weights at the end of `fit`.

    Args:
        embeddings: Optimizer of the embedding tables, such as `LazyAdam(1e-3)`, or its name.
        rest: Optimizer of all other weights, or its name.
        tables: Regular expression that is searched for in the path of a variable. Defaults to the
            tables of `FeatureEmbedding` and of `keras.layers.Embedding`.
        name: Defaults to `None`: made from the name of the class.

    Raises:
        ValueError: If one of the optimizers cannot be part of another one, or `tables` is no
            regular expression. When it is applied: if `tables` is found in no path, but a variable
            is looked up by id.

    Example:

    >>> model = keras.Sequential([keras.layers.Embedding(9, 4), keras.layers.Dense(1)])
    >>> model.compile(SplitOptimizer(LazyAdagrad(0.05), keras.optimizers.AdamW(0.002)), "mse")
    >>> history = model.fit(np.array([[1, 2]]), np.ones((1, 2, 1)), verbose=0)
    >>> len(model.optimizer.embeddings.variables), len(model.optimizer.rest.variables)
    (3, 6)
    """

    def __init__(
        self, embeddings: Any, rest: Any, tables: str = TABLES, name: str | None = None
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.embeddings, self.rest = map(keras.optimizers.get, (embeddings, rest))
        if self.embeddings is self.rest:
            raise ValueError("embeddings and rest must be two optimizers, not one given twice")
        for role, part in (("embeddings", self.embeddings), ("rest", self.rest)):
            if isinstance(part, SplitOptimizer | keras.optimizers.LossScaleOptimizer):
                raise ValueError(f"{role} cannot be a {type(part).__name__}; wrap the whole in it")
            for setting in ("gradient_accumulation_steps", "loss_scale_factor"):
                if getattr(part, setting):
                    raise ValueError(
                        f"{role} cannot have {setting}, which concerns both optimizers. "
                        f"Received: {setting}={getattr(part, setting)!r}"
                    )
        try:
            self._pattern = re.compile(tables)
        except re.error as error:
            raise ValueError(
                f"tables must be a regular expression: {error}. Received: {tables!r}"
            ) from error
        self.tables = tables

    def is_table(self, variable: keras.Variable) -> bool:
        """Whether a variable counts as an embedding table."""
        return self._pattern.search(variable.path) is not None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the slots of both optimizers."""
        if self.built:
            return
        super().build(variables)
        self.embeddings.build([v for v in variables if self.is_table(v)])
        self.rest.build([v for v in variables if not self.is_table(v)])

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of this optimizer and of both that it is made of."""
        return self._variables + self.embeddings.variables + self.rest.variables

    @property
    def learning_rate(self) -> Any:
        """The learning rate of `rest`."""
        return self.rest.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.rest.learning_rate = learning_rate

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[keras.Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Leaves variables out of both weight decays; see `keras.optimizers.Optimizer`."""
        for part in (self.embeddings, self.rest):
            part.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets the state of this optimizer and of both that it is made of.

        Args:
            weights: A value for each of `variables`, in their order.

        Raises:
            ValueError: If there are more or fewer values, or one has another shape.
        """
        if len(weights) != len(self.variables):
            built = "" if self.built else "; call build(trainable_variables) first"
            raise ValueError(
                f"{self.name} has {len(self.variables)} variables{built}. "
                f"Received: {len(weights)} weights"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Updates the variables; see `keras.optimizers.Optimizer`."""
        if not self.built:
            self.build(list(trainable_variables or ()))
        variables = list(trainable_variables or self._trainable_variables)
        self._check_variables_are_known(variables)
        self._check_tables(grads, variables)
        parts: dict[bool, list[Any]] = {True: [], False: []}
        for pair in zip(*self._filter_empty_gradients(grads, variables), strict=True):
            parts[self.is_table(pair[1])].append(pair)
        if parts[True]:
            self.embeddings.apply_gradients(parts[True])
        if parts[False]:
            self.rest.apply_gradients(parts[False])
        self._iterations.assign_add(1)

    def _check_tables(self, grads: Sequence[Any], variables: Sequence[keras.Variable]) -> None:
        """Refuses a pattern that misses every table."""
        if any(map(self.is_table, self._trainable_variables)):
            return
        missed = [
            variable.path
            for gradient, variable in zip(grads, variables, strict=True)
            if isinstance(gradient, tf.IndexedSlices)
        ]
        if missed:
            raise ValueError(
                f"tables={self.tables!r} is found in the path of no variable, so all would be "
                f"trained by {type(self.rest).__name__}; looked up by id are {missed}"
            )

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Puts averages in the place of the variables, where an optimizer keeps them."""
        self.embeddings.finalize_variable_values([v for v in var_list if self.is_table(v)])
        self.rest.finalize_variable_values([v for v in var_list if not self.is_table(v)])

    def save_own_variables(self, store: Any) -> None:
        """Saves the step; Keras saves the two optimizers as parts of this one."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` has saved."""
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        return {
            "embeddings": keras.optimizers.serialize(self.embeddings),
            "rest": keras.optimizers.serialize(self.rest),
            "tables": self.tables,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "SplitOptimizer":
        parts = {
            role: keras.optimizers.deserialize(config[role], custom_objects)
            for role in ("embeddings", "rest")
        }
        return cls(**{**config, **parts})
