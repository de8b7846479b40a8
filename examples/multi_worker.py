"""One model trained by two processes of this machine, and by one, on rows of Census-income.

Prints the metrics of both ways, which are the same: each step sees the same rows. On a cluster,
every machine runs `train` with its own TF_CONFIG; see docs/distributed.md.

    python examples/multi_worker.py
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import mptrec_tf as mpt
from mptrec_tf.data import census_income
from mptrec_tf.training import MultiWorkerStrategy, ResumableEarlyStopping
from mptrec_tf.training.workers import is_chief, wait_for_workers

NEW_TASK = "education"
BATCH = 512


def main() -> None:
    """Trains both ways, unless this is one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="of the training data")
    parser.add_argument("--epochs", type=int, default=3, help="of each stage")
    parser.add_argument("--output", type=pathlib.Path, help="a worker's: where it writes")
    args = parser.parse_args()
    if args.output is not None:
        train(args.output, args.rows, args.epochs)
        return
    settings = ["--rows", str(args.rows), "--epochs", str(args.epochs)]
    with tempfile.TemporaryDirectory() as name:
        one, two = pathlib.Path(name, "one"), pathlib.Path(name, "two")
        run([*settings, "--output", str(one)], workers=1)
        run([*settings, "--output", str(two)], workers=2)
        ways = [json.loads((path / "metrics.json").read_text()) for path in (one, two)]
    print(f"{'':28}{'one process':>14}{'two processes':>14}")
    for metric, values in ways[0].items():
        print(f"{metric:28}{values:14.6f}{ways[1][metric]:14.6f}")


def train(output: pathlib.Path, rows: int, epochs: int) -> None:
    """What every worker runs: stage 1, then a new task, both resumed where they were cut off.

    Args:
        output: Directory that all workers share.
        rows: Rows to train on.
        epochs: Epochs of each stage.
    """
    strategy = MultiWorkerStrategy()
    keras.utils.set_random_seed(0)
    frames = census_income.load()
    frame, validation = frames.train[:rows], frames.validation[:rows]
    spec = census_income.spec()
    income, marital, new = spec.tasks
    encoder = mpt.FeatureEncoder(spec.features).adapt(frame)
    with strategy.scope():
        model = mpt.MPTRec(encoder, [income, marital], expert_units=(64, 32), tower_units=(16,))
        model.compile(keras.optimizers.AdamW(2e-3), jit_compile=False)

    metrics = {}
    for stage, tasks in (("stage1", [income, marital]), ("stage2", [new])):
        if stage == "stage2":
            model.add_task(new, tower_units=(16,))
        data = mpt.make_dataset(frame, encoder, tasks, batch_size=BATCH, shuffle=True)
        checkpoint = ResumableEarlyStopping(output / stage, "val_mean_auc", dataset=data)
        model.fit(
            data,
            validation_data=mpt.make_dataset(validation, encoder, tasks, batch_size=4096),
            epochs=epochs,
            callbacks=[checkpoint],
            verbose=2 if is_chief(strategy) else 0,
        )
        for name, value in checkpoint.epochs[checkpoint.best_epoch].items():
            if name.startswith("val_") and name != "val_mean_auc":
                metrics[f"{stage} {name.removeprefix('val_')}"] = value
    if is_chief(strategy):
        mpt.save_model(model, output / "model.keras")
        (output / "metrics.json").write_text(json.dumps(metrics))
    wait_for_workers(strategy)


def run(arguments: list[str], workers: int) -> None:
    """Runs this script as several workers of this machine, and waits for them.

    Args:
        arguments: Arguments of the script.
        workers: How many; for one `TF_CONFIG` is not needed.
    """
    print(f"{workers} {'process' if workers == 1 else 'processes'}:", flush=True)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    processes = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        place = {"TF_CONFIG": json.dumps(config)} if workers > 1 else {}
        command = [sys.executable, __file__, *arguments]
        processes.append(subprocess.Popen(command, env={**os.environ, **place}))  # noqa: S603
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a worker failed")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


if __name__ == "__main__":
    main()
