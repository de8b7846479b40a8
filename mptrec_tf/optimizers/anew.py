"""Optimizers like one that is there, without what it has learned."""

import copy
from collections.abc import Callable

import keras

EXCLUDED = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
"""Where Keras keeps what is left out of weight decay."""


def maker_of(optimizer: keras.optimizers.Optimizer) -> Callable[[], keras.optimizers.Optimizer]:
    """What makes an optimizer anew, with the settings that it has now.

    Schedules and functions that give a learning rate are taken as they are, so that they need not
    be known to Keras; what is left out of weight decay is in no configuration.

    Args:
        optimizer: The optimizer.

    Example:

    >>> make = maker_of(keras.optimizers.Adam(lambda: 0.5))
    >>> float(make().learning_rate)
    0.5
    """
    kind, parts = type(optimizer), _parts(optimizer)
    rates = [part._learning_rate for part in parts]
    given = [None if isinstance(rate, keras.Variable) else rate for rate in rates]
    kept = [{name: vars(part)[name] for name in EXCLUDED if name in vars(part)} for part in parts]
    try:
        for part, rate in zip(parts, given, strict=True):
            if rate is not None:
                part._learning_rate = 0.0
        config = optimizer.get_config()
    finally:
        for part, rate in zip(parts, rates, strict=True):
            part._learning_rate = rate

    def make() -> keras.optimizers.Optimizer:
        new = kind.from_config(copy.deepcopy(config))  # Keras changes what it is given
        for part, rate, excluded in zip(_parts(new), given, kept, strict=True):
            if rate is not None:
                part.learning_rate = rate
            for name, value in excluded.items():
                setattr(part, name, value)
        return new

    return make


def _parts(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """An optimizer and those that it is made of."""
    own = [part for part in vars(optimizer).values() if isinstance(part, keras.Optimizer)]
    return [optimizer, *(deeper for part in own for deeper in _parts(part))]
