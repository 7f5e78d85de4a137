"""What the watch over a worker's progress takes for movement: work that is done, and offsets that are passed over by right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream.core.errors import FreshetError
from stream.kafka import consumer
from stream.kafka.consumer import SourceConsumer
from stream.process.progress import STEP, Progress

CLICKS, CHANGELOG = TP("clicks", 0), TP("app-interest-changelog", 0)
LIMIT = 10.0


class Watched:
    """A worker's consumer under the watch, one second a look. positions: the client's, by partition."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unread: int = 5_000) -> None:
        self.unread = unread
        self.calls = 0  # of the models, that have ended
        self.positions = {CLICKS: 0, CHANGELOG: 0}
        self.consumer: Any = SourceConsumer.__new__(SourceConsumer)
        recovery = SimpleNamespace(active_remaining_total=lambda: self.unread)
        app = SimpleNamespace(
            conf=SimpleNamespace(id="app"), settings=SimpleNamespace(changelog_topic=CHANGELOG.topic), in_recovery=True,
            tables=SimpleNamespace(recovery=recovery), changelog=lambda partition: TP(CHANGELOG.topic, partition),
        )  # fmt: skip
        self.ends: tuple[int | None, int | None] = (None, None)  # of the changelog: of what can be read, and of all
        self.held = ""  # what keeps a takeover from reading

        def state(tp: TP) -> Any:
            lso, highwater = self.ends if tp == CHANGELOG else (None, None)
            return SimpleNamespace(
                position=self.positions[tp], has_valid_position=True, paused=False, lso=lso, highwater=highwater
            )

        assignment = SimpleNamespace(tps=self.positions, state_value=state)
        client = SimpleNamespace(
            _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)), _coordinator=None
        )
        self.consumer.__dict__.update(
            app=app, sources=frozenset({CLICKS.topic}), _thread=SimpleNamespace(_consumer=client), joined=True, rebalances=1,
            recovered=0, assignment=lambda: set(), _held=frozenset(), _pending=None, _running=None, _next={CLICKS: 0}, _safe={},
            _committed_offset={}, calls=lambda: self.calls, held_up=lambda: self.held,
        )  # fmt: skip
        monkeypatch.setattr(consumer, "absent", lambda *arguments, **named: "")
        monkeypatch.setattr(consumer, "unread", lambda *arguments: self.unread)
        self._now = 0.0
        self._progress = Progress(LIMIT, lambda: self._now)

    def look(self, recovered: bool = True) -> None:
        self._now += STEP
        self._progress.look(self.consumer.work(recovered))

    def stands(self, recovered: bool = True, read: int = 0) -> None:
        """read: source records between two looks."""
        for _ in range(int(LIMIT)):
            self.consumer._next[CLICKS] += read
            self.positions[CLICKS] += read
            self.look(recovered)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_source_records_that_are_passed_over_are_movement(watched: Watched) -> None:
    """Nothing but markers and aborted transactions for longer than the limit: no micro-batch ends meanwhile."""
    watched.stands(read=100)


def test_source_records_that_nobody_reads_are_a_stall(watched: Watched) -> None:
    with pytest.raises(
        FreshetError, match=r"nothing has moved .*: waits for source records to be processed, 5000 of them"
    ):
        watched.stands()


@pytest.mark.parametrize("where", ["_pending", "_running"])
def test_a_micro_batch_that_stands_is_a_stall_however_far_is_read_on(watched: Watched, where: str) -> None:
    setattr(watched.consumer, where, object())
    with pytest.raises(FreshetError, match=r"nothing has moved .*: waits for source records to be processed"):
        watched.stands(read=100)


def test_micro_batches_that_end_are_movement(watched: Watched) -> None:
    watched.consumer._running = object()
    for _ in range(20):
        watched.consumer.finished += 1
        watched.look()


def test_model_calls_that_end_are_movement(watched: Watched) -> None:
    """A micro-batch may need any number of them, each for as long as inference_timeout: together longer than work may stand."""
    watched.consumer._running = object()
    for _ in range(20):
        watched.calls += 1
        watched.look()


def test_changelog_records_that_are_passed_over_are_movement(watched: Watched) -> None:
    for _ in range(20):
        watched.positions[CHANGELOG] += 100
        watched.look(recovered=False)


def test_a_recovery_that_stands_is_a_stall_however_far_other_topics_are_read(watched: Watched) -> None:
    with pytest.raises(FreshetError, match="waits for states to be read back and claimed: 5000 records"):
        watched.stands(recovered=False, read=100)


def test_an_open_transaction_on_the_changelog_is_named_soon_and_at_the_end(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    """A recovery reads up to it and no further."""
    watched.positions[CHANGELOG] = 7
    watched.ends = 7, 9
    held = "an open transaction of another producer on app-interest-changelog/0 since offset 7 holds it up"
    for _ in range(4):
        watched.look(recovered=False)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"the worker waits for states to be read back and claimed: 5000 records of app-interest-changelog remain: {held}"
    ]
    with pytest.raises(FreshetError, match=f"nothing has moved for 10 s .*: {held}$") as raised:
        watched.stands(recovered=False)
    assert raised.value.exit_code == 70


@pytest.mark.parametrize("ends", [(9, 9), (8, 9), (None, None), (-1, -1)])
def test_where_there_is_something_to_read_no_transaction_is_named(
    watched: Watched, ends: tuple[int | None, int | None]
) -> None:
    watched.positions[CHANGELOG] = 7
    watched.ends = ends
    assert watched.consumer.work(False)["recovery"].held == ""


@pytest.mark.parametrize("where", ["_pending", "_running"])
def test_what_keeps_a_micro_batch_from_looking_at_the_changelog_is_named(watched: Watched, where: str) -> None:
    setattr(watched.consumer, where, object())
    watched.held = "an open transaction holds it up"
    watched.unread = 0
    with pytest.raises(
        FreshetError, match="source records to be processed, 0 of them not read yet: an open transaction holds"
    ):
        watched.stands()


def test_what_keeps_a_takeover_from_reading_is_named(watched: Watched) -> None:
    watched.held = "an open transaction holds it up"
    assert watched.consumer.work(False)["recovery"].held == watched.held
