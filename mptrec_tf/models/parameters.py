"""How many numbers a model learns."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import keras


class Parameters(NamedTuple):
    """How many numbers a model learns.

    Attributes:
        trained: Those that `fit` trains now.
        total: Those that any stage trains: no seeds, statistics, masks or progress.
    """

    trained: int
    total: int


def count_parameters(model: keras.Model) -> Parameters:
    """Counts what a model learns.

    Args:
        model: The model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> model.layers[0].trainable = False
    >>> count_parameters(model)
    Parameters(trained=4, total=13)
    """
    # A layer that is frozen still has them there.
    learned = [w for layer in model._flatten_layers() for w in layer._trainable_variables]
    return Parameters(_numbers(model.trainable_weights), _numbers(learned))


def _numbers(weights: Iterable[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
