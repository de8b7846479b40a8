"""Deadlines, and retries within them."""

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mptrec_client.errors import UnavailableError, server_error

T = TypeVar("T")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


class Deadline:
    """A point in time by which a call has ended, however many requests it makes.

    Args:
        seconds: How long from now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._end - time.monotonic()

    def remaining(self) -> float:
        """Seconds until then, for the next request.

        Raises:
            DeadlineExceededError: If there are none left.
        """
        seconds = self.seconds_left
        if seconds <= 0:
            raise server_error("DEADLINE_EXCEEDED", f"not done within {self._seconds:g} seconds")
        return seconds


def with_retries(send: Callable[[float], T], deadline: Deadline, retries: int) -> T:
    """Sends a request again while the server is unavailable.

    Nothing else is sent again: after a deadline the server is likely to be overloaded, and a
    request that it refuses stays wrong. The pauses double from 0.1 to 2 seconds, each shortened by
    up to a half at random, so that clients do not come back all at once.

    Args:
        send: Sends the request; takes the seconds that it may last.
        deadline: When all attempts have ended.
        retries: How often it is sent again at most.

    Returns:
        What `send` returns.

    Raises:
        ServerError: What the last attempt raised.
    """
    for attempt in itertools.count():
        try:
            return send(deadline.remaining())
        except UnavailableError:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
            pause *= random.uniform(0.5, 1)  # noqa: S311 - not for cryptography
            if attempt >= retries or pause >= deadline.seconds_left:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")
