"""Work that does not move ends the process; what is away is waited for."""

from __future__ import annotations

import logging

import pytest

from stream.core.errors import FreshetError
from stream.process.progress import STEP, Progress, Work


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def looks(progress: Progress, clock: Clock, seconds: float, *works: Work) -> None:
    """One look a second."""
    for _ in range(round(seconds)):
        clock.now += 1.0
        progress.look({work.what: work for work in works})


def test_work_that_stands_is_named_after_the_limit(clock: Clock) -> None:
    progress = Progress(10.0, clock)
    looks(progress, clock, 10, Work("records to be read", 7))
    assert (progress.seconds, progress.what, progress.stalled) == (9.0, "records to be read", False)
    with pytest.raises(FreshetError, match=r"nothing has moved for 10 s .*: waits for records to be read$") as raised:
        looks(progress, clock, 1, Work("records to be read", 7))
    assert raised.value.exit_code == 70
    assert progress.stalled


def test_work_that_moves_or_ends_begins_again(clock: Clock) -> None:
    progress = Progress(10.0, clock)
    for mark in range(20):
        looks(progress, clock, 9, Work("records", mark))
    looks(progress, clock, 1)
    assert (progress.seconds, progress.what) == (0.0, "")
    looks(progress, clock, 9, Work("records", 19))


def test_one_that_stands_is_seen_beside_one_that_moves(clock: Clock) -> None:
    progress = Progress(10.0, clock)
    for mark in range(10):
        looks(progress, clock, 1, Work("records", mark), Work("commits", 3))
    with pytest.raises(FreshetError, match="waits for commits"):
        looks(progress, clock, 1, Work("records", 10), Work("commits", 3))


def test_a_broker_that_is_away_is_no_stall_and_is_named(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(10.0, clock)
    with caplog.at_level(logging.WARNING):
        looks(progress, clock, 100, Work("records", 1, "a broker: none has answered for 30 s"))
    assert progress.what == "a broker: none has answered for 30 s"
    assert not progress.stalled
    messages = [record.getMessage() for record in caplog.records]
    assert set(messages) == {"the worker waits for a broker: none has answered for 30 s"}
    assert len(messages) == 4  # at 5 s, and every 30 s
    with pytest.raises(FreshetError, match="waits for records"):
        looks(progress, clock, 11, Work("records", 1))


def test_a_short_absence_is_not_worth_a_word(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(10.0, clock)
    looks(progress, clock, 4, Work("the group", 1, "a broker: the group has no coordinator"))
    assert caplog.records == []


def test_a_process_that_was_stopped_had_no_time_to_get_on(clock: Clock) -> None:
    progress = Progress(10.0, clock)
    looks(progress, clock, 3, Work("records", 1))
    clock.now += 3600.0
    progress.look({"records": Work("records", 1)})
    assert progress.seconds == 2.0 + STEP


def test_what_holds_work_up_is_named_soon_and_its_time_counts(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(40.0, clock)
    held = Work("records", 1, held="an open transaction holds it up")
    looks(progress, clock, 38, held)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["the worker waits for records: an open transaction holds it up"] * 2  # at 5 s, and every 30 s
    assert progress.what == "records: an open transaction holds it up"
    with pytest.raises(FreshetError, match=r"waits for records: an open transaction holds it up$"):
        looks(progress, clock, 3, held)


def test_what_holds_work_up_for_a_moment_is_not_worth_a_word(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress(40.0, clock)
    for mark in range(5):
        looks(progress, clock, 4, Work("records", mark, held="an open transaction holds it up"))
        looks(progress, clock, 1, Work("records", mark))
    assert caplog.records == []
