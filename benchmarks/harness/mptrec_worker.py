"""`mptrec_tf` as a worker: plain `fit` of the published run, one epoch for each repetition.

Also writes what the peers need, with `--prepare`.
"""

import argparse
import pathlib
import time
from typing import Any

from harness.protocol import Worker


def main() -> None:
    """Prepares the peers' data, or warms up and repeats epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", type=pathlib.Path, help="write the peers' data and end")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1)
    parser.add_argument("--rows", type=int, help="at most so many rows")
    args = parser.parse_args()
    worker = Worker()
    if args.prepare is not None:
        from harness.census import prepare

        prepare(args.prepare, args.rows)
    else:
        train(worker, args.stage, args.rows)


def train(worker: Worker, stage: int, rows: int | None) -> None:
    """One long `fit`; after the first epoch each waits until it is asked for."""
    import keras
    import tensorflow as tf

    from harness import census
    from mptrec_tf.cache import cache_rows
    from mptrec_tf.data.encoded import RowsInMemory

    class Turns(keras.callbacks.Callback):
        """Waits before each epoch but the first one, and answers after it."""

        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            if epoch > 0 and next(requests, "end") == "end":
                self.model.stop_training = True
            self.begun = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            seconds = time.perf_counter() - self.begun
            if epoch == 0:
                worker.ready(chosen | {"first_epoch_seconds": seconds})
            elif not self.model.stop_training:
                worker.done(seconds, examples)

    requests = worker.requests()
    encoder, x, y = census.load(rows)
    examples = len(x["numeric"])
    chosen: dict[str, Any] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    model = census.build(encoder)
    model.compile(keras.optimizers.Adam(census.LEARNING_RATE))
    if stage == 1:
        y.pop(census.NEW_TASK)
        data = RowsInMemory((x, y))
    else:
        model.count_epoch()  # what an epoch costs does not depend on what the backbone has learned
        census.add_new_task(model)
        begun = time.perf_counter()
        data = cache_rows(model, RowsInMemory((x, {census.NEW_TASK: y[census.NEW_TASK]})))
        chosen["cache_seconds"] = time.perf_counter() - begun
    batches = data.batches(census.BATCH, shuffle=True)
    model.fit(batches, epochs=1_000_000, callbacks=[Turns()], verbose=0)


if __name__ == "__main__":
    main()
