"""A lease that has run out says whose fault it is, as far as a worker can tell."""

from __future__ import annotations

import pytest

from stream.core.errors import LeaseError
from stream.kafka.lease import Lease

SESSION = 12.0  # the lease is 9 s


def ended(monkeypatch: pytest.MonkeyPatch, *checks: float, answered: bool) -> str:
    """What is said at the last check. checks: seconds since the last good heartbeat; answered: the broker, to one since."""
    now = 100.0
    monkeypatch.setattr("stream.kafka.lease.steady", lambda: now)
    lease = Lease(SESSION)
    lease.grant()
    lease.answered = answered
    for at in checks[:-1]:
        now = 100.0 + at
        lease.check()
    now = 100.0 + checks[-1]
    with pytest.raises(LeaseError) as raised:
        lease.check()
    assert raised.value.exit_code == 75
    return str(raised.value)


SECONDS = [float(second) for second in range(11)]


def test_a_broker_that_is_away_is_named_and_no_other_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    message = ended(monkeypatch, *SECONDS[:-1], 9.5, answered=False)
    assert message == "no heartbeat for 9.5 s: broker unreachable; after a restart the worker waits for it"


def test_where_the_broker_answers_another_worker_may_own_the_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    message = ended(monkeypatch, *SECONDS[:-1], 9.5, answered=True)
    assert message == "no heartbeat for 9.5 s: another worker may own our partitions"


@pytest.mark.parametrize("answered", [True, False])
def test_a_process_that_stood_still_is_named_whatever_the_broker_did(
    monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    message = ended(monkeypatch, 1.0, 2.0, 30.0, answered=answered)
    assert (
        message
        == "no heartbeat for 30.0 s: this process stood still for 28.0 s, and another worker may own our partitions"
    )


def test_the_lease_runs_out_at_three_quarters_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("stream.kafka.lease.steady", lambda: now)
    lease = Lease(10.0)
    lease.check()  # nothing assigned: nothing to guard
    lease.grant()
    now = 107.0
    lease.check()
    now = 108.0
    with pytest.raises(LeaseError):
        lease.check()
    lease.release()
    lease.check()
