"""What a worker's watch over its topics takes for a loss, for a missing topic, for a wrong one, and for nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy import topics
from deploy.topicwatch import TopicWatch
from stream.errors import BrokerError, FreshetError, LossError, TopologyError
from stream.settings import Settings

SETTINGS = Settings()
KNOWN = {topic.name: f"id of {topic.name}" for topic in topics.topics(SETTINGS)}


def seen(ids: dict[str, str] = KNOWN, *wrong: str) -> topics.Topology:
    """A look that finds topics of these ids."""
    return topics.Topology(4, ids, tuple(KNOWN.keys() - ids.keys()), wrong)


def watch(
    monkeypatch: pytest.MonkeyPatch,
    *looks: topics.Topology | Exception,
    end: Callable[[FreshetError], object] = lambda error: None,
) -> TopicWatch:
    """One that finds `looks`, one after the other."""
    found = iter(looks)

    def look(settings: Settings) -> topics.Topology:
        one = next(found)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(topics, "look", look)
    return TopicWatch(SETTINGS, KNOWN, end)


def test_the_same_topics_are_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = watch(monkeypatch, seen(), seen(KNOWN | {"of somebody else": "c"}))
    watching.look()
    watching.look()


@pytest.mark.parametrize("topic", KNOWN)
def test_any_topic_with_another_id_was_made_anew(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    with pytest.raises(LossError, match=f"topic {topic} was recreated: it has the id z, and had id of {topic} when"):
        watch(monkeypatch, seen(KNOWN | {topic: "z"})).look()


@pytest.mark.parametrize("topic", KNOWN)
def test_any_topic_is_missing_once_two_looks_in_a_row_miss_it(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    without = seen({name: number for name, number in KNOWN.items() if name != topic})
    watching = watch(monkeypatch, without, seen(), without, without)
    for _ in range(3):
        watching.look()
    with pytest.raises(TopologyError, match=f"topic {topic} is missing"):
        watching.look()


def test_a_setting_that_does_not_fit_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopologyError, match=r"topic clicks has cleanup\.policy=compact; topic items has 2 partitions"):
        watch(
            monkeypatch, seen(KNOWN, "topic clicks has cleanup.policy=compact", "topic items has 2 partitions")
        ).look()


def test_no_broker_is_waited_for_a_bug_is_survived_and_a_loss_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.topicwatch.EVERY", 0.001)
    ended: list[FreshetError] = []
    looks = (BrokerError("nobody answers"), RuntimeError("a bug of a client"), seen(), seen(KNOWN | {"clicks": "z"}))
    watching = watch(monkeypatch, *looks, end=ended.append)
    watching.start()
    watching.join(10)
    assert not watching.is_alive()
    assert [type(error) for error in ended] == [LossError]
