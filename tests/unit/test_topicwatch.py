"""What a worker's watch over its source topics takes for a loss, for a missing topic, and for nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy import topics
from deploy.topicwatch import TopicWatch
from stream.errors import BrokerError, FreshetError, LossError, TopologyError
from stream.settings import Settings

KNOWN = {"clicks": "a", "ratings": "b"}


def watch(
    monkeypatch: pytest.MonkeyPatch,
    *looks: dict[str, str] | Exception,
    end: Callable[[FreshetError], object] = lambda error: None,
) -> TopicWatch:
    """One that finds `looks` (topic -> id, or no broker), one after the other."""
    found = iter(looks)

    def ids(settings: Settings) -> dict[str, str]:
        look = next(found)
        if isinstance(look, Exception):
            raise look
        return look

    monkeypatch.setattr(topics, "ids", ids)
    return TopicWatch(Settings(), KNOWN, end)


def test_the_same_topics_are_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = watch(monkeypatch, KNOWN, KNOWN | {"of somebody else": "c"})
    watching.look()
    watching.look()


def test_a_topic_with_another_id_was_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LossError, match="topic ratings was made anew: it has the id z, and had b"):
        watch(monkeypatch, KNOWN | {"ratings": "z"}).look()


def test_a_topic_is_missing_once_two_looks_in_a_row_miss_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {"clicks": "a"}
    watching = watch(monkeypatch, without, KNOWN, without, without)
    for _ in range(3):
        watching.look()
    with pytest.raises(TopologyError, match="topic ratings is missing"):
        watching.look()


def test_no_broker_is_waited_for_and_a_loss_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.topicwatch.EVERY", 0.001)
    ended: list[FreshetError] = []
    watching = watch(monkeypatch, BrokerError("nobody answers"), KNOWN, KNOWN | {"clicks": "z"}, end=ended.append)
    watching.start()
    watching.join(10)
    assert not watching.is_alive()
    assert [type(error) for error in ended] == [LossError]
