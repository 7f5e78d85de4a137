"""aiokafka's clients: how to create them, which background tasks they run, and when a broker last answered them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.kafka.broker_clock import steady
from stream.kafka.credentials import security_arguments
from stream.settings import Settings

METADATA_MS = 10_000
"""How often a client requests metadata, which determines how soon it notices added partitions and a missing broker.
aiokafka's default is 5 minutes."""

AWAY = 2.5 * METADATA_MS / 1000
"""Seconds without metadata after which the broker counts as unreachable."""

Task = asyncio.Future[Any]


def consumer_arguments(settings: Settings) -> dict[str, Any]:
    """Return aiokafka's arguments for the brokers' addresses, timeouts and security."""
    return {
        "bootstrap_servers": settings.brokers.split(","),
        "request_timeout_ms": int(settings.request_timeout * 1000),
        **security_arguments(settings),
    }


def groupless_consumer(settings: Settings, name: str, **more: Any) -> AIOKafkaConsumer:
    """Create a consumer that is given its partitions, belongs to no group and commits nothing. It is not started.

    Args:
        settings: The brokers' addresses, timeouts and security.
        name: What it reads; its client id ends with it.
        more: Arguments of aiokafka that differ: by default it reads committed records only, and an offset that the log
            does not have raises OffsetOutOfRangeError.
    """
    defaults = {
        "client_id": f"{settings.app_id}-{name}",
        "auto_offset_reset": "none",
        "metadata_max_age_ms": METADATA_MS,
        "isolation_level": "read_committed",
    }
    return AIOKafkaConsumer(**consumer_arguments(settings), group_id=None, enable_auto_commit=False, **defaults | more)


def consumer_tasks(name: str, consumer: Any) -> Iterator[tuple[str, Task | None]]:
    """Yield the tasks that an AIOKafkaConsumer (None if not created yet) must have as long as it runs."""
    client, fetcher = getattr(consumer, "_client", None), getattr(consumer, "_fetcher", None)
    yield f"{name}: metadata", getattr(client, "_sync_task", None)
    yield f"{name}: fetching", getattr(fetcher, "_fetch_task", None)
    yield f"{name}: group", getattr(getattr(consumer, "_coordinator", None), "_coordination_task", None)


def producer_tasks(name: str, producer: Any) -> Iterator[tuple[str, Task | None]]:
    """Yield the tasks of an AIOKafkaProducer, as `consumer_tasks` does for a consumer."""
    yield f"{name}: metadata", getattr(getattr(producer, "client", None), "_sync_task", None)
    yield f"{name}: sending", getattr(getattr(producer, "_sender", None), "_sender_task", None)


def absent(consumer: Any, partitions: Iterable[tuple[str, int]] = (), *, group: bool = False) -> str:
    """Return which part of the cluster an AIOKafkaConsumer cannot reach, in words; "" if it reaches all of it.

    Args:
        consumer: An AIOKafkaConsumer.
        partitions: Partitions that must have a leader.
        group: Whether it must have found its group's coordinator.
    """
    cluster = consumer._client.cluster
    silent = _silent(cluster)
    if silent > AWAY:
        return f"a broker: none has answered for {silent:.0f} s"
    for topic, partition in partitions:
        if cluster.leader_for_partition(TopicPartition(topic, partition)) == -1:
            return f"a broker: {topic} partition {partition} has no leader"
    coordinator = consumer._coordinator  # None before the client has started
    if group and (coordinator is None or coordinator.coordinator_id is None):
        return "a broker: the group has no coordinator"
    return ""


def _silent(cluster: Any) -> float:
    """Return the seconds since a broker sent metadata, 0.0 before the first. aiokafka uses the wall clock, which may jump."""
    noted, since = getattr(cluster, "freshet_noted", (0, 0.0))
    if noted != cluster._last_successful_refresh_ms:
        noted, since = cluster.freshet_noted = cluster._last_successful_refresh_ms, steady()
    return steady() - since if noted else 0.0


def unread(consumer: Any, topics: Iterable[str], held: Collection[tuple[str, int]] = ()) -> int:
    """Return how many records of the assigned partitions of `topics`, except those `held`, are not fetched yet, if known."""
    wanted, count = frozenset(topics), 0
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    for tp in assignment.tps if assignment else ():
        state = assignment.state_value(tp)
        ends = [end for end in (state.highwater, state.lso) if end is not None and end >= 0]
        if tp.topic in wanted and tp not in held and ends and state.has_valid_position and not state.paused:
            count += max(0, min(ends) - state.position)
    return count


def partition_state(consumer: Any, tp: TopicPartition) -> Any:
    """Return what an AIOKafkaConsumer knows of an assigned partition (position, highwater, lso); None before that."""
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    return assignment.state_value(tp) if assignment else None


def positions(consumer: Any, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """Return how far each assigned partition of `topics` is read, including records that the fetcher skips.

    Partitions that have no start position yet are left out.
    """
    wanted = frozenset(topics)
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    states = {tp: assignment.state_value(tp) for tp in assignment.tps if tp.topic in wanted} if assignment else {}
    return {tp: state.position for tp, state in states.items() if state.has_valid_position}


def reached(consumer: Any, topics: Iterable[str]) -> int:
    """Return the sum of `positions`."""
    return sum(positions(consumer, topics).values())


def undecided(consumer: Any, topics: Iterable[str]) -> str:
    """Return which open transaction blocks an AIOKafkaConsumer in an assigned partition of `topics`, in words; "" for none.

    A consumer that reads committed records gets nothing from the transaction's first record on until the transaction
    ends, no matter who else writes there.
    """
    wanted = frozenset(topics)
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    for tp in sorted(assignment.tps) if assignment else ():
        state = assignment.state_value(tp)
        if tp.topic not in wanted or not state.has_valid_position or None in (state.lso, state.highwater):
            continue
        if 0 <= state.lso <= state.position < state.highwater:
            return f"an open transaction of another producer on {tp.topic}/{tp.partition} since offset {state.lso} holds it up"
    return ""
