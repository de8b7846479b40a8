"""Rows per second of streamed input, by file format and stage, and its memory.

The Census-income training rows as TFRecord, Parquet and CSV, read by `make_dataset(stream=True)`,
and as the encoded examples that the pipelines stream. More rows are the same file several times.
Each measurement is a process of its own. Seconds are the CPU's, of all threads, so that rows per
second are those of one core; the rest of the machine matters little.

Writes the figures as JSON, and a table.

    python benchmarks/input_throughput.py
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import tensorflow as tf

from mptrec_cli.output import write_json
from mptrec_tf.data import FeatureEncoder, census_income, encode_labels, make_dataset
from mptrec_tf.data.readers import read_chunks
from mptrec_tf.files import write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
FORMATS = {
    "Parquet": "rows.parquet",
    "CSV": "rows.csv",
    "TFRecord": "rows.tfrecord",
    "encoded examples": "encoded",
}
PARTS = ("read", "parse", "encode", "shuffle and batch")
BATCH = 512
ENCODER, LABELS = "encoder.json", ("income", "marital")


def main() -> None:
    """Measures every format, unless this is the process of one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--times", type=int, default=4, help="how often the rows are repeated")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs/input_throughput.json")
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "TIMES", "DIR"), help="one of them")
    args = parser.parse_args()
    if args.measure:
        what, times, directory = args.measure
        print(json.dumps(measure(what, int(times), pathlib.Path(directory))))
        return
    with tempfile.TemporaryDirectory() as name:
        rows = write_files(pathlib.Path(name))
        results = {
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
            "rows": rows,
            "times": args.times,
            "formats": [run(what, args, pathlib.Path(name), rows) for what in FORMATS],
        }
    write_json(args.output, results)
    write_text(args.output.with_suffix(".md"), table(results))
    print(table(results))


def write_files(directory: pathlib.Path) -> int:
    """Writes the rows in each format, and the encoder; gives their number."""
    from pipelines.examples import LABEL, WEIGHT, encoded_examples, open_writer, raw_examples

    source = census_income.get().train
    rows = pyarrow.parquet.read_table(source)
    pyarrow.parquet.write_table(rows, directory / FORMATS["Parquet"], compression="zstd")
    texts = {name: rows[name].cast(written_type(rows[name])) for name in rows.schema.names}
    pyarrow.csv.write_csv(pyarrow.table(texts), directory / FORMATS["CSV"])
    spec = census_income.spec(*LABELS)
    encoder = FeatureEncoder(spec.features).adapt(source)
    (directory / ENCODER).write_text(encoder.to_json())
    with (
        tf.io.TFRecordWriter(str(directory / FORMATS["TFRecord"])) as raw_writer,
        open_writer(str(directory / FORMATS["encoded examples"]), 0) as writer,
    ):
        for chunk in read_chunks(source, spec.features, spec.tasks):
            for example in raw_examples(chunk, spec.features, (), [t.label for t in spec.tasks]):
                raw_writer.write(example)
            encoded = encoder.encode_chunk(chunk)
            columns = {  # examples know no int32
                name: array.astype(np.int64) if array.dtype == np.int32 else array
                for name, array in encoded.items()
            }
            for task, labels in encode_labels(spec.tasks, chunk)[0].items():
                columns |= {LABEL + task: labels, WEIGHT + task: labels * 0 + 1}
            for example in encoded_examples(columns):
                writer.write(example)
    return rows.num_rows


def written_type(column: pyarrow.ChunkedArray) -> pyarrow.DataType:
    """What a column is written as: text instead of a dictionary of texts."""
    return pyarrow.string() if pyarrow.types.is_dictionary(column.type) else column.type


def run(what: str, args: argparse.Namespace, directory: pathlib.Path, rows: int) -> dict[str, Any]:
    """All repetitions of one format, each in a process of its own."""
    found = {1: [], args.times: []}
    for _ in range(args.repetitions):
        for times, list_of in found.items():
            command = [sys.executable, __file__, "--measure", what, str(times), str(directory)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603
            list_of.append(json.loads(done.stdout))
    seconds = {part: statistics.median(one["seconds"][part] for one in found[1]) for part in PARTS}
    speeds = sorted(rows / one["seconds"]["whole"] for one in found[1])
    return {
        "format": what,
        "rows_per_core_second": {
            "median": statistics.median(speeds),
            "min": speeds[0],
            "max": speeds[-1],
        },
        "seconds": seconds,
        "slowest": max(PARTS, key=lambda part: seconds[part]),
        "peak_mib": {
            str(times): statistics.median(one["peak_mib"] for one in list_of)
            for times, list_of in found.items()
        },
    }


def measure(what: str, times: int, directory: pathlib.Path) -> dict[str, Any]:
    """One epoch of one format; at one time the rows, also the seconds of each part.

    Args:
        what: The format.
        times: How often the rows are repeated.
        directory: Where the files are.
    """
    spec = census_income.spec(*LABELS)
    encoder = FeatureEncoder.from_json((directory / ENCODER).read_text())
    path = directory / FORMATS[what]
    if what == "encoded examples":
        from pipelines.components.trainer import StreamedExamples

        (file,) = path.iterdir()
        rows = StreamedExamples([str(file)] * times, encoder, spec.tasks)
        dataset = rows.batches(BATCH, shuffle=True)
        plain = rows.batches(BATCH)
    else:
        settings: dict[str, Any] = {"batch_size": BATCH, "stream": True}
        dataset = make_dataset([path] * times, encoder, spec.tasks, shuffle=True, **settings)
    seconds = {"whole": timed(lambda: dataset)}
    peak = peak_mib()
    if times > 1:
        return {"seconds": seconds, "peak_mib": peak}
    if what == "encoded examples":
        from pipelines.examples import read_records

        seconds["read"] = timed(lambda: read_records([str(file)]))
        seconds["parse"] = timed(lambda: plain) - seconds["read"]
        seconds["encode"] = 0.0
    else:
        seconds["read"] = timed(lambda: blocks(path))
        chunks: list[Any] = []
        reading = timed(lambda: map(chunks.append, read_chunks(path, spec.features, spec.tasks)))
        seconds["parse"] = reading - seconds["read"]
        seconds["encode"] = timed(
            lambda: ((encoder.encode_chunk(c), encode_labels(spec.tasks, c)) for c in chunks)
        )
    known = sum(seconds[part] for part in PARTS[:-1])
    seconds["shuffle and batch"] = seconds["whole"] - known
    return {"seconds": seconds, "peak_mib": peak}


def peak_mib() -> int:
    """The most memory that this process held; `getrusage` would give the parent's, if larger."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def timed(make: Callable[[], Iterable[Any]]) -> float:
    """Seconds of the CPU for going through what `make` gives."""
    begun = time.process_time()
    for _ in make():
        pass
    return time.process_time() - begun


def blocks(path: pathlib.Path) -> Iterable[bytes]:
    """The bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def table(results: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    times = str(results["times"])
    lines = [
        f"| format | rows/s a core: median (min to max) | {' | '.join(PARTS)} | slowest "
        f"| peak MiB | at {times} times the rows |",
        "| --- " * (len(PARTS) + 5) + "|",
    ]
    for found in results["formats"]:
        speed, peak = found["rows_per_core_second"], found["peak_mib"]
        lines.append(
            f"| {found['format']} | {speed['median']:,.0f} ({speed['min']:,.0f} to "
            f"{speed['max']:,.0f}) | "
            + " | ".join(f"{found['seconds'][part]:.2f} s" for part in PARTS)
            + f" | {found['slowest']} | {peak['1']:,.0f} | {peak[times]:,.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
