import pytest

from mptrec_tf.data.preparation import jobs


@pytest.fixture
def without_beam(monkeypatch):
    """Jobs run one after another here: where Beam is not the point, its start takes the longest."""
    monkeypatch.setattr(
        jobs, "_run_by_beam", lambda numbers, run, _: [run(number) for number in numbers]
    )
