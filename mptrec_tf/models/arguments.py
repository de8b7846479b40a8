"""Checks of what a model is made with."""

from collections.abc import Sequence


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Refuses numbers and widths of parts that are below 1, and no widths at all.

    Args:
        **sizes: By name of the argument, a number, or the widths of some layers.

    Raises:
        ValueError: Names the argument and its value.

    Example:

    >>> check_sizes(embedding_dim=8, tower_units=(64, 0))
    Traceback (most recent call last):
    ValueError: tower_units must be one or more widths of 1 or more. Received: (64, 0)
    """
    for name, size in sizes.items():
        if isinstance(size, Sequence):
            if not size or min(size) < 1:
                raise ValueError(
                    f"{name} must be one or more widths of 1 or more. Received: {tuple(size)}"
                )
        elif size < 1:
            raise ValueError(f"{name} must be 1 or more. Received: {size}")


def check_weights(**weights: float) -> None:
    """Refuses weights of a part of the loss that are below 0.

    Args:
        **weights: By name of the argument.

    Raises:
        ValueError: Names the argument and its value.

    Example:

    >>> check_weights(l2=-0.1)
    Traceback (most recent call last):
    ValueError: l2 must be 0 or more. Received: -0.1
    """
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must be 0 or more. Received: {weight}")


def check_own_embeddings(
    embedding_dim: int, input_projection: int, embedding_features: Sequence[str] | None
) -> None:
    """Refuses embeddings of a task's own that would have no path to join, or no width.

    Args:
        embedding_dim: Argument of `PromptModule`.
        input_projection: Argument of `PromptModule`.
        embedding_features: Argument of `PromptModule`.

    Raises:
        ValueError: Names the argument and what it needs.

    Example:

    >>> check_own_embeddings(2, 0, None)
    Traceback (most recent call last):
    ValueError: embedding_dim=2 needs an input_projection above 0: ...
    """
    if embedding_dim and not input_projection:
        raise ValueError(
            f"embedding_dim={embedding_dim} needs an input_projection above 0: the task's own "
            "embeddings join the path from the input"
        )
    if embedding_features and not embedding_dim:
        raise ValueError(
            f"embedding_features={list(embedding_features)} needs an embedding_dim above 0"
        )
