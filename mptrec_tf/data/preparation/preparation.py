"""A preparation: its plan, its unfinished files, and what it leaves in the output."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mptrec_tf.data.preparation.jobs import Job, run_jobs
from mptrec_tf.data.preparation.lines import SHOWN, refuse_bad
from mptrec_tf.data.preparation.parts import FORMATS, PARTS, SYNTHETIC, add_up, merge_counts
from mptrec_tf.errors import DataError
from mptrec_tf.files import write_json, write_text
from mptrec_tf.spec import DataSpec
from mptrec_tf.spec.parsing import dump, to_yaml

WORK = ".partial"
SUMMARY = "summary.json"
CONFIG = "config.yaml"
VOCABULARIES = "vocabularies"
PLAN = "plan.json"


class Preparation:
    """Everything that one preparation writes, the unfinished in `.partial` within the output.

    Args:
        output: Directory of the prepared data set.
        files: The raw files by what they are.
        settings: All that the result depends on beside the files.
        steps: The sizes of its steps, on which the result does not depend but unfinished work does.
        beam: Arguments of Beam.
        progress: Whether to show progress bars.

    Raises:
        DataError: If the output holds something else.
    """

    def __init__(
        self,
        output: str | os.PathLike[str],
        files: Mapping[str, pathlib.Path],
        settings: Mapping[str, Any],
        *,
        steps: Sequence[int],
        beam: Sequence[str],
        progress: bool,
    ) -> None:
        if settings["file_format"] not in FORMATS:
            raise DataError(
                f"file format {settings['file_format']!r}: expected one of {list(FORMATS)}"
            )
        self.output = pathlib.Path(output)
        self.work = self.output / WORK
        self.rows = self.work / "rows"
        self.counts = self.work / "counts"
        self.synthetic = any(path.name.startswith(SYNTHETIC) for path in files.values())
        self._beam, self._progress = beam, progress
        self._bad, self._told = 0, list[str]()
        self._plan = {
            "files": {
                name: [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]
                for name, path in files.items()
            },
            "settings": json.loads(json.dumps(settings)),
        }
        self._begin({**self._plan, "steps": list(steps)})

    @property
    def prefix(self) -> str:
        """What the names of files begin with."""
        return SYNTHETIC if self.synthetic else ""

    def finished(self) -> dict[str, Any] | None:
        """The summary, where this very preparation is over already."""
        file = self.output / SUMMARY
        if not file.is_file():
            return None
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return summary if summary.get("plan") == self._plan else None

    def _begin(self, work: dict[str, Any]) -> None:
        if self.finished() is not None:
            return
        plan = self.work / PLAN
        goes_on = plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) == work
        if goes_on:
            return
        held = [name for name in (SUMMARY, *PARTS) if (self.output / name).exists()]
        if held:
            raise DataError(
                f"{self.output}: holds {held[0]!r} of other files or settings; choose another "
                "output or delete it"
            )
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        write_json(plan, work)

    def run(
        self,
        phase: str,
        jobs: Sequence[Job],
        do: Callable[[Any], dict[str, Any]],
        unit: str = "B",
    ) -> list[dict[str, Any]]:
        """Runs the jobs of one phase that are not done yet.

        Args:
            phase: Its name, and what the progress bar says.
            jobs: Its jobs.
            do: Does a job; the result has `"bad"`, the number of bad lines, and `"told"`, what is
                wrong with the first of them.
            unit: Unit of the sizes of the jobs. Defaults to `"B"`.

        Returns:
            The results.

        Raises:
            DataError: If there were more bad lines than allowed, those of earlier phases included.
        """
        directory = self.work / phase
        label = phase if self._progress else None
        results = run_jobs(jobs, do, directory, beam=self._beam, label=label, unit=unit)
        self._bad += sum(result.get("bad", 0) for result in results)
        self._told += [line for result in results for line in result.get("told", ())]
        refuse_bad(self._bad, self._plan["settings"]["max_bad_lines"], self._told[:SHOWN])
        return results

    def finish(
        self,
        results: Sequence[Mapping[str, Any]],
        spec: DataSpec,
        columns: Sequence[str],
        config: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Writes vocabularies, configuration and summary, and gives all files their final names.

        Args:
            results: The results of all phases.
            spec: Features and tasks.
            columns: The columns whose ids were counted, in the order of `write_counts`.
            config: Sections `stage1` and `stage2` of the configuration.

        Returns:
            The summary.

        Raises:
            DataError: If there are no rows for training or for validation.
        """
        total = add_up(results)
        for part in ("train", "validation"):
            if not total["rows"].get(part):
                raise DataError(f"{self.output}: there are no rows for {part}; more are needed")
        vocabularies = self._count(columns)
        for name in (*PARTS, VOCABULARIES):
            if (self.rows / name).is_dir():
                (self.rows / name).replace(self.output / name)
        ending = FORMATS[self._plan["settings"]["file_format"]]
        parts = [part for part in PARTS if total["rows"].get(part)]
        data = {part: str(self.output / part / f"*{ending}") for part in parts}
        text = to_yaml({"data": data, **dump(spec), **config})
        head = "# Synthetic rows: good for a trial, not for figures.\n" if self.synthetic else ""
        write_text(self.output / CONFIG, head + text)
        summary = {
            "synthetic": self.synthetic,
            **total,
            "told": total["told"][:SHOWN],
            "vocabularies": vocabularies,
            "plan": self._plan,
        }
        write_text(self.output / SUMMARY, json.dumps(summary, indent=1) + "\n")
        shutil.rmtree(self.work, ignore_errors=True)
        return summary

    def _count(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        files = sorted(self.counts.glob("*.arrow"))
        jobs = [Job(name, 1, number) for number, name in enumerate(names)]
        merge = _MergeCounts(
            files, names, self._plan["settings"]["min_count"], self.rows / VOCABULARIES
        )
        return dict(zip(names, self.run("vocabularies", jobs, merge, " columns"), strict=True))


class _MergeCounts:
    """Writes the vocabulary of one column; its argument is the column's number."""

    def __init__(
        self, files: list[pathlib.Path], names: Sequence[str], min_count: int, output: pathlib.Path
    ) -> None:
        self._files, self._names, self._min_count = files, names, min_count
        self._output = output

    def __call__(self, number: int) -> dict[str, int]:
        path = self._output / f"{self._names[number]}.parquet"
        return merge_counts(self._files, number, self._min_count, path)
