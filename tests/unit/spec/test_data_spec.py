import pytest

from mptrec_tf import (
    CategoricalFeature,
    DataSpec,
    MultiValuedFeature,
    NumericFeature,
    SpecError,
    Task,
)

SPEC = DataSpec(
    features=[
        NumericFeature("age", encoding="standardize", missing=-1.0),
        CategoricalFeature("city", min_count=3, missing_values=("?",), embedding_dim=6),
        CategoricalFeature("sex", vocabulary=("Female", "Male", "née ✓")),
        MultiValuedFeature("tags", hash_buckets=100, pooling="max", separator=";"),
    ],
    tasks=[
        Task("click", label="clicked"),
        Task("stay", label="seconds", above=10, mask="clicked", loss_weight=0.5),
        Task("grade", label="grade", kind="multiclass", classes=("a", "b"), weight="w"),
        Task("like", label="liked", positive=("yes", 1)),
    ],
)


@pytest.fixture
def read(tmp_path):
    """Reads a spec from a text."""

    def read_text(text):
        path = tmp_path / "spec.yaml"
        path.write_text(text, encoding="utf-8")
        return DataSpec.from_yaml(path)

    return read_text


def test_yaml_there_and_back_gives_an_equal_spec(tmp_path):
    SPEC.to_yaml(tmp_path / "spec.yaml")
    assert DataSpec.from_yaml(tmp_path / "spec.yaml") == SPEC


@pytest.mark.parametrize("text", ["1e5", "1e-3", "1.", "007", "on", "null", "2024-01-02", "é: #"])
def test_yaml_keeps_a_text_that_looks_like_something_else(tmp_path, text):
    feature = CategoricalFeature("c", vocabulary=(text, "a"), missing_values=(text + "0",))
    spec = DataSpec([feature], [Task("t", text, positive=text)])
    spec.to_yaml(tmp_path / "spec.yaml")
    assert DataSpec.from_yaml(tmp_path / "spec.yaml") == spec


def test_yaml_leaves_out_what_is_at_its_default(tmp_path):
    DataSpec([NumericFeature("age")], [Task("click", "clicked")]).to_yaml(tmp_path / "spec.yaml")
    assert (tmp_path / "spec.yaml").read_text() == (
        "features:\n- {name: age, kind: numeric}\n"
        "tasks:\n- {name: click, label: clicked, kind: binary}\n"
    )


def test_yaml_as_a_person_writes_it(read):
    spec = read(
        """
        features:
          - {name: age, kind: numeric, bins: 8}
          - {name: tags, kind: multivalued, vocabulary: [a, b]}
        tasks:
          - {name: rich, label: income, positive: [50000+., 60000]}
        """
    )
    assert spec == DataSpec(
        [NumericFeature("age", bins=8), MultiValuedFeature("tags", vocabulary=("a", "b"))],
        [Task("rich", "income", positive=("50000+.", 60000))],
    )


def test_yaml_anchors_and_merges_are_understood(read):
    spec = read(
        """
        features:
          - &first {name: age, kind: numeric, bins: 8}
          - {<<: *first, name: height}
        """
    )
    assert spec.features == (NumericFeature("age", bins=8), NumericFeature("height", bins=8))


def test_yaml_dates_stay_texts(read):
    spec = read(
        """
        features: [{name: day, kind: categorical, vocabulary: [2024-02-29, 2024-03-01T10:00:00]}]
        """
    )
    assert spec.features[0].vocabulary == ("2024-02-29", "2024-03-01T10:00:00")


FEATURE = "features: [{name: age, kind: numeric}]\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (FEATURE + "model: mmoe", ["model: no such key"]),
        (
            "features: [{name: age, kind: numeric, bin: 8}]",
            ["features[0] (age).bin: no such key"],
        ),
        (
            "features: [{name: age, kind: numeric, bins: '8'}]",
            ["features[0] (age).bins:", "integer", "got '8'"],
        ),
        (
            "features: [{name: age, kind: numeric, bins: 8.5}]",
            ["features[0] (age).bins:", "integer", "got 8.5"],
        ),
        (
            "features: [{name: age, kind: numeric, missing: .nan}]",
            ["features[0] (age).missing:", "finite", "got nan"],
        ),
        (
            "features: [{name: age, kind: numeric, encoding: log}]",
            ["features[0] (age).encoding:", "'piecewise_linear' or 'standardize'", "got 'log'"],
        ),
        ("features: [{name: age, kind: text}]", ["features[0] (age)", "'text'", "'categorical'"]),
        ("features: [{name: age}]", ["features[0] (age)", "kind"]),
        ("features: [{kind: numeric}]", ["features[0].name: this key is required"]),
        ("features: []", ["features: at least one is required"]),
        ("features: age", ["features: ", "got 'age'"]),
        ("tasks: []", ["features: this key is required"]),
        ("", ["got None"]),
        (
            FEATURE + "tasks: [{name: a, label: b, kind: multiclass}]",
            ["tasks[0] (a): ", "task 'a': a multiclass task needs 2 or more classes"],
        ),
        (
            FEATURE + "tasks: [{name: a, label: b, loss_weight: heavy}]",
            ["tasks[0] (a).loss_weight: ", "number", "got 'heavy'"],
        ),
        (
            FEATURE + "tasks: [{name: a, label: b}, {name: a, label: c}]",
            ["the task 'a' is given twice"],
        ),
        (
            "features: [{name: x, kind: numeric}, {name: x, kind: categorical}]",
            ["the feature 'x' is given twice"],
        ),
        (
            FEATURE + "tasks: [{name: old, label: age, above: 60}]",
            ["task 'old'", "label column 'age' is also a feature", "remove 'age'"],
        ),
    ],
)
def test_what_does_not_fit_is_named_with_file_key_and_value(read, text, parts):
    with pytest.raises(SpecError) as caught:
        read(text)
    for part in ["spec.yaml: ", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        FEATURE + "tasks: [{name: a, label: b}, {name: a, label: c}]",
        "features: [{name: x, kind: numeric}, {name: x, kind: categorical}]",
        FEATURE + "tasks: [{name: old, label: age, above: 60}]",
        "features: " + "age" * 1000,
        "age, click\n" * 1000,
    ],
)
def test_a_message_is_short(read, tmp_path, text):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 200


def test_all_problems_are_listed_at_once(read):
    with pytest.raises(SpecError) as caught:
        read("features: [{name: age, kind: numeric, bins: 0, bin: 3}, {name: '', kind: numeric}]")
    message = str(caught.value).splitlines()
    assert len(message) == 3
    assert [line.split(":")[1].strip() for line in message] == [
        "features[0] (age).bins",
        "features[0] (age).bin",
        "features[1] ().name",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FEATURE + FEATURE, "line 2: the key 'features' is given twice"),
        (
            "features:\n- name: age\n  kind: numeric\n  name: height\n",
            "line 4: the key 'name' is given twice",
        ),
        ("features: [", "not valid YAML"),
        ("? [a, b]\n: c", "not valid YAML"),
        ("features: &a [*a]", "spec.yaml: "),
        ("features: !!timestamp 2020-01-01", "spec.yaml: .*date"),
    ],
)
def test_yaml_that_is_not_plain_data_is_refused(read, text, message):
    with pytest.raises(SpecError, match=message):
        read(text)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir ['{made}']",
        "!!python/object/new:os.mkdir ['{made}']",
        "!!python/object/apply:os.mkdir {{args: ['{made}']}}",
        "!!python/name:os.mkdir ''",
        "!!python/tuple [a]",
    ],
)
def test_a_python_tag_is_refused_and_never_executed(read, tmp_path, value):
    made = tmp_path / "made"
    with pytest.raises(SpecError, match=r"could not determine a constructor for the tag .*python/"):
        read(f"features: {value.format(made=made)}")
    assert not made.exists()


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"none\.yaml: no such file"):
        DataSpec.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(SpecError, match=r"image\.yaml: not valid YAML"):
        DataSpec.from_yaml(tmp_path / "image.yaml")


def test_with_tasks_takes_tasks_in_the_order_given_and_keeps_the_features():
    some = SPEC.with_tasks("like", "click")
    assert some.tasks == (SPEC.tasks[3], SPEC.tasks[0])
    assert some.features == SPEC.features


@pytest.mark.parametrize("get", [SPEC.task, SPEC.with_tasks])
def test_an_unknown_task_is_refused_with_those_there_are(get):
    with pytest.raises(SpecError, match=r"no task 'buy'.*'click', 'stay', 'grade', 'like'"):
        get("buy")


def test_in_python_too_a_label_cannot_be_a_feature():
    with pytest.raises(SpecError, match=r"^task 'old': its label column 'age' is also a feature"):
        DataSpec([NumericFeature("age")], [Task("old", label="age", above=60)])
