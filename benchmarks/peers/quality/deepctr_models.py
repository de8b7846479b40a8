"""MMoE and PLE of DeepCTR, on its Keras 2. Needs requirements/peers/deepctr.txt."""

import numpy as np
import tensorflow as tf
from contest import PREDICTED_AT_ONCE, Rows, Settings, contest
from deepctr.feature_column import DenseFeat, SparseFeat
from deepctr.models import MMOE, PLE


class DeepCTR:
    """A model of DeepCTR."""

    def __init__(self, rows: Rows, name: str, settings: Settings) -> None:
        tf.keras.utils.set_random_seed(settings.seed)
        self.rows = rows
        columns = [DenseFeat("numbers", rows.dense["train"].shape[1])]
        columns += [SparseFeat(f"c{i}", n, rows.embedding) for i, n in enumerate(rows.sizes)]
        arguments = {
            "expert_dnn_hidden_units": rows.experts,
            "tower_dnn_hidden_units": rows.tower,
            "dnn_dropout": settings.dropout,
            "seed": settings.seed,
            "task_types": ["binary"] * len(rows.tasks),
            "task_names": rows.tasks,
        }
        self.model = (
            MMOE(columns, num_experts=len(rows.tasks) + 1, **arguments)
            if name == "mmoe"
            else PLE(columns, num_levels=1, **arguments)
        )
        losses = ["binary_crossentropy"] * len(rows.tasks)
        self.model.compile(tf.keras.optimizers.Adam(settings.rate), loss=losses)

    def _inputs(self, part: str, order: slice | np.ndarray = slice(None)) -> dict[str, np.ndarray]:
        ids = self.rows.ids[part][order]
        return {
            "numbers": self.rows.dense[part][order],
            **{f"c{i}": column for i, column in enumerate(ids.T)},
        }

    def train(self, order: np.ndarray) -> None:
        """One epoch."""
        labels = list(self.rows.labels["train"][order].T)
        x = self._inputs("train", order)
        self.model.fit(x, labels, batch_size=self.rows.batch, shuffle=False, verbose=0)

    def predict(self, part: str) -> np.ndarray:
        """Probabilities."""
        found = self.model.predict(self._inputs(part), batch_size=PREDICTED_AT_ONCE, verbose=0)
        return np.concatenate(found, axis=1)

    def parameters(self) -> int:
        """Trained weights."""
        return int(sum(np.prod(w.shape) for w in self.model.trainable_weights))


if __name__ == "__main__":
    contest(DeepCTR, ("mmoe", "ple"), ("deepctr", "tensorflow-cpu"))
