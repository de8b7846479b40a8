"""What a training step must cost, counted from shapes, and what the machine can give at most.

Only matrix products count as operations (`2 m k n` for each), and of memory traffic what no
implementation can avoid; so a figure says how near to the limit an implementation is at best.
"""

import dataclasses
import itertools

FLOAT = 4
"""Bytes of a float32."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The shapes of the model.

    Attributes:
        inputs: Width of `x`, `d`.
        embedded: How much of `d` is embeddings.
        tasks: Tasks of stage 1, `K`.
        expert_units: Widths of an expert's layers.
        tower_units: Hidden widths of a tower.
        query_units: Width of the query network's hidden layer.
        generic: Whether the towers also read `g` in stage 1.
    """

    inputs: int
    embedded: int
    tasks: int
    expert_units: tuple[int, ...]
    tower_units: tuple[int, ...]
    query_units: int
    generic: bool = True


@dataclasses.dataclass(frozen=True)
class Cost:
    """The least cost of training on one example.

    Attributes:
        flops: Floating point operations of matrix products.
        bytes: Memory traffic.
    """

    flops: float
    bytes: float


def layer_flops(inputs: int, outputs: int, *, input_gradient: bool = True) -> int:
    """Operations of a dense layer on an example: forward, and back to kernel and input.

    Args:
        inputs: Its width.
        outputs: Its width.
        input_gradient: Whether the gradient of the input is needed. Defaults to `True`.

    Example:

    >>> layer_flops(3, 5)
    90
    """
    return 2 * inputs * outputs * (3 if input_gradient else 2)


def mlp_flops(widths: list[int], *, input_gradient: bool = True) -> int:
    """The same of dense layers in a row, from the input's width to the output's."""
    return sum(
        layer_flops(a, b, input_gradient=input_gradient or index > 0)
        for index, (a, b) in enumerate(itertools.pairwise(widths))
    )


def mlp_parameters(widths: list[int], *, bias: bool = True) -> int:
    """How many weights dense layers in a row have."""
    return sum((a + bias) * b for a, b in itertools.pairwise(widths))


def stage1_cost(shapes: Shapes, batch: int) -> Cost:
    """Stage 1: experts, gates, towers on `f_k` and `g`, task classifier.

    The traffic is that of Adam over the dense weights once a step: weight, both moments and
    gradient read, and all but the gradient written.

    Args:
        shapes: The model.
        batch: Examples in a step.
    """
    hidden = shapes.expert_units[-1]
    # Of the first layer's input only the embeddings need a gradient.
    first = layer_flops(shapes.inputs, shapes.expert_units[0], input_gradient=False)
    first += 2 * shapes.embedded * shapes.expert_units[0]
    expert = first + mlp_flops(list(shapes.expert_units))
    gate = layer_flops(shapes.inputs, 2, input_gradient=False) + 2 * shapes.embedded * 2
    tower = mlp_flops([hidden, *shapes.tower_units, 1])
    flops = (shapes.tasks + 1) * expert + shapes.tasks * gate
    flops += (2 if shapes.generic else 1) * shapes.tasks * tower
    flops += layer_flops(hidden, shapes.tasks)
    weights = (shapes.tasks + 1) * mlp_parameters([shapes.inputs, *shapes.expert_units])
    weights += shapes.tasks * mlp_parameters([hidden, *shapes.tower_units, 1])
    weights += shapes.tasks * (hidden + 2 * shapes.inputs)
    return Cost(flops, 7 * FLOAT * weights / batch)


def stage2_cost(shapes: Shapes, batch: int, *, cached: bool) -> Cost:
    """Stage 2: query network, attention, gate and tower of one new task.

    Args:
        shapes: The model.
        batch: Examples in a step.
        cached: Whether `x`, `g` and `s_k` are read from memory; else the backbone is run.
    """
    hidden = shapes.expert_units[-1]
    tower = [hidden, *shapes.tower_units, 1]
    flops = mlp_flops([shapes.inputs, shapes.query_units, hidden], input_gradient=False)
    flops += 2 * 2 * hidden * shapes.tasks  # the sources are frozen
    flops += layer_flops(shapes.inputs, 2, input_gradient=False)
    flops += mlp_flops(tower)
    weights = mlp_parameters([shapes.inputs, shapes.query_units, hidden], bias=False)
    weights += mlp_parameters(tower) + 3 * hidden + 2 * shapes.inputs
    traffic = 7 * FLOAT * weights / batch
    if cached:
        traffic += FLOAT * (shapes.inputs + (shapes.tasks + 1) * hidden)
    else:
        forward = 2 * shapes.inputs * shapes.expert_units[0]
        forward += sum(2 * a * b for a, b in itertools.pairwise(shapes.expert_units))
        flops += (shapes.tasks + 1) * forward
    return Cost(flops, traffic)


def share_of_limits(cost: Cost, peaks: dict, examples_per_second: float) -> dict[str, float]:
    """How much of the machine's limits a throughput uses.

    Args:
        cost: Of one example.
        peaks: As `harness.peaks` measures them.
        examples_per_second: The throughput.

    Returns:
        `flops` and `bandwidth`, of 1, and `limit`, the examples per second at which the first of
        the two would be used up.
    """
    limits = peaks["flops"] / cost.flops, peaks["bandwidth"] / cost.bytes
    return {
        "flops": examples_per_second / limits[0],
        "bandwidth": examples_per_second / limits[1],
        "limit": min(limits),
    }
