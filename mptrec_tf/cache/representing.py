"""From encoded rows to what the frozen part of a model makes of them."""

import functools
from collections.abc import Iterable
from typing import Any, Protocol

import keras
import tensorflow as tf
from tqdm.auto import tqdm

from mptrec_tf.data.encoded import EncodedRows
from mptrec_tf.errors import ModelError

BATCH = 4096


class Representing(Protocol):
    """A model that represents rows, such as `mptrec_tf.MPTRec`."""

    backbone: Any
    jit_compile: Any

    def represent(self, inputs: Any) -> Any:
        """What all tasks share of a batch, a structure of tensors."""

    def representation_fingerprint(self) -> str:
        """A digest of all that `represent` depends on."""


class RepresentedRows:
    """The rows that a model represents, batch after batch.

    Args:
        model: The model.
        rows: The rows, encoded.
        dtype: Precision in which representations are kept. Defaults to `None`, that of the model.

    Attributes:
        dtype: The precision.
        number: How many rows.
    """

    def __init__(self, model: Representing, rows: EncodedRows, dtype: str | None = None) -> None:
        self.dtype = keras.backend.standardize_dtype(dtype or model.backbone.compute_dtype)
        self.number = int(rows.batches(1).cardinality())
        self._rows = rows
        self._represent = tf.function(model.represent, jit_compile=model.jit_compile)

    @functools.cached_property
    def structure(self) -> Any:
        """What a represented batch is, of `tf.TensorSpec`."""
        x, *labels = self._rows.batches(BATCH).element_spec
        kept = tf.nest.map_structure(
            lambda s: tf.TensorSpec(s.shape, self.dtype if s.dtype.is_floating else s.dtype),
            self._represent.get_concrete_function(x).structured_outputs,
        )
        return (kept, *labels)

    def encoded(self, progress: bool) -> Iterable[Any]:
        """The batches before they are represented.

        Args:
            progress: Whether to show a progress bar.
        """
        return tqdm(
            self._rows.batches(BATCH), "representing", unit=" batches", disable=not progress
        )

    def represent(self, batch: Any) -> Any:
        """Puts representations in the place of a batch's inputs, rounded as in a training step.

        Args:
            batch: `(x, y)` or `(x, y, weights)`, of at most `BATCH` rows.

        Raises:
            ModelError: If a number is too large for `dtype`.
        """
        x, *labels = batch
        rows = len(next(iter(x.values())))
        # Filled up: for the last batch's shape XLA would compile once more.
        full = {
            name: tf.concat([part, tf.zeros((BATCH - rows, *part.shape[1:]), part.dtype)], axis=0)
            for name, part in x.items()
        }
        represented = tf.nest.map_structure(lambda part: part[:rows], self._represent(full))
        return (tf.nest.map_structure(self._rounded, represented), *labels)

    def _rounded(self, part: tf.Tensor) -> tf.Tensor:
        if not part.dtype.is_floating:
            return part
        rounded = tf.cast(part, self.dtype)
        if bool(tf.reduce_any(tf.math.is_inf(rounded) & tf.math.is_finite(part))):
            raise ModelError(
                f"a representation of {float(tf.reduce_max(tf.abs(part))):g} is too large for "
                f"{self.dtype}; keep the representations in the model's own precision"
            )
        return rounded
