"""The heartbeat lease: a worker that the group has not heard for too long must not write any more."""

from __future__ import annotations

import math

from stream.clock import steady
from stream.errors import LeaseError


class Lease:
    """Runs while partitions are assigned; `session_timeout` in seconds, the lease is three quarters of it.

    A pause between a check and the write that follows it gets through: this is a guard, not fencing.
    """

    def __init__(self, session_timeout: float) -> None:
        self._limit = 0.75 * session_timeout
        self._beat = math.inf

    def grant(self, at: float | None = None) -> None:
        """The group heard us at `at`, by the steady clock (now)."""
        self._beat = steady() if at is None else at

    def release(self) -> None:
        """Nothing is assigned: nothing to guard."""
        self._beat = math.inf

    @property
    def age(self) -> float:
        """Seconds since the last good heartbeat; 0 where nothing is assigned."""
        return 0.0 if math.isinf(self._beat) else steady() - self._beat

    def check(self) -> None:
        """Raises LeaseError where the lease has run out."""
        if self.age > self._limit:
            raise LeaseError(f"no heartbeat for {self.age:.1f} s: another worker may own our partitions")
