"""Byte-Rec: short videos of the ICME 2019 grand challenge, track 2; who finished and liked them.

Source: "Short Video Understanding Challenge", ICME 2019 and ByteDance,
https://www.biendata.xyz/competition/icmechallenge2019/ (registration needed, so there is no
download here). The file that is read is `final_track2_train.txt`, or
`synthetic_final_track2_train.txt` as `mptrec_tf.data.synthetic` writes it.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mptrec_tf.data.preparation import lines
from mptrec_tf.data.preparation.jobs import LOCAL, Job
from mptrec_tf.data.preparation.lines import (
    BadLines,
    Block,
    Range,
    good_lines,
    read_blocks,
    split_file,
)
from mptrec_tf.data.preparation.parts import draw, find_file, write_counts, write_rows
from mptrec_tf.data.preparation.preparation import Preparation
from mptrec_tf.data.preparation.settings import published_settings
from mptrec_tf.spec import CategoricalFeature, DataSpec, Task

NAME = "byte-rec"
FILE = "final_track2_train.txt"
COLUMNS = (
    "uid",
    "user_city",
    "item_id",
    "author_id",
    "item_city",
    "channel",
    "finish",
    "like",
    "music_id",
    "device",
    "time",
    "duration_time",
)
LABELS = ("finish", "like")
FEATURES = tuple(name for name in COLUMNS if name not in (*LABELS, "time", "duration_time"))
TASKS = (
    Task("finish", label="finish"),
    Task("like", label="like"),
    Task("long", label="duration_time", above=10),
)
TRAIN_SHARE, VALIDATION_SHARE = 0.8, 0.1
SETTINGS = published_settings(
    ("finish", "like"),
    embedding_dim=4,
    expert_dropout=0.0,
    tower_dropout=0.0,
    batch_size=4000,
)
"""The published settings, as far as a configuration can say them."""

NUMBERS = b"0123456789-\t\r\n"
"""The bytes of a file without a bad line."""


def spec(min_count: int = 0) -> DataSpec:
    """The features and tasks: finish and like, and as a new task whether a video is over 10 s.

    Args:
        min_count: Ids seen so often or less in the training rows become the unknown id. Defaults to
            0: every id is kept.

    Returns:
        A `DataSpec` with 8 categorical features.

    Example:

    >>> [feature.name for feature in spec().features][:3]
    ['uid', 'user_city', 'item_id']
    """
    features = [CategoricalFeature(name, min_count=min_count + 1) for name in FEATURES]
    return DataSpec(tuple(features), TASKS)


def prepare(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    min_count: int = 0,
    file_format: str = "parquet",
    seed: int = 0,
    max_bad_lines: int = 0,
    beam: Sequence[str] = LOCAL,
    progress: bool = True,
) -> dict[str, Any]:
    """Splits the raw file 80/10/10 into Parquet or TFRecord files, in bounded memory.

    The same call goes on where one was cut off, and does nothing where one is complete.

    Args:
        source: Directory with the raw file.
        output: Directory that gets `train`, `validation`, `test`, `vocabularies`, `config.yaml` for
            `mptrec train`, and `summary.json`, each when it is complete.
        min_count: Ids seen so often or less in the training rows become the unknown id: `min_count`
            of the features in `config.yaml`. The rows hold all ids. Defaults to 0.
        file_format: `"parquet"` (default) or `"tfrecord"`.
        seed: Seed of the split. Defaults to 0.
        max_bad_lines: How many malformed lines are skipped, counted and told. Defaults to 0: the
            first one is an error.
        beam: Arguments of Apache Beam; its workers need to see both directories. Defaults to a run
            in this process.
        progress: Whether to show progress bars. Defaults to `True`.

    Returns:
        What `summary.json` holds: `"rows"` by part, `"positives"` by part and label,
        `"vocabularies"` by column, `"bad"` lines, whether `"synthetic"`.

    Raises:
        DataError: If the file is missing, a line is malformed (names the file, the line, the value
            and what was expected), or the output holds something else.

    Example:

    ```python
    byte_rec.prepare("downloads/track2", "data/byte-rec")
    ```
    """
    path = find_file(pathlib.Path(source), FILE)
    settings = {
        "min_count": min_count,
        "file_format": file_format,
        "seed": seed,
        "max_bad_lines": max_bad_lines,
    }
    preparation = Preparation(
        output, {"file": path}, settings, steps=[lines.RANGE_BYTES], beam=beam, progress=progress
    )
    done = preparation.finished()
    if done is not None:
        return done
    jobs = [
        Job(f"{number:05d}", part.end - part.start, (number, part))
        for number, part in enumerate(split_file(path))
    ]
    convert = _Convert(
        preparation.rows, preparation.counts, preparation.prefix, file_format, seed, max_bad_lines
    )
    results = preparation.run("converting", jobs, convert)
    return preparation.finish(results, spec(min_count), FEATURES, SETTINGS)


@dataclasses.dataclass(frozen=True)
class _Convert:
    """Converts one range of the file."""

    rows: pathlib.Path
    counts: pathlib.Path
    prefix: str
    file_format: str
    seed: int
    max_bad_lines: int

    def __call__(self, argument: tuple[int, Range]) -> dict[str, Any]:
        number, part = argument
        bad = BadLines(part.path, self.max_bad_lines)
        tables, offsets = [], []
        for block in read_blocks(part):
            table, where = parse_block(block, bad)
            tables.append(table)
            offsets.append(where)
        result: dict[str, Any] = {"bad": bad.count, "told": bad.told, "rows": {}, "positives": {}}
        if not tables:
            return result
        table = pa.concat_tables(tables)
        drawn = draw(np.concatenate(offsets), self.seed)
        chosen = {
            "train": drawn < TRAIN_SHARE,
            "validation": (drawn >= TRAIN_SHARE) & (drawn < TRAIN_SHARE + VALIDATION_SHARE),
            "test": drawn >= TRAIN_SHARE + VALIDATION_SHARE,
        }
        for name, mask in chosen.items():
            rows = table.filter(pa.array(mask))
            file = f"{self.prefix}{name}-{number:05d}"
            write_rows(rows, self.rows / name, file, self.file_format)
            result["rows"][name] = rows.num_rows
            result["positives"][name] = {
                label: int(pc.sum(rows[label]).as_py() or 0) for label in LABELS
            }
            if name == "train":
                write_counts(rows, FEATURES, self.counts / f"{number:05d}.arrow")
        return result


def parse_block(block: Block, bad: BadLines) -> tuple[pa.Table, np.ndarray]:
    """Parses and checks some lines.

    Args:
        block: The lines.
        bad: Takes those that are malformed.

    Returns:
        A table of int64 columns, the labels int8, and where in the file each row's line begins.

    Raises:
        DataError: If more lines are bad than allowed.
    """
    block = _lines_of_all_columns(good_lines(block, bad), bad)
    table = None
    if not block.text.tobytes().translate(None, NUMBERS):  # Arrow takes 0x10 for a number as well
        with contextlib.suppress(pa.ArrowInvalid):
            table = _read(block, pa.int64())
    if table is None:
        texts = _read(block, pa.string())
        wrong = np.zeros(texts.num_rows, bool)
        for name in COLUMNS:
            _add_bad(bad, block, texts, name, _is_int64(texts[name]), wrong, "a whole number")
        block = _keep(block, ~wrong)
        table = texts.filter(pa.array(~wrong)).cast(pa.schema([(n, pa.int64()) for n in COLUMNS]))
    wrong = np.zeros(table.num_rows, bool)
    for name in LABELS:
        allowed = pc.is_in(table[name], value_set=pa.array([0, 1]))
        _add_bad(bad, block, table, name, allowed, wrong, "0 or 1")
    for name in ("time", "duration_time"):
        allowed = pc.greater_equal(table[name], 0)
        _add_bad(bad, block, table, name, allowed, wrong, "0 or more")
    if wrong.any():
        block, table = _keep(block, ~wrong), table.filter(pa.array(~wrong))
    types = [(name, pa.int8() if name in LABELS else pa.int64()) for name in COLUMNS]
    return table.cast(pa.schema(types)), block.offsets


def _lines_of_all_columns(block: Block, bad: BadLines) -> Block:
    tabs = np.flatnonzero(block.text == ord("\t"))
    found = np.searchsorted(tabs, block.ends) - np.searchsorted(tabs, block.starts) + 1
    wrong = found != len(COLUMNS)
    bad.add(
        block.offsets,
        wrong,
        lambda row: f"{found[row]} columns, expected {len(COLUMNS)} with tabs between them",
    )
    return _keep(block, ~wrong)


def _keep(block: Block, kept: np.ndarray) -> Block:
    return block._replace(starts=block.starts[kept], ends=block.ends[kept])


def _read(block: Block, kind: pa.DataType) -> pa.Table:
    data = block.text.tobytes()
    if len(block.starts) < data.count(b"\n") + (data[-1:] != b"\n"):  # some are left out
        kept = zip(block.starts.tolist(), block.ends.tolist(), strict=True)
        data = b"\n".join(data[start:end] for start, end in kept)
    if not data:
        return pa.table({name: pa.array([], kind) for name in COLUMNS})
    return pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(column_names=COLUMNS, use_threads=False),
        parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, kind), null_values=[]
        ),
    )


def _is_int64(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which texts are whole numbers that int64 holds."""
    digits = pc.replace_substring_regex(texts, "^-?0*", "")
    length = pc.binary_length(digits)
    of_19 = pc.and_(pc.equal(length, 19), pc.less_equal(digits, str(2**63 - 1)))
    fits = pc.or_(pc.less(length, 19), of_19)
    return pc.and_(pc.match_substring_regex(texts, "^-?[0-9]+$"), fits)


def _add_bad(
    bad: BadLines,
    block: Block,
    table: pa.Table,
    name: str,
    allowed: pa.ChunkedArray,
    wrong: np.ndarray,
    expected: str,
) -> None:
    """Notes the rows in which a column is not as it is expected, each row once."""
    found = ~allowed.to_numpy() & ~wrong
    wrong |= found
    bad.add(
        block.offsets,
        found,
        lambda row: f"column {name!r} is {str(table[name][row].as_py())!r}, expected {expected}",
    )
