"""External variants: tuned, trained once, scored as our models, in the same tables."""

import pathlib
import sys
import textwrap

import numpy as np
import pytest
import small_experiments
from sklearn.metrics import roc_auc_score

import peer_quality
from mptrec_tf.config import Config
from mptrec_tf.experiments import Results
from mptrec_tf.experiments.report import write_report

ADAPTER = """
import pathlib
import numpy as np
from contest import Rows, Settings, contest

class Logistic:
    def __init__(self, rows, name, settings):
        with pathlib.Path(__file__).with_name("trainings").open("a") as file:
            file.write(f"{settings.seed} {settings.rate}\\n")
        self.rows, self.settings = rows, settings
        self.weights = np.zeros((rows.dense["train"].shape[1], len(rows.tasks)))

    def train(self, order):
        for chosen in np.array_split(order, 10):
            x, y = self.rows.dense["train"][chosen], self.rows.labels["train"][chosen]
            p = 1 / (1 + np.exp(-x @ self.weights))
            self.weights -= 100 * self.settings.rate * x.T @ (p - y) / len(x)

    def predict(self, part):
        return 1 / (1 + np.exp(-self.rows.dense[part] @ self.weights))

    def parameters(self):
        return self.weights.size

contest(Logistic, ("logistic",), ("numpy",))
"""
VARIANTS = [small_experiments.TREES, {"name": "elsewhere", "model": "external"}]
SPACE = {
    "learning_rate": {"kind": "float", "min": 1e-9, "max": 1e-8, "log": True},
    "expert_dropout": {"kind": "float", "min": 0.1, "max": 0.5},
}


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    """The directory of an adapter that runs in this environment."""
    directory = tmp_path / "adapters"
    directory.mkdir()
    contest = pathlib.Path(peer_quality.ADAPTERS, "contest.py").read_text()
    (directory / "contest.py").write_text(contest)
    (directory / "small_models.py").write_text(textwrap.dedent(ADAPTER))
    monkeypatch.setattr(peer_quality, "ADAPTERS", directory)
    monkeypatch.setattr(
        peer_quality, "PEERS", {"elsewhere": peer_quality.Peer("small", "logistic")}
    )
    monkeypatch.setattr(peer_quality, "environment", lambda name: sys.executable)
    monkeypatch.setattr(peer_quality, "requirements", lambda name: "")
    return directory


def test_a_peer_is_tuned_and_trained_once(tmp_path, adapters):
    base = small_experiments.write_base(tmp_path)
    experiment = small_experiments.experiment(
        base, variants=VARIANTS, seeds=[0, 1], epochs=2, tuning={"trials": 2, "stage1": SPACE}
    )
    rows = peer_quality.write_rows(Config.from_yaml(base), tmp_path / "rows.npz")
    results = Results(tmp_path / "results/tiny.jsonl")
    for _ in range(2):
        peer_quality.run(experiment, rows, tmp_path, results)

    # The second trial learns next to nothing, so the first one, of the base, is chosen.
    trainings = (adapters / "trainings").read_text().splitlines()
    base_rate = Config.from_yaml(base).stage1.training.learning_rate
    assert trainings[0] == f"0 {base_rate}"
    assert 1e-9 < float(trainings[1].removeprefix("0 ")) < 1e-8
    assert trainings[2:] == [f"1 {base_rate}"]
    first, second = results.lines()
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["tuned"] == second["tuned"]
    assert first["tuned"]["learning_rate"] == base_rate
    assert first["versions"] == {"numpy": np.__version__}
    file = peer_quality.Training(
        peer_quality.Peer("small", "logistic"), first["tuned"], 0, 2
    ).digest(rows)
    with np.load(tmp_path / f"{file}.npz") as found:
        for i, task in enumerate(("click", "like")):
            auc = roc_auc_score(rows.labels["test"][task], found["test"][:, i])
            assert first["test"][task]["auc"] == pytest.approx(auc, abs=1e-6)

    write_report([experiment], results.path.parent, markdown=tmp_path / "r.md")
    text = (tmp_path / "r.md").read_text()
    assert "| elsewhere |" in text
    assert f"External, trained by another program: elsewhere by numpy {np.__version__}." in text


def test_lines_by_other_settings_are_refused_not_mixed(tmp_path, adapters):
    base = small_experiments.write_base(tmp_path)
    rows = peer_quality.write_rows(Config.from_yaml(base), tmp_path / "rows.npz")
    results = Results(tmp_path / "results/tiny.jsonl")
    for epochs in (1, 2):
        experiment = small_experiments.experiment(base, variants=VARIANTS, seeds=[0], epochs=epochs)
        if epochs == 1:
            peer_quality.run(experiment, rows, tmp_path, results)
        else:
            with pytest.raises(SystemExit, match=r"made with other settings.*'elsewhere'"):
                peer_quality.run(experiment, rows, tmp_path, results)
    (line,) = results.lines()
    assert line["epochs"] == 1


def test_a_peer_that_is_not_known_is_named(tmp_path, monkeypatch):
    base = small_experiments.write_base(tmp_path)
    file = small_experiments.write_experiment(tmp_path / "e.yaml", base, variants=VARIANTS)
    monkeypatch.setattr(sys, "argv", ["peer_quality.py", "--experiment", str(file)])
    with pytest.raises(SystemExit, match=r"'elsewhere'.*there are.*DeepCTR"):
        peer_quality.main()
