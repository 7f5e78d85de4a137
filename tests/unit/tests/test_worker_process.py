"""What the tests with real workers wait for before they judge: everything is committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.clients.log_reader import Span, TopicPartition
from stream.settings import Settings
from tests import worker_process
from tests.worker_process import WorkerProcess, all_committed

CLICKS: TopicPartition = ("clicks", 0)
RATINGS: TopicPartition = ("ratings", 1)


class Log:
    """Looks: (committed, ends) at each look, the last one for ever."""

    def __init__(self, *looks: tuple[dict[TopicPartition, int], dict[TopicPartition, int]]) -> None:
        self.looks, self.closed = list(looks), 0

    def __call__(self, settings: Settings) -> Log:
        return self

    def committed(self) -> dict[TopicPartition, int]:
        return self.looks[0][0]

    def spans(self, topics: object) -> dict[TopicPartition, Span]:
        _, ends = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {tp: Span(0, end) for tp, end in ends.items()}

    def close(self) -> None:
        self.closed += 1


def test_what_a_worker_sends_on_meanwhile_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(
        ({CLICKS: 4}, {CLICKS: 5, RATINGS: 0}),
        ({CLICKS: 5}, {CLICKS: 5, RATINGS: 1}),  # a misplaced record was sent on: the end has moved
        ({CLICKS: 5, RATINGS: 1}, {CLICKS: 5, RATINGS: 1}),
    )
    monkeypatch.setattr(worker_process, "KafkaLog", log)
    all_committed(Settings())
    assert (len(log.looks), log.closed) == (1, 1)


def test_what_is_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(({CLICKS: 5}, {CLICKS: 5, RATINGS: 7}))
    monkeypatch.setattr(worker_process, "KafkaLog", log)
    with pytest.raises(AssertionError, match=r"everything committed: \{\('ratings', 1\): 'None of 7'\}"):
        all_committed(Settings(), seconds=0.1)
    assert log.closed == 1


def test_a_worker_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ended(WorkerProcess):
        def runs(self) -> bool:
            raise AssertionError("worker w1 ended with 70")

    monkeypatch.setattr(worker_process, "KafkaLog", Log(({}, {CLICKS: 1})))
    with pytest.raises(AssertionError, match="ended with 70"):
        all_committed(Settings(), Ended(Settings(), tmp_path))
