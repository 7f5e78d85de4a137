"""The heartbeat lease: a worker that the group has not heard from for too long must not write any more."""

from __future__ import annotations

import math

from stream.core.errors import LeaseError
from stream.kafka.broker_clock import steady


class Lease:
    """The lease that runs while partitions are assigned. It lasts three quarters of `session_timeout` (seconds).

    It does not notice a pause between a check and the write that follows: it is a guard, not fencing. It must be
    checked about once per second, because it uses the pauses between checks to recognize a process that stood still.
    """

    def __init__(self, session_timeout: float) -> None:
        self._limit = 0.75 * session_timeout
        self._beat = math.inf
        self._checked = steady()
        self._stood = 0.0  # seconds of the longest pause between two checks since the last good heartbeat
        self.answered = True
        """Whether the broker has answered the last heartbeat, with any result. False while no answer has arrived."""

    def grant(self, at: float | None = None) -> None:
        """Restart the lease: the group heard us at `at` by the steady clock (default: now)."""
        self._beat = steady() if at is None else at
        self._stood = 0.0

    def release(self) -> None:
        """Stop the lease: nothing is assigned, so there is nothing to guard."""
        self._beat = math.inf

    @property
    def age(self) -> float:
        """Seconds since the last good heartbeat; 0 if nothing is assigned."""
        return 0.0 if math.isinf(self._beat) else steady() - self._beat

    def check(self) -> None:
        """Raise LeaseError if the lease has expired. The error names the cause, as far as this process can know it."""
        now = steady()
        self._stood, self._checked = max(self._stood, now - self._checked), now
        if self.age <= self._limit:
            return
        if self._stood > self._limit / 2:
            why = f"this process stood still for {self._stood:.1f} s, and another worker may own our partitions"
        elif not self.answered:
            why = "broker unreachable; after a restart the worker waits for it"
        else:
            why = "another worker may own our partitions"
        raise LeaseError(f"no heartbeat for {self.age:.1f} s: {why}")
