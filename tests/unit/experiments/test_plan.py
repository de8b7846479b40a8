"""What an experiment trains, and what is the same training."""

import pytest
import small_experiments
import small_runs

from mptrec_tf.errors import DataError, SpecError
from mptrec_tf.experiments.plan import plan

SEEDS = {"seeds": [0, 1]}


def mptrec(name, **more):
    return {"name": name, "model": "mptrec", **more}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_experiments.write_base(tmp_path_factory.mktemp("base"))


def cells(base, *variants, **changes):
    planned = plan(small_experiments.experiment(base, variants=list(variants), **changes))
    return {(cell.variant, cell.new_tasks, cell.seed): cell.run for cell in planned}


def test_ways_to_a_new_task(base):
    runs = cells(
        base,
        mptrec("added"),
        mptrec("together", new_task="together"),
        mptrec("alone", new_task="alone"),
        new_tasks=["buy"],
        seeds=[0],
    )
    first = runs["added", (), 0]
    assert first.tasks == ("click", "like")
    assert runs["added", ("buy",), 0].tasks == ("buy",)
    assert runs["added", ("buy",), 0].parent.digest == first.digest
    assert runs["together", ("buy",), 0].tasks == ("click", "like", "buy")
    assert runs["together", ("buy",), 0].parent is None
    assert runs["alone", ("buy",), 0].tasks == ("buy",)
    assert runs["alone", ("buy",), 0].parent is None


def test_variants_share_the_model_of_the_older_tasks(base):
    runs = cells(
        base,
        mptrec("full"),
        mptrec("fixed", module_settings={"attention": "fixed"}),
        mptrec("no adversary", settings={"adversarial": None}),
        new_tasks=["buy"],
        **SEEDS,
    )
    for seed in (0, 1):
        full, fixed, other = (
            runs[name, (), seed].digest for name in ("full", "fixed", "no adversary")
        )
        assert full == fixed != other
    assert len({run.digest for run in runs.values()}) == 2 * (2 + 3)
    assert runs["fixed", ("buy",), 0].arguments["attention"] == "fixed"
    assert runs["no adversary", (), 0].arguments["adversarial"] is None


def test_one_after_another_builds_on_the_step_before(base):
    runs = cells(
        base,
        mptrec("added"),
        mptrec("together", new_task="together"),
        tasks=["click"],
        new_tasks=["like", "buy"],
        one_after_another=True,
        seeds=[0],
    )
    first, second = runs["added", ("like",), 0], runs["added", ("like", "buy"), 0]
    assert second.parent.digest == first.digest
    assert runs["together", ("like", "buy"), 0].tasks == ("click", "like", "buy")


def test_digest_knows_what_matters(base, tmp_path):
    (run,) = cells(base, mptrec("a"), seeds=[0]).values()

    def digest(**changes):
        (other,) = cells(
            changes.pop("base", base), mptrec("b"), **{"seeds": [0], **changes}
        ).values()
        return other.digest

    assert digest() == run.digest
    assert digest(name="other", title="Other") == run.digest
    assert digest(seeds=[1]) != run.digest
    assert digest(epochs=1) != run.digest
    assert digest(tasks=["like", "click"]) != run.digest
    elsewhere = small_experiments.write_base(tmp_path)
    before = digest(base=elsewhere)
    assert before != run.digest  # other files
    with (tmp_path / "synthetic-test.csv").open("a") as file:
        file.write("30,1.5,Oslo,free,1,0,1\n")
    assert digest(base=elsewhere) != before  # the same files with other rows
    (tmp_path / "synthetic-test.csv").unlink()
    with pytest.raises(DataError, match=r"synthetic-test\.csv: no such file"):
        digest(base=elsewhere)


def test_digest_knows_which_part_a_file_belongs_to(tmp_path):
    data = {part: str(tmp_path / f"{part}-*.csv") for part in ("train", "validation", "test")}
    base = small_experiments.write_base(tmp_path, data=data)
    for name in ("train-1", "train-2", "validation-1", "test-1"):
        (tmp_path / f"{name}.csv").write_text(f"age\n{name}\n")

    def digest():
        (run,) = cells(base, mptrec("a"), seeds=[0]).values()
        return run.digest

    before = digest()
    (tmp_path / "train-2.csv").rename(tmp_path / "validation-0.csv")
    assert digest() != before


def test_digest_of_an_added_task_knows_the_precision_of_the_cache(tmp_path):
    plain = small_runs.PLAIN["stage2"]
    digests = []
    for stage2 in (plain, {**plain, "cache_dtype": "float16"}):
        base = small_experiments.write_base(tmp_path, stage2=stage2)
        runs = cells(base, mptrec("a"), new_tasks=["buy"], seeds=[0])
        digests.append((runs["a", (), 0].digest, runs["a", ("buy",), 0].digest))
    (first, added), (again, other) = digests
    assert first == again
    assert added != other


def test_a_variant_is_tuned_in_what_it_has(base):
    number = {"kind": "float", "min": 1e-3, "max": 1e-2}
    runs = cells(
        base,
        mptrec("a"),
        small_experiments.TREES,
        tuning={
            "trials": 3,
            "stage1": {"learning_rate": number, "generic_weight": number},
            "stage2": {"dropout": number},
        },
        new_tasks=["buy"],
        seeds=[4, 5],
    )
    assert set(runs["a", (), 5].config.tuner.stage1) == {"learning_rate", "generic_weight"}
    assert runs["a", (), 5].tuning_seed == runs["a", ("buy",), 5].tuning_seed == 4
    assert runs["trees", (), 5].tuning_seed is None
    untuned = cells(base, mptrec("a"), new_tasks=["buy"], seeds=[5])
    assert untuned["a", (), 5].digest != runs["a", (), 5].digest


def test_what_a_variant_gives_is_not_searched_for(base):
    rate = {"kind": "float", "min": 0.1, "max": 0.5}
    runs = cells(
        base,
        mptrec("none", settings={"expert_dropout": 0.0}, module_settings={"dropout": 0.0}),
        mptrec("searched"),
        tuning={
            "trials": 2,
            "stage1": {"expert_dropout": rate, "tower_dropout": rate},
            "stage2": {"dropout": rate, "learning_rate": rate},
        },
        new_tasks=["buy"],
        seeds=[0],
    )
    assert set(runs["none", (), 0].config.tuner.stage1) == {"tower_dropout"}
    assert set(runs["none", ("buy",), 0].config.tuner.stage2) == {"learning_rate"}
    assert set(runs["searched", (), 0].config.tuner.stage1) == {"expert_dropout", "tower_dropout"}


def test_a_search_that_fits_no_variant_names_the_variant(base):
    widths = {"kind": "choice", "values": [0, 4]}
    variant = mptrec("narrow", module_settings={"input_projection": 0})
    with pytest.raises(SpecError, match=r"narrow.*tuning\.stage2: .*needs an input_projection"):
        cells(
            base,
            variant,
            tuning={"trials": 2, "stage2": {"embedding_dim": widths}},
            new_tasks=["buy"],
            seeds=[0],
        )


def test_seeds_come_one_after_another(base):
    planned = plan(small_experiments.experiment(base, variants=[mptrec("a"), mptrec("b")], **SEEDS))
    assert [cell.seed for cell in planned] == [0, 0, 1, 1]
