"""The settings that the published runs on large data sets share."""

from collections.abc import Sequence
from typing import Any


def published_settings(
    tasks: Sequence[str],
    *,
    embedding_dim: int,
    expert_dropout: float,
    tower_dropout: float,
    batch_size: int,
) -> dict[str, Any]:
    """Sections `stage1` and `stage2` as published, as far as a configuration can say it.

    Args:
        tasks: The tasks of stage 1.
        embedding_dim: Width of the embeddings.
        expert_dropout: Dropout of the experts.
        tower_dropout: Dropout of all towers.
        batch_size: Rows in a batch.
    """
    training = {
        "epochs": 10,
        "batch_size": batch_size,
        "learning_rate": 1e-4,
        "warmup": 0.0,
        "weight_decay": 0.0,
        "patience": 3,
    }
    return {
        "stage1": {
            "tasks": list(tasks),
            "model": {
                "embedding_dim": embedding_dim,
                "expert_units": [128, 64],
                "tower_units": [32, 32],
                "expert_dropout": expert_dropout,
                "tower_dropout": tower_dropout,
                "generic_weight": 0.9,
                "adversarial": "assigned",
                "adversarial_weight": 0.1,
                "l2_embedding": 1e-4,
                "l2": 7e-6,
            },
            "training": {**training, "embedding_optimizer": "lazy_adam"},
        },
        "stage2": {
            "module": {"input_projection": 0, "tower_units": [32, 32], "dropout": tower_dropout},
            "training": training,
        },
    }
