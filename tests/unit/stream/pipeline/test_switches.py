"""What a worker says of the bundle that makes its slates, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from stream.core.bundle_log import CURRENT, Activation, BundleLog, Record, Switched, encode, key_of
from stream.core.errors import BrokerError
from stream.pipeline import switches as module
from stream.pipeline.switches import Switches
from stream.settings import Settings

A, B = "a" * 64, "b" * 64
NAME = "1" * 32


class Topic:
    """The topic `bundles`, and the ends of the slates."""

    def __init__(self) -> None:
        self.log = BundleLog()
        self.unread: list[Record] = []
        self.asked: list[list[int]] = []
        self.fails: list[Exception] = []

    async def read_to_end(self) -> None:
        if self.fails:
            raise self.fails.pop(0)
        records, self.unread = self.unread, []
        first = self.log.offset + 1
        self.log.apply([(first + at, key_of(one), encode(one)) for at, one in enumerate(records)])

    async def ends(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        assert topic == "recommendations"
        self.asked.append(list(partitions))
        return {one: 100 + one for one in partitions}

    async def write(self, records: Sequence[Record]) -> None:
        self.unread += records


class Fence:
    def __init__(self) -> None:
        self.owned = {0, 1, 2}

    def owns(self, partition: int) -> bool:
        return partition in self.owned

    def epoch(self, partition: int) -> int:
        return 7


def subject(topic: Topic, fence: Any = None) -> Switches:
    owner: Any = fence or Fence()
    return Switches(Settings(), NAME, owner, topic, topic.write, lambda: 5)


def announce(made: Switches, partitions: Collection[int], serving: Activation) -> None:
    asyncio.run(made.announce(partitions, serving))


def test_nothing_is_said_as_long_as_nothing_was_activated() -> None:
    topic = Topic()
    made = subject(topic)
    announce(made, [0, 1], Activation(CURRENT, A))
    assert (topic.unread, topic.asked) == ([], [])
    assert [made.has(one) for one in (0, 1, 2)] == [True, True, False]
    made.forget()
    assert not made.has(0)


def test_each_partition_is_said_once_with_where_its_slates_begin() -> None:
    topic = Topic()
    made = subject(topic)
    announce(made, [0, 2], Activation(3, B))
    assert topic.unread == [Switched(3, B, one, 100 + one, NAME, 7, 5) for one in (0, 2)]
    announce(made, [0, 1, 2], Activation(3, B))
    assert topic.asked == [[0, 2], [1]], (
        "what the topic says already, another worker's records included, is not said again"
    )
    announce(made, [0, 1, 2], Activation(CURRENT, A))
    assert topic.asked[-1] == [0, 1, 2]
    assert [one.activation for one in topic.unread if isinstance(one, Switched)] == [CURRENT] * 3


def test_the_first_switch_of_a_partition_also_says_what_made_its_slates_before() -> None:
    topic = Topic()
    made = subject(topic)
    announce(made, [0], Activation(CURRENT, A))
    announce(made, [0, 1], Activation(3, B))  # 1 was not taken over before: nobody here knows what made its slates
    of = [(one.partition, one.activation, one.bundle, one.slates) for one in topic.unread if isinstance(one, Switched)]
    assert of == [(0, CURRENT, A, 100), (0, 3, B, 100), (1, 3, B, 101)]
    announce(made, [0, 1], Activation(4, A))
    assert [one.activation for one in topic.unread if isinstance(one, Switched)] == [4, 4], "only the first one"
    assert topic.log.last(0) == Switched(3, B, 0, 100, NAME, 7, 5)


@pytest.mark.parametrize("others", [Switched(CURRENT, B, 0, 3, "2" * 32, 6, 4), Switched(2, A, 0, 3, "2" * 32, 6, 4)])
def test_what_the_topic_has_said_of_a_partition_is_not_said_again(others: Switched) -> None:
    topic = Topic()
    made = subject(topic)
    announce(made, [0], Activation(CURRENT, A))
    topic.unread = [others]  # a former owner's
    announce(made, [0], Activation(3, B))
    assert [one.activation for one in topic.unread if isinstance(one, Switched)] == [3]


def test_the_same_bundle_under_an_activation_is_no_other_one() -> None:
    topic = Topic()
    made = subject(topic)
    announce(made, [0], Activation(CURRENT, A))
    made.forget()
    announce(made, [0], Activation(CURRENT, A))
    announce(made, [0], Activation(3, A))
    assert [one.activation for one in topic.unread if isinstance(one, Switched)] == [3]


def test_a_partition_that_a_rebalance_took_meanwhile_is_left_out() -> None:
    topic, fence = Topic(), Fence()
    fence.owned = {1}
    announce(subject(topic, fence), [0, 1], Activation(3, B))
    assert [one.partition for one in topic.unread if isinstance(one, Switched)] == [1]


def test_a_broker_that_does_not_answer_is_asked_again_and_a_missing_right_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    topic = Topic()
    topic.fails = [KafkaTimeoutError(), KafkaTimeoutError()]
    announce(subject(topic), [0], Activation(3, B))
    assert len(topic.unread) == 1
    topic.fails = [TopicAuthorizationFailedError()]
    with pytest.raises(BrokerError, match="denies access: topic recommendations"):
        announce(subject(topic), [1], Activation(3, B))


def test_without_partitions_no_broker_is_asked() -> None:
    topic = Topic()
    topic.fails = [KafkaTimeoutError()]
    announce(subject(topic), [], Activation(3, B))
    assert topic.fails
