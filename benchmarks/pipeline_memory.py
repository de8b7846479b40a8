"""What a pipeline's memory costs: its peak on Census-income, and on ten times its rows.

The larger data are the same rows repeated. Each run is a process of its own, `mptrec pipeline run`
of stage 1 with one epoch; its peak is what the operating system reports.

Writes the figures as JSON.

    python benchmarks/pipeline_memory.py
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from mptrec_cli.output import write_json
from mptrec_tf.config import Config, DataConfig
from mptrec_tf.data import census_income
from mptrec_tf.spec.parsing import dump, to_yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Measures both sizes and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="how often the rows are repeated")
    parser.add_argument("--stream", action="store_true", help="train from files, not from memory")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/pipeline_memory.json")
    args = parser.parse_args()
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "stream": args.stream,
        "runs": [measure(times, args.stream) for times in (1, args.times)],
    }
    small, large = (run["peak_mib"] for run in results["runs"])
    results["ratio"] = round(large / small, 3)
    write_json(args.output, results)
    print(json.dumps(results, indent=1))


def measure(times: int, stream: bool) -> dict[str, Any]:
    """One run on repeated rows.

    Args:
        times: How often the rows are repeated.
        stream: Whether training reads the files in every epoch.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        sources = {
            part: str(directory / f"{part}.parquet") for part in ("train", "validation", "test")
        }
        rows = 0
        for source, path in zip(census_income.get(), sources.values(), strict=True):
            table = pa.parquet.read_table(source)
            rows += table.num_rows * times
            with pa.parquet.ParquetWriter(path, table.schema) as writer:
                for _ in range(times):
                    writer.write_table(table)
        file = directory / "config.yaml"
        file.write_text(to_yaml(dump(config(sources, stream))))
        command = [sys.executable, "-m", "mptrec_cli", "pipeline", "run", "--stage", "pretrain"]
        begun = time.monotonic()
        process = subprocess.Popen(  # noqa: S603
            [*command, "--config", str(file), "--output", str(directory / "out")]
        )
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit("the pipeline failed")
        return {
            "rows": rows,
            "peak_mib": round(usage.ru_maxrss / 1024),
            "seconds": round(time.monotonic() - begun),
        }


def config(sources: dict[str, str], stream: bool) -> Config:
    """The Census configuration for one epoch, with nothing demanded of the model."""
    known = Config.from_yaml(ROOT / "configs/census_income.yaml")
    training = dataclasses.replace(known.stage1.training, epochs=1)
    return dataclasses.replace(
        known,
        data=DataConfig(**sources, stream=stream),
        stage1=dataclasses.replace(known.stage1, training=training),
        pipeline=dataclasses.replace(known.pipeline, thresholds=(), slices=()),
    )


if __name__ == "__main__":
    main()
