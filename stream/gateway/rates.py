"""How many requests a client may send: a bucket of tokens for each, refilled with time. Pure but for the clock."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from stream.gateway.problems import ProblemError

MOST: Final = 10_000
"""Clients that are remembered: the one that was heard least recently is forgotten first."""


class Rates:
    """Limits each client.

    Args:
        rate: Requests per second; 0: any number. A second's worth, at least one, may come at once.
        clock: Seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, rate)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, at this time

    def take(self, client: str) -> None:
        """Count a request. Raises ProblemError if the client has sent too many."""
        if not self._rate:
            return
        now = self._clock()
        left, at = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1
        self._buckets[client] = left - allowed, now
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        if not allowed:
            seconds = math.ceil((1 - left) / self._rate)
            raise ProblemError(
                "rate", f"expected at most {self._rate:g} requests per second from {client}",
                headers={"Retry-After": str(max(1, seconds))},
            )  # fmt: skip
