"""Rows per second and peak memory of generating and preparing synthetic Ali-CCP and Byte-Rec files.

Each step is a process of its own, a command of `mptrec data`; its peak is what the operating system
reports. The files go to a temporary directory and are deleted. Vocabularies grow with the rows, as
`mptrec data generate` has it by default.

Writes the figures as JSON and the table in docs/datasets.md. Figures of data that are not measured
anew stay.

    python benchmarks/conversion.py
    python benchmarks/conversion.py --rows 1000 --docs runs/trial
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

from mptrec_cli.output import write_json
from mptrec_tf.files import write_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("ali-ccp", "byte-rec")
BEGIN, END = "<!-- conversion: benchmarks/conversion.py -->", "<!-- conversion: end -->"


def main() -> None:
    """Measures all sizes and writes figures and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--data", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs")
    args = parser.parse_args()
    args.docs.mkdir(parents=True, exist_ok=True)
    stored = args.docs / "datasets_conversion.json"
    earlier = json.loads(stored.read_text(encoding="utf-8"))["runs"] if stored.is_file() else []
    runs = [measure(name, rows) for name in args.data for rows in args.rows]
    measured = {run["data"] for run in runs}
    runs += [run for run in earlier if run["data"] not in measured]
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "synthetic": True,
        "imports": timed([sys.executable, "-c", "import apache_beam, mptrec_tf, tfx_bsl"]),
        "runs": sorted(runs, key=lambda run: (run["data"], run["rows"])),
    }
    write_json(stored, results)
    page = args.docs / "datasets.md"
    if page.is_file():
        write_text(page, with_table(page.read_text(encoding="utf-8"), results))
    print(table(results))


def measure(name: str, rows: int) -> dict[str, Any]:
    """Generates and prepares one data set.

    Args:
        name: Which one.
        rows: How many rows; Ali-CCP's test file has a tenth more.
    """
    with tempfile.TemporaryDirectory() as scratch:
        raw, output = pathlib.Path(scratch) / "raw", pathlib.Path(scratch) / "rows"
        generated = timed(mptrec("generate", name, "--rows", rows, "--output", raw))
        bytes_of_raw = sum(path.stat().st_size for path in raw.iterdir())
        prepared = timed(mptrec("prepare", name, "--source", raw, "--output", output))
        found = json.loads((output / "summary.json").read_text(encoding="utf-8"))["rows"]
        return {
            "data": f"synthetic {name}",
            "rows": sum(found.values()),
            "raw_mib": round(bytes_of_raw / 2**20),
            "generate": generated,
            "prepare": prepared,
        }


def mptrec(*arguments: object) -> list[str]:
    """The command `mptrec data` with these arguments."""
    return [sys.executable, "-m", "mptrec_cli", "data", *map(str, arguments), "--quiet"]


def timed(command: list[str]) -> dict[str, Any]:
    """Runs a command; gives its seconds, those of its processor time, and its peak memory."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| data | rows | raw MiB | generate: rows/s | peak MiB | prepare: rows/s | "
        "rows per CPU second | peak MiB |",
        "| --- " + "| ---: " * 7 + "|",
    ]
    for run in results["runs"]:
        rows, generate, prepare = run["rows"], run["generate"], run["prepare"]
        lines.append(
            f"| {run['data']} | {rows:,} | {run['raw_mib']:,} "
            f"| {rows / generate['seconds']:,.0f} | {generate['peak_mib']:,} "
            f"| {rows / prepare['seconds']:,.0f} | {rows / prepare['cpu_seconds']:,.0f} "
            f"| {prepare['peak_mib']:,} |"
        )
    imports = results["imports"]
    lines += [
        "",
        f"Start and imports are counted: {imports['cpu_seconds']} s of processor time and "
        f"{imports['peak_mib']} MiB of each. {results['machine']['cpus']} cores, one process.",
    ]
    return "\n".join(lines)


def with_table(page: str, results: dict[str, Any]) -> str:
    """The page with the table in place of the last one."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main()
