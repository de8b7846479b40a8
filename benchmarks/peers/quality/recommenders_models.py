"""Multi-task ranking of TensorFlow Recommenders: its ranking tasks on layers that they share.

The library has no multi-task architecture of its own. Needs requirements/peers/recommenders.txt.
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from contest import PREDICTED_AT_ONCE, Rows, Settings, contest


class SharedBottom(tfrs.models.Model):
    """Embeddings and layers that all tasks share, a tower and a ranking task for each."""

    def __init__(self, rows: Rows, dropout: float) -> None:
        super().__init__()
        self.names = rows.tasks
        self.embeddings = [tf.keras.layers.Embedding(size, rows.embedding) for size in rows.sizes]
        self.bottom = tf.keras.Sequential(
            [
                layer
                for units in rows.experts
                for layer in (
                    tf.keras.layers.Dense(units, "relu"),
                    tf.keras.layers.Dropout(dropout),
                )
            ]
        )
        self.towers = {
            name: tf.keras.Sequential(
                [tf.keras.layers.Dense(units, "relu") for units in rows.tower]
                + [tf.keras.layers.Dense(1, "sigmoid")]
            )
            for name in self.names
        }
        self.tasks = {
            name: tfrs.tasks.Ranking(loss=tf.keras.losses.BinaryCrossentropy())
            for name in self.names
        }

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        embedded = [e(features["ids"][:, i]) for i, e in enumerate(self.embeddings)]
        shared = self.bottom(tf.concat([features["dense"], *embedded], -1), training=training)
        return {name: tower(shared) for name, tower in self.towers.items()}

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        predictions = self(inputs, training=training)
        return sum(
            self.tasks[name](labels=inputs["labels"][:, i : i + 1], predictions=predictions[name])
            for i, name in enumerate(self.names)
        )


class Recommenders:
    """The model, trained by Keras 2."""

    def __init__(self, rows: Rows, name: str, settings: Settings) -> None:
        tf.keras.utils.set_random_seed(settings.seed)
        self.rows = rows
        self.model = SharedBottom(rows, settings.dropout)
        self.model.compile(optimizer=tf.keras.optimizers.Adam(settings.rate))

    def train(self, order: np.ndarray) -> None:
        """One epoch."""
        parts = {"dense": self.rows.dense, "ids": self.rows.ids, "labels": self.rows.labels}
        x = {name: values["train"][order] for name, values in parts.items()}
        self.model.fit(
            tf.data.Dataset.from_tensor_slices(x).batch(self.rows.batch).prefetch(2), verbose=0
        )

    def predict(self, part: str) -> np.ndarray:
        """Probabilities."""
        x = {"dense": self.rows.dense[part], "ids": self.rows.ids[part]}
        found = self.model.predict(x, batch_size=PREDICTED_AT_ONCE, verbose=0)
        return np.concatenate([found[name] for name in self.rows.tasks], axis=1)

    def parameters(self) -> int:
        """Trained weights."""
        return int(sum(np.prod(w.shape) for w in self.model.trainable_weights))


if __name__ == "__main__":
    contest(Recommenders, ("shared_bottom",), ("tensorflow-recommenders", "tensorflow"))
