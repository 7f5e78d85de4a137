"""What the watch over a worker's progress takes for movement: work that is done, and offsets that are passed over by right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream.errors import FreshetError
from stream.progress import STEP, Progress
from stream.transport import SourceConsumer, consumer

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
        state = lambda tp: SimpleNamespace(position=self.positions[tp], has_valid_position=True)  # noqa: E731
        assignment = SimpleNamespace(tps=self.positions, state_value=state)
        client = SimpleNamespace(
            _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment)), _coordinator=None
        )
        vars(self.consumer).update(
            app=app, sources=frozenset({CLICKS.topic}), _thread=SimpleNamespace(_consumer=client), joined=True, rebalances=1,
            recovered=0, assignment=lambda: set(), _held=frozenset(), _pending=None, _running=None, _next={CLICKS: 0}, _safe={},
            _committed_offset={}, calls=lambda: self.calls,
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
