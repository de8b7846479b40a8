"""Ingest: files of raw rows (CSV, TSV, Parquet, TFRecord) to checked examples in three splits.

The stock `FileBasedExampleGen` with an executor that reads by the library's readers, by the spec.
Each file goes through one worker as a stream, so memory does not depend on the number of rows;
several files are read in parallel.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from google.protobuf import any_pb2, wrappers_pb2
from tfx import types
from tfx.components.example_gen import utils
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_gen.input_processor import FileBasedInputProcessor
from tfx.dsl.components.base import executor_spec
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import artifact_utils
from tfx.utils import proto_utils

from mptrec_tf.config import Config
from mptrec_tf.data import encode_labels, read_chunks
from mptrec_tf.data.columns import as_strings
from mptrec_tf.data.labels import RuleCounts
from mptrec_tf.data.readers import Chunk
from mptrec_tf.errors import DataError, PipelineError
from mptrec_tf.pipeline_config import SplitConfig
from mptrec_tf.spec import CategoricalFeature, DataSpec
from mptrec_tf.spec.parsing import dump, parse
from pipelines.examples import TEST, TRAIN, VALIDATION, open_writer, raw_examples
from pipelines.files import local_copy, matching

ROWS, BAD_ROWS = "rows:", "bad_rows:"
"""Custom properties of the examples, each followed by a split's name."""

BAD_ROWS_FILE = "bad_rows.json"
SHOWN = 20
"""Bad rows whose reason is kept."""

VARIABLE = re.compile(r"[{*?\[]")
"""What a name holds that stands for several names."""


@dataclasses.dataclass(frozen=True)
class IngestConfig:
    """What the executor needs to know.

    Args:
        spec: Features, and the tasks whose labels are read.
        others: Further columns to keep, as text.
        max_bad_rows: Rows of a split that may be left out because they cannot be read.
        split: How one source is parted, or `None`.
        trained: Names of the tasks that are trained; a value of their `positive` or `negative` must
            occur in the rows for training. Defaults to none.
    """

    spec: DataSpec
    others: tuple[str, ...]
    max_bad_rows: int
    split: SplitConfig | None
    trained: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As text, for the properties of an execution."""
        return json.dumps({f.name: dump(getattr(self, f.name)) for f in dataclasses.fields(self)})

    @classmethod
    def from_json(cls, text: str) -> "IngestConfig":
        """The inverse of `to_json`."""
        plain = json.loads(text)
        split = plain["split"]
        return cls(
            spec=parse(DataSpec, plain["spec"], "the spec of the pipeline"),
            others=tuple(plain["others"]),
            max_bad_rows=plain["max_bad_rows"],
            split=None if split is None else parse(SplitConfig, split, "pipeline.split"),
            trained=tuple(plain["trained"]),
        )


def ingest(
    config: Config,
    sources: Mapping[str, str],
    tasks: Sequence[str],
    *,
    span: int | None = None,
    trained: Sequence[str] | None = None,
) -> FileBasedExampleGen:
    """The component.

    Args:
        config: The configuration.
        sources: Absolute path or glob pattern by split; with `pipeline.split`, of `"train"` alone.
            It may hold `{SPAN}`, or `{YYYY}`, `{MM}` and `{DD}`, and `{VERSION}`, as in TFX; the
            latest is taken.
        tasks: Names of the tasks whose labels are read.
        span: The span to take; of dates, the days since 1970-01-01. Defaults to `None`: the latest.
        trained: Those of `tasks` that are trained. Defaults to `None`: all.

    Returns:
        A component with the output `examples`.

    Raises:
        PipelineError: If the sources are not all in one file system.
    """
    settings = IngestConfig(
        spec=config.spec.with_tasks(*tasks),
        others=config.pipeline.slice_columns,
        max_bad_rows=config.pipeline.checks.max_bad_rows,
        split=config.pipeline.split,
        trained=tuple(tasks if trained is None else trained),
    )
    base, splits = _input_splits(sources)
    packed = any_pb2.Any()
    packed.Pack(wrappers_pb2.StringValue(value=settings.to_json()))
    return FileBasedExampleGen(
        input_base=base,
        input_config=example_gen_pb2.Input(splits=splits),
        output_config=_output_config(config.pipeline.split),
        range_config=_range(span),
        custom_config=example_gen_pb2.CustomConfig(custom_config=packed),
        custom_executor_spec=executor_spec.BeamExecutorSpec(IngestExecutor),
    ).with_id("Ingest")


def choose_span(sources: Mapping[str, str], span: int | None = None) -> dict[str, str]:
    """The paths or patterns that `ingest` will read, the span filled in.

    Args:
        sources: As `ingest` takes them.
        span: The span to take. Defaults to `None`: the latest.

    Raises:
        DataError: If there is no such span, or the latest is not the same for all splits.
        PipelineError: If the sources are not all in one file system.
    """
    base, splits = _input_splits(sources)
    try:
        processor = FileBasedInputProcessor(base, splits, _range(span))
        found, version = processor.resolve_span_and_version()
    except ValueError as error:
        asked = "" if span is None else f"span {span}: "
        raise DataError(f"{asked}{', '.join(sources.values())}: {error}") from error
    return {
        split.name: os.path.join(
            base, processor.get_pattern_for_span_version(split.pattern, found, version)
        )
        for split in splits
    }


def _input_splits(sources: Mapping[str, str]) -> tuple[str, list[example_gen_pb2.Input.Split]]:
    """The directory that all sources share, in which nothing is variable, and the rest of each."""
    directories = zip(*(path.split("/")[:-1] for path in sources.values()), strict=False)
    shared = list(
        itertools.takewhile(
            lambda names: len(set(names)) == 1 and not VARIABLE.search(names[0]), directories
        )
    )
    if not shared:
        raise PipelineError(f"the sources are not in one file system: {list(sources.values())}")
    base = "/".join(names[0] for names in shared)
    if not base or base.endswith("/"):  # the root of a file system
        base += "/"
    return base, [
        example_gen_pb2.Input.Split(name=name, pattern=path[len(base) :].lstrip("/"))
        for name, path in sources.items()
    ]


def _range(span: int | None) -> range_config_pb2.RangeConfig | None:
    if span is None:
        return None
    return range_config_pb2.RangeConfig(
        static_range=range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
    )


def _output_config(split: SplitConfig | None) -> example_gen_pb2.Output:
    if split is None:
        return example_gen_pb2.Output()
    shares = {TRAIN: split.train, VALIDATION: split.validation, TEST: split.test}
    return example_gen_pb2.Output(
        split_config=example_gen_pb2.SplitConfig(
            splits=[
                example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=share)
                for name, share in shares.items()
            ],
            partition_feature_name=split.column,
        )
    )


class IngestExecutor(BaseExampleGenExecutor):
    """Writes examples by `IngestConfig`."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802
        raise NotImplementedError("Do writes the examples itself")

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads every file, writes its rows, and keeps count."""
        self._log_startup(input_dict, output_dict, exec_properties)
        inputs, outputs = example_gen_pb2.Input(), example_gen_pb2.Output()
        proto_utils.json_to_proto(exec_properties["input_config"], inputs)
        proto_utils.json_to_proto(exec_properties["output_config"], outputs)
        custom = example_gen_pb2.CustomConfig()
        proto_utils.json_to_proto(exec_properties["custom_config"], custom)
        text = wrappers_pb2.StringValue()
        custom.custom_config.Unpack(text)
        config = IngestConfig.from_json(text.value)

        examples = artifact_utils.get_single_instance(output_dict["examples"])
        splits = utils.generate_output_split_names(inputs, outputs)
        examples.split_names = artifact_utils.encode_split_names(splits)
        files = [
            (split.name, number, file)
            for split in inputs.splits
            for number, file in enumerate(
                find_files(os.path.join(exec_properties["input_base"], split.pattern))
            )
        ]
        summaries = os.path.join(examples.uri, ".summaries")
        tf.io.gfile.makedirs(summaries)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create(files, reshuffle=len(files) > 1)
                | "Write" >> beam.ParDo(WriteFile(text.value, examples.uri, summaries))
            )
        counts = _gather(summaries, files)
        tf.io.gfile.rmtree(summaries)
        _record(examples, counts, splits, config)


class WriteFile(beam.DoFn):
    """Writes the rows of one file, part by part, and a summary; an error is kept in the summary.

    Args:
        config: `IngestConfig` as text.
        examples: URI of the examples.
        summaries: Directory of the summaries.
    """

    def __init__(self, config: str, examples: str, summaries: str) -> None:
        self._config, self._examples, self._summaries = config, examples, summaries

    def process(self, element: tuple[str, int, str]) -> Iterator[None]:
        split, number, file = element
        config = IngestConfig.from_json(self._config)
        counts: dict[str, Any] = {"rows": {}, "bad": {}, "reasons": {}, "error": None}
        rules = RuleCounts(config.spec.with_tasks(*config.trained).tasks)
        try:
            with _Writers(self._examples, number) as writers:
                for name, rows, problem in _parts(config, split, file, rules):
                    if problem is None:
                        writers.write(name, rows)
                        counts["rows"][name] = counts["rows"].get(name, 0) + len(rows)
                    else:
                        counts["bad"][name] = counts["bad"].get(name, 0) + 1
                        reasons = counts["reasons"].setdefault(name, [])
                        reasons.extend([problem][: SHOWN - len(reasons)])
        except DataError as error:
            # Kept, not raised: runners wrap what is raised in their own errors.
            counts["error"] = str(error)
        counts["unmatched"] = rules.unmatched
        with tf.io.gfile.GFile(_summary(self._summaries, split, number), "w") as opened:
            opened.write(json.dumps(counts))
        yield from ()


class _Writers:
    """A file for each split that rows of one source fall into."""

    def __init__(self, examples: str, number: int) -> None:
        self._examples, self._number = examples, number
        self._open: dict[str, Any] = {}

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._open.values():
            writer.close()

    def write(self, split: str, rows: Sequence[bytes]) -> None:
        if split not in self._open:
            directory = os.path.join(self._examples, f"Split-{split}")
            self._open[split] = open_writer(directory, self._number)
        for row in rows:
            self._open[split].write(row)


def _parts(
    config: IngestConfig, split: str, file: str, rules: RuleCounts
) -> Iterator[tuple[str, list[bytes], str | None]]:
    """Split, examples, and `None`, or what is wrong with a single row; counts rows for training."""
    columns = [*config.others, *([config.split.column] if config.split else [])]
    read = (*config.spec.features, *map(CategoricalFeature, columns))
    left: dict[str, int] = {}
    unparsed: list[str] = []

    def left_out(reason: str) -> None:
        if len(unparsed) >= config.max_bad_rows:
            raise _too_many(config, f"{file}: {reason}")
        unparsed.append(reason)

    told = left_out if config.max_bad_rows else None
    with local_copy(file) as path:
        for chunk in read_chunks(path, read, config.spec.tasks, left_out=told):
            for name, part in _partition(config.split, split, Chunk(chunk.table, file)):
                allowed = left.setdefault(name, config.max_bad_rows)
                for kept, rows, problem in _readable(config, part, allowed):
                    if name == TRAIN and rows:
                        rules.update(kept, encode_labels(rules.open_tasks, kept)[0])
                    left[name] -= problem is not None
                    yield name, rows, problem
    for reason in unparsed:
        yield split, [], f"{file}: {reason}"


def _partition(split: SplitConfig | None, name: str, chunk: Chunk) -> Iterator[tuple[str, Chunk]]:
    if split is None:
        yield name, chunk
        return
    texts = as_strings(chunk.table[split.column], split.column, chunk.where).fill_null("")
    encoded = texts.dictionary_encode()
    total = split.train + split.validation + split.test
    buckets = np.array(
        [
            int(hashlib.sha256(text.encode()).hexdigest(), 16) % total
            for text in encoded.dictionary.to_pylist()
        ]
    )[encoded.indices.to_numpy()]
    edges = [0, split.train, split.train + split.validation, total]
    for part, low, high in zip((TRAIN, VALIDATION, TEST), edges, edges[1:], strict=False):
        rows = chunk.table.filter(pa.array((buckets >= low) & (buckets < high)))
        if rows.num_rows:
            yield part, Chunk(rows, chunk.where)


def _readable(
    config: IngestConfig, chunk: Chunk, allowed: int
) -> Iterator[tuple[Chunk, list[bytes], str | None]]:
    """The rows that can be read; each one that cannot alone, as long as it is allowed."""
    try:
        rows = raw_examples(chunk, config.spec.features, config.spec.tasks, config.others)
        yield chunk, rows, None
        return
    except DataError as error:
        if allowed <= 0 < config.max_bad_rows:
            raise _too_many(config, str(error)) from error
        if allowed <= 0:
            raise
        if chunk.table.num_rows == 1:
            yield chunk, [], str(error)
            return
    half = chunk.table.num_rows // 2
    for part in (chunk.table.slice(0, half), chunk.table.slice(half)):
        for kept, rows, problem in _readable(config, Chunk(part, chunk.where), allowed):
            allowed -= problem is not None
            yield kept, rows, problem


def _too_many(config: IngestConfig, reason: str) -> DataError:
    return DataError(
        f"more than {config.max_bad_rows} rows of a split cannot be read, the most that "
        f"pipeline.checks.max_bad_rows allows: {reason}"
    )


def find_files(pattern: str) -> list[str]:
    """The files of a pattern, as `matching`.

    Args:
        pattern: Path or glob pattern on this machine or in a remote file system.

    Raises:
        DataError: If there is none.
    """
    found = matching(pattern)
    if not found:
        raise DataError(f"{pattern}: no such file")
    return found


def _summary(directory: str, split: str, number: int) -> str:
    return os.path.join(directory, f"{split}-{number:05d}.json")


def _gather(directory: str, files: Sequence[tuple[str, int, str]]) -> list[dict[str, Any]]:
    """The summary of each file.

    Raises:
        DataError: If a file could not be read.
    """
    summaries = []
    for split, number, _ in files:
        with tf.io.gfile.GFile(_summary(directory, split, number), "r") as opened:
            summaries.append(json.loads(opened.read()))
    errors = [summary["error"] for summary in summaries if summary["error"]]
    if errors:
        raise DataError("\n".join(errors))
    return summaries


def _record(
    examples: types.Artifact,
    summaries: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    config: IngestConfig,
) -> None:
    """Keeps the counts with the examples.

    Raises:
        DataError: If more rows are bad than is allowed, a split has none, or no value of a trained
            task's rule occurs.
    """
    shown = []
    for split in splits:
        rows = sum(summary["rows"].get(split, 0) for summary in summaries)
        bad = sum(summary["bad"].get(split, 0) for summary in summaries)
        reasons = [reason for summary in summaries for reason in summary["reasons"].get(split, ())]
        if bad > config.max_bad_rows:
            raise DataError(
                f"{bad} rows of the split {split!r} cannot be read; "
                f"pipeline.checks.max_bad_rows allows {config.max_bad_rows}: {reasons[0]}"
            )
        if rows == 0:
            raise DataError(f"the split {split!r} has no rows")
        examples.set_int_custom_property(ROWS + split, rows)
        examples.set_int_custom_property(BAD_ROWS + split, bad)
        shown += reasons
    rules = RuleCounts(config.spec.with_tasks(*config.trained).tasks)
    for summary in summaries:
        rules.merge(summary["unmatched"])
    rules.require(config.trained, f"the split {TRAIN!r}")
    if shown:
        with tf.io.gfile.GFile(os.path.join(examples.uri, BAD_ROWS_FILE), "w") as opened:
            opened.write(json.dumps(shown[:SHOWN], indent=1, ensure_ascii=False))
