"""Pauses between attempts, and the end of them."""

import pytest

from mptrec_client import DeadlineExceededError, UnavailableError
from mptrec_client.errors import server_error
from mptrec_client.retry import Deadline, with_retries


@pytest.fixture(name="clock")
def stopped_clock(monkeypatch):
    """A clock that only sleeping moves; keeps the pauses."""

    class Clock:
        now, pauses = 100.0, []

        def sleep(self, seconds):
            self.pauses.append(seconds)
            self.now += seconds

    clock = Clock()
    clock.pauses = []
    monkeypatch.setattr("mptrec_client.retry.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("mptrec_client.retry.time.sleep", clock.sleep)
    return clock


def failing(times):
    left = [times]

    def send(seconds):
        left[0] -= 1
        if left[0] >= 0:
            raise server_error("UNAVAILABLE", "down")
        return seconds

    return send


def test_pauses_double_up_to_two_seconds_less_up_to_a_half(clock):
    left = with_retries(failing(8), Deadline(100), retries=8)
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2, 2]
    assert len(clock.pauses) == 8
    for pause, most in zip(clock.pauses, longest, strict=True):
        assert most / 2 <= pause <= most
    assert left == pytest.approx(100 - sum(clock.pauses))


def test_pauses_differ(clock):
    for _ in range(20):
        with_retries(failing(1), Deadline(10), retries=1)
    assert len(set(clock.pauses)) > 1


def test_the_last_error_is_raised_when_the_retries_end(clock):
    with pytest.raises(UnavailableError, match="down"):
        with_retries(failing(3), Deadline(100), retries=2)
    assert len(clock.pauses) == 2


def test_no_pause_outlasts_the_deadline(clock):
    with pytest.raises(UnavailableError, match="down"):
        with_retries(failing(1000), Deadline(5), retries=1000)
    assert sum(clock.pauses) < 5


def test_a_deadline_that_is_over_sends_nothing(clock):
    deadline = Deadline(0.5)
    clock.now += 0.5
    with pytest.raises(DeadlineExceededError, match=r"not done within 0\.5 seconds"):
        with_retries(failing(0), deadline, retries=0)
