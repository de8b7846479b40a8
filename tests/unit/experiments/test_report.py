"""The page and the tables from stored results."""

import html.parser
import itertools

import pytest
import small_experiments
from small_experiments import line

from mptrec_tf.errors import ModelError
from mptrec_tf.experiments import Results
from mptrec_tf.experiments.report import write_report

VARIANTS = [{"name": "prompt", "model": "mptrec"}, {"name": "<joint>", "model": "mptrec"}]
ODD = [{"name": name, "model": "mptrec"} for name in ("prompt", r"cost $\foo$")]


class Page(html.parser.HTMLParser):
    """Texts and tags of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture
def experiment(tmp_path):
    return small_experiments.experiment(
        small_experiments.write_base(tmp_path), variants=VARIANTS, new_tasks=["buy"]
    )


@pytest.fixture
def stored(tmp_path, experiment):
    """A directory with results of two variants and three seeds."""
    results = Results(tmp_path / "results/tiny.jsonl")
    gates = {"click": [0.25, 0.75], "like": [0.5, 0.5]}
    for seed in range(3):
        aucs = {"click": 0.8 + seed / 100, "like": 0.7}
        drawn = {name: [[1, 2], [30 + seed, 40]] for name in ("shared", "click", "like")}
        for variant in ("prompt", "<joint>"):
            results.add(
                line(variant, seed, aucs, gates=gates, representations=None if seed else drawn)
            )
            added = {**aucs, "buy": 0.6 + seed / 50}
            results.add(
                line(variant, seed, added, ("buy",), gates={**gates, "buy": [0.1, 0.9]},
                     tuned={"learning_rate": 0.00123456}, trials=7)
            )  # fmt: skip
    return results.path.parent


def test_page(tmp_path, experiment, stored):
    write_report([experiment], stored, html=tmp_path / "r.html", title="All of it")
    page = Page()
    page.feed((tmp_path / "r.html").read_text())
    assert "All of it" in page.texts
    assert "0.81000 ± 0.01000" in page.texts
    assert "0.62000 ± 0.02000" in page.texts
    assert "<joint>" in page.texts  # escaped in the file
    assert "learning_rate 0.001235" in page.texts
    # Old tasks: 2 intervals, 2 costs, 2 gates, 2 representations; new: 1 interval, 2 costs, 2 gates
    assert page.tags.count("svg") == 8 + 5
    assert not page.links
    assert any("prompt, <joint>: 7." in text for text in page.texts)


def test_markdown(tmp_path, experiment, stored):
    write_report([experiment], stored, markdown=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("<!-- Generated from stored results")
    assert "| prompt (reference) | 3 | 0.81000 ± 0.01000 | - |" in text
    assert "**Not complete.** Results that are missing: prompt 4 of 10, <joint> 4 of 10." in text
    assert "12 of 12 results were made with other settings" in text
    assert "Seeds 0, 1, 2; at most 3 epochs, early stopping on validation." in text
    assert "`mptrec bench run` of the experiment `tiny`" in text
    assert "4 features; the label columns buy, click, like are none of them." in text
    assert "svg" not in text


def test_check_says_that_it_is_none_of_quality(tmp_path, stored, experiment):
    small = small_experiments.experiment(
        experiment.base, variants=VARIANTS, new_tasks=["buy"], check=True
    )
    write_report([small], stored, markdown=tmp_path / "r.md")
    assert "no claim about quality" in (tmp_path / "r.md").read_text()


def test_steps(tmp_path, experiment):
    steps = small_experiments.experiment(
        experiment.base,
        variants=VARIANTS[:1],
        tasks=["click"],
        new_tasks=["like", "buy"],
        one_after_another=True,
    )
    results = Results(tmp_path / "results/tiny.jsonl")
    aucs = {}
    for task, come in (("click", ()), ("like", ("like",)), ("buy", ("like", "buy"))):
        aucs[task] = 0.75
        results.add(line("prompt", 0, aucs, come))
    write_report([steps], results.path.parent, html=tmp_path / "r.html", markdown=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "### click, step by step" in text
    assert "| prompt (reference) | 1 | 0.75000 | 0.75000 | 0.75000 | +0.00000 | - |" in text
    assert "| prompt (reference) | 1,000 (100.0%), 10.0 s |" in text
    assert (tmp_path / "r.html").read_text().count("<svg") == 3


def test_without_the_lines_of_the_older_tasks_the_new_ones_are_shown(tmp_path, experiment, stored):
    file = stored / "tiny.jsonl"
    kept = [text for text in file.read_text().splitlines() if '"new_tasks":["buy"]' in text]
    file.write_text("\n".join(kept))
    write_report([experiment], stored, html=tmp_path / "r.html", markdown=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "### New task: buy" in text
    assert "0.62000 ± 0.02000" in text
    assert "trained together" not in text


def test_no_results_are_named(tmp_path, experiment):
    with pytest.raises(ModelError, match=r"no results; expected \['tiny.jsonl'\]"):
        write_report([experiment], tmp_path, html=tmp_path / "r.html")


def test_experiments_without_results_are_named(tmp_path, experiment, stored):
    other = small_experiments.experiment(experiment.base, name="other", title="Another one")
    write_report([experiment, other], stored, markdown=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert text.index("## Tiny") < text.index("## Another one\n\n- No results yet.")


def test_names_are_no_formulas_and_facts_are_marked(tmp_path):
    base = small_experiments.write_base(tmp_path)
    experiment = small_experiments.experiment(base, variants=ODD)
    results = Results(tmp_path / "results/tiny.jsonl")
    for variant in ODD:
        results.add(line(variant["name"], 0, {"click": 0.8, "like": 0.7}))
    write_report([experiment], results.path.parent, html=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert r"cost $\foo$</text>" in text
    assert "<code>mptrec bench run</code>" in text
    assert "<b>Not complete.</b>" in text
    assert "`" not in text.split("<svg")[0].split("</style>")[1]


def test_each_task_is_drawn_and_told_where_there_is_no_mean(tmp_path):
    experiment = small_experiments.experiment(
        small_experiments.write_base(tmp_path), variants=VARIANTS
    )
    results = Results(tmp_path / "results/tiny.jsonl")
    for seed, variant in itertools.product(range(2), ("prompt", "<joint>")):
        both = {"click": {"auc": 0.8, "rows": 9}, "like": {"rmse": 1.5, "rows": 9}}
        results.add(line(variant, seed, {"click": 0.8, "like": 0.7}, test=both))
    options = {"html": tmp_path / "r.html", "markdown": tmp_path / "r.md"}
    write_report([experiment], results.path.parent, **options)
    page = (tmp_path / "r.html").read_text()
    for task in ("click", "like"):
        assert f"{task}: every seed, mean, 95 % interval" in page
    text = (tmp_path / "r.md").read_text()
    assert "Best AUC of click: prompt, 0.80000." in text
    assert "Best RMSE of like: prompt, 1.50000." in text


def test_trees_have_no_epochs(tmp_path):
    trees = [{"name": "trees", "model": "lightgbm"}]
    base = small_experiments.write_base(tmp_path)
    experiment = small_experiments.experiment(base, variants=trees)
    results = Results(tmp_path / "results/tiny.jsonl")
    results.add(line("trees", 0, {"click": 0.8}, model="lightgbm", training={}))
    write_report([experiment], results.path.parent, markdown=tmp_path / "r.md")
    assert "Seeds 0; early stopping on validation." in (tmp_path / "r.md").read_text()
