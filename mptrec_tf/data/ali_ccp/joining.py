"""The join of samples with the features that they have in common, in bounded memory.

Both files are read in ranges. Each range becomes one file with a batch of rows for every partition,
a number that the common index decides; then each partition is joined on its own. So memory holds a
block of a raw file, the wanted columns of a range, or the common features of one partition and some
of its samples, whatever the sizes of the files. The files between the two steps are the shuffle: a
`CoGroupByKey` would do the same, but Beam's local runner keeps it in memory, and it moves rows one
by one.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mptrec_tf.data.ali_ccp.fields import COMMON_COLUMNS, LABELS, SAMPLE_COLUMNS, column
from mptrec_tf.data.ali_ccp.lists import Parsed, parse_block
from mptrec_tf.data.preparation.lines import BadLines, Block, Range, read_blocks
from mptrec_tf.data.preparation.parts import PARTS, add_up, draw, write_counts, write_rows
from mptrec_tf.files import written_whole

PARTITION_BYTES = 128 << 20
"""Bytes of the larger raw file that one partition stands for."""

GROUP_ROWS = 1 << 18
"""Samples that are joined at a time, and about the most in one file of the result."""

VALIDATION_SHARE = 0.1
INDEX, OFFSET, PART = "common_feature_index", "offset", "part"
TRAIN, VALIDATION, TEST = range(3)


class RangeOf(NamedTuple):
    """A range of one of the four files, and the file that its rows go to."""

    kind: str
    part: Range
    partitions: int
    output: str


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """Parses one range and writes its rows by partition."""

    single: tuple[str, ...]
    multivalued: tuple[str, ...]
    seed: int
    max_bad_lines: int

    def __call__(self, argument: RangeOf) -> dict[str, Any]:
        bad = BadLines(argument.part.path, self.max_bad_lines)
        result: dict[str, Any] = {"dropped": 0, "repeated": {}}
        tables = []
        for block in read_blocks(argument.part):
            if argument.kind.endswith("_common"):
                table, repeated = self._common(block, bad)
            else:
                table, repeated, dropped = self._samples(block, bad, argument.kind)
                result["dropped"] += dropped
            tables.append(table)
            for field, count in repeated.items():
                result["repeated"][field] = result["repeated"].get(field, 0) + count
        if tables:
            _write_partitions(pa.concat_tables(tables), argument.partitions, argument.output)
        return result | {"bad": bad.count, "told": bad.told}

    def _common(self, block: Block, bad: BadLines) -> tuple[pa.Table, dict[str, int]]:
        parsed = parse_block(block, COMMON_COLUMNS, self.single, self.multivalued, bad)
        return _table({INDEX: parsed.columns[INDEX]}, parsed), parsed.repeated

    def _samples(
        self, block: Block, bad: BadLines, kind: str
    ) -> tuple[pa.Table, dict[str, int], int]:
        parsed = parse_block(block, SAMPLE_COLUMNS, self.single, self.multivalued, bad)
        rows = len(parsed.offsets)
        wrong = np.zeros(rows, bool)
        columns: dict[str, Any] = {}
        for name in LABELS:
            texts = parsed.columns[name]
            odd = ~pc.is_in(texts, value_set=pa.array(["0", "1"])).to_numpy(zero_copy_only=False)
            _add_bad(bad, parsed, odd & ~wrong, name, texts, "0 or 1")
            wrong |= odd
            columns[name] = pc.equal(texts, "1").cast(pa.int8())
        without_click = pc.greater(columns["conversion"], columns["click"]).to_numpy(
            zero_copy_only=False
        )
        dropped = without_click & ~wrong
        if kind == "train_samples":
            part = np.where(draw(parsed.offsets, self.seed) < VALIDATION_SHARE, VALIDATION, TRAIN)
        else:
            part = np.full(rows, TEST)
        columns[PART] = pa.array(part, pa.int8())
        columns[INDEX] = parsed.columns[INDEX]
        table = _table(columns, parsed).filter(pa.array(~wrong & ~dropped))
        return table, parsed.repeated, int(dropped.sum())


def _add_bad(
    bad: BadLines, parsed: Parsed, wrong: np.ndarray, name: str, texts: pa.Array, expected: str
) -> None:
    bad.add(
        parsed.offsets,
        wrong,
        lambda row: f"{name} is {texts[row].as_py()!r}, expected {expected}",
    )


def _table(columns: dict[str, Any], parsed: Parsed) -> pa.Table:
    fields = {column(field): ids for field, ids in parsed.fields.items()}
    return pa.table({**columns, **fields, OFFSET: pa.array(parsed.offsets, pa.int64())})


def _write_partitions(table: pa.Table, partitions: int, output: str) -> None:
    """Writes one file, with a batch for each partition."""
    known = table[INDEX].combine_chunks().dictionary_encode()
    hashes = pd.util.hash_array(known.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    partition = (hashes % np.uint64(partitions)).astype(np.int64)[known.indices.to_numpy()]
    table = table.take(pa.array(np.argsort(partition, kind="stable"))).combine_chunks()
    bounds = np.concatenate([[0], np.cumsum(np.bincount(partition, minlength=partitions))])
    path = pathlib.Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        written_whole(path) as partial,
        pa.ipc.new_file(partial, table.schema, options=options) as writer,
    ):
        for begin, end in itertools.pairwise(bounds):
            batches = table.slice(begin, end - begin).to_batches()
            writer.write_batch(batches[0] if batches else _no_rows(table.schema))


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


class Partition(NamedTuple):
    """A partition of the samples and common features of one pair of files."""

    kind: str
    number: int
    samples: list[str]
    common: list[str]
    samples_path: str
    common_path: str


@dataclasses.dataclass(frozen=True)
class Join:
    """Joins one partition and writes its rows."""

    rows: pathlib.Path
    counts: pathlib.Path
    prefix: str
    file_format: str
    columns: tuple[str, ...]
    max_bad_lines: int

    def __call__(self, argument: Partition) -> dict[str, Any]:
        unknown = BadLines(argument.samples_path, self.max_bad_lines)
        twice = BadLines(argument.common_path, self.max_bad_lines)
        result: dict[str, Any] = {"rows": {}, "positives": {}}
        common = _once(_read_partition(argument.common, argument.number), twice)
        for group, samples in enumerate(_groups(argument.samples, argument.number)):
            number = f"{argument.number:05d}-{group:05d}"
            for name, table in self._parts(samples, common, unknown):
                file = f"{self.prefix}{name}-{number}"
                write_rows(table, self.rows / name, file, self.file_format)
                positives = {label: int(pc.sum(table[label]).as_py() or 0) for label in LABELS}
                found = {"rows": {name: table.num_rows}, "positives": {name: positives}}
                result = add_up([result, found])
                if name == "train":
                    write_counts(table, self.columns, self.counts / f"{number}.arrow")
        bad = {"bad": unknown.count + twice.count, "told": twice.told + unknown.told}
        return result | bad

    def _parts(
        self, samples: pa.Table, common: pa.Table | None, unknown: BadLines
    ) -> Iterator[tuple[str, pa.Table]]:
        index = samples[INDEX].combine_chunks()
        known = pa.array([], pa.string()) if common is None else common[INDEX].combine_chunks()
        found = pc.index_in(index, value_set=known)
        missing = found.is_null().to_numpy(zero_copy_only=False)
        unknown.add(
            samples[OFFSET].to_numpy(),
            missing,
            lambda row: f"{INDEX} is {index[row].as_py()!r}, which is not in the common features",
        )
        columns = {name: samples[name] for name in LABELS}
        for name in samples.column_names:
            if name.startswith(column("")):
                columns[name] = samples[name]
                if common is not None:
                    columns[name] = _own_first(samples[name], common[name].take(found))
        table = pa.table(columns)
        part = samples[PART].to_numpy()
        for number in np.unique(part):
            yield PARTS[number], table.filter(pa.array((part == number) & ~missing))


def _own_first(own: pa.ChunkedArray, common: pa.ChunkedArray) -> pa.Array:
    """What a sample has itself, and where it has nothing what its common index has."""
    own, common = own.combine_chunks(), common.combine_chunks()
    if not pa.types.is_list(own.type):
        return pc.coalesce(own, common)
    return pc.if_else(pc.greater(pc.list_value_length(own), 0), own, common)


def _read_partition(files: Sequence[str], number: int) -> pa.Table | None:
    batches = list(_batches(files, number))
    return pa.Table.from_batches(batches).combine_chunks() if batches else None


def _groups(files: Sequence[str], number: int) -> Iterator[pa.Table]:
    """The rows of a partition, some at a time: one common index may have a large share of all."""
    group: list[pa.RecordBatch] = []
    for batch in _batches(files, number):
        group.append(batch)
        if sum(map(len, group)) >= GROUP_ROWS:
            yield pa.Table.from_batches(group).combine_chunks()
            group = []
    if group:
        yield pa.Table.from_batches(group).combine_chunks()


def _batches(files: Sequence[str], number: int) -> Iterator[pa.RecordBatch]:
    for file in files:
        if pathlib.Path(file).is_file():  # there is none where no line begins in a range
            with pa.memory_map(file) as source:
                yield pa.ipc.open_file(source).get_batch(number)


def _once(common: pa.Table | None, twice: BadLines) -> pa.Table | None:
    """The rows without those whose common index came before."""
    if common is None:
        return None
    index = common[INDEX].combine_chunks()
    again = pd.Series(index.to_numpy(zero_copy_only=False)).duplicated().to_numpy()
    twice.add(
        common[OFFSET].to_numpy(),
        again,
        lambda row: f"{INDEX} {index[row].as_py()!r} is given twice, expected once",
    )
    return common.filter(pa.array(~again)) if again.any() else common
