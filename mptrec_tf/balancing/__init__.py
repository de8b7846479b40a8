"""How much each task counts while several are trained together, see `docs/balancing.md`."""

from typing import Any

import keras

from mptrec_tf.balancing.base import Balancing
from mptrec_tf.balancing.famo import FAMO
from mptrec_tf.balancing.gradnorm import GradNorm
from mptrec_tf.balancing.pcgrad import PCGrad
from mptrec_tf.balancing.task_gradients import TaskGradients
from mptrec_tf.balancing.uncertainty import Uncertainty

BALANCINGS: dict[str, type[Balancing]] = {
    "uncertainty": Uncertainty,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
    "famo": FAMO,
}

__all__ = [
    "BALANCINGS",
    "FAMO",
    "Balancing",
    "GradNorm",
    "PCGrad",
    "TaskGradients",
    "Uncertainty",
    "get",
]


def get(balancing: str | Balancing | dict[str, Any] | None) -> Balancing | None:
    """A balancing that begins anew.

    Args:
        balancing: A name of `BALANCINGS`, an object, of which a copy is made, its serialized
            configuration, or `None`.

    Raises:
        ValueError: If it is none of these.

    Example:

    >>> get("famo").learning_rate
    0.025
    """
    if isinstance(balancing, dict):
        balancing = keras.saving.deserialize_keras_object(balancing)
    if balancing is None:
        return None
    if isinstance(balancing, Balancing):
        return type(balancing).from_config(balancing.get_config())
    if not isinstance(balancing, str) or balancing not in BALANCINGS:
        raise ValueError(
            f"balancing must be None, one of {sorted(BALANCINGS)}, or an object of "
            f"mptrec_tf.balancing.Balancing. Received: {balancing!r}"
        )
    return BALANCINGS[balancing]()
