"""The heartbeat lease: a worker that the group has not heard for too long must not write any more."""

from __future__ import annotations

import math

from stream.core.errors import LeaseError
from stream.kafka.broker_clock import steady


class Lease:
    """Runs while partitions are assigned; `session_timeout` in seconds, the lease is three quarters of it.

    A pause between a check and the write that follows it gets through: this is a guard, not fencing. It must be checked about
    once a second: from the pauses between checks it knows a process that stood still.
    """

    def __init__(self, session_timeout: float) -> None:
        self._limit = 0.75 * session_timeout
        self._beat = math.inf
        self._checked = steady()
        self._stood = 0.0  # seconds of the longest pause between two checks since the last good heartbeat
        self.answered = True
        """The broker, to the last heartbeat, whatever it said; False while none has come."""

    def grant(self, at: float | None = None) -> None:
        """The group heard us at `at`, by the steady clock (now)."""
        self._beat = steady() if at is None else at
        self._stood = 0.0

    def release(self) -> None:
        """Nothing is assigned: nothing to guard."""
        self._beat = math.inf

    @property
    def age(self) -> float:
        """Seconds since the last good heartbeat; 0 where nothing is assigned."""
        return 0.0 if math.isinf(self._beat) else steady() - self._beat

    def check(self) -> None:
        """Raises LeaseError where the lease has run out; it says whose fault that is, as far as can be told from here."""
        now = steady()
        self._stood, self._checked = max(self._stood, now - self._checked), now
        if self.age <= self._limit:
            return
        if self._stood > self._limit / 2:
            why = f"this process stood still for {self._stood:.1f} s, and another worker may own our partitions"
        elif not self.answered:
            why = "broker unreachable; started again, the worker waits for it"
        else:
            why = "another worker may own our partitions"
        raise LeaseError(f"no heartbeat for {self.age:.1f} s: {why}")
