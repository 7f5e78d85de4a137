"""What a rival holds after its kills, against what was sent: the oracle's idea, by event and not by sum.

Each user's events are numbered from 0, and the state counts each number apart, so a lost event and one applied twice do not
cancel each other. States are read from the changelog topic (the last committed record of each key), once the group has
committed the source's end and nothing more is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition

from deploy.clients.arguments import client_arguments
from stream.settings import Settings
from tests.worker_process import read_all

UserOf = Callable[[bytes], str]


@dataclass(frozen=True)
class Verdict:
    """lost: events that no state holds; double: applications beyond the first; unshown: events that no output record names;
    users_wrong: users with any of the first two."""

    lost: int = 0
    double: int = 0
    unshown: int = 0
    users_wrong: int = 0


def verdict_of(
    sent: Mapping[str, int], applied: Mapping[str, Sequence[int]], shown: AbstractSet[tuple[str, int]]
) -> Verdict:
    """sent: user -> how many events were acknowledged; applied: user -> how often each of them; shown: (user, number)."""
    lost = double = wrong = 0
    for user, count in sent.items():
        counts = list(applied.get(user, ()))
        missing = counts[:count].count(0) + max(0, count - len(counts))
        twice = sum(times - 1 for times in counts[:count] if times > 1) + sum(counts[count:])
        lost += missing
        double += twice
        wrong += bool(missing or twice)
    for user in applied.keys() - sent.keys():
        double += sum(applied[user])
        wrong += 1
    unshown = sum((user, number) not in shown for user, count in sent.items() for number in range(count))
    return Verdict(lost, double, unshown, wrong)


def states(settings: Settings, changelog: str, user_of: UserOf) -> dict[str, list[int]]:
    """user -> how often each event was applied, from the last record of each key."""
    found: dict[str, list[int]] = {}
    for record in read_all(settings, changelog):
        if record.key is None:
            continue
        if record.value is None:
            found.pop(user_of(record.key), None)
        else:
            found[user_of(record.key)] = json.loads(record.value)
    return found


def outputs(settings: Settings, topic: str) -> set[tuple[str, int]]:
    """(user, event number) of every committed output record."""
    values = [json.loads(record.value) for record in read_all(settings, topic) if record.value]
    return {(value["user"], value["number"]) for value in values}


class Progress:
    """How far a group has come, as the broker tells."""

    def __init__(self, settings: Settings, group: str, source: str) -> None:
        self._source = source
        self._consumers = {
            level: KafkaConsumer(
                group_id=group, enable_auto_commit=False, isolation_level=level, **client_arguments(settings)
            )
            for level in ("read_uncommitted", "read_committed")
        }

    def ends(self, topic: str, level: str = "read_uncommitted") -> dict[TopicPartition, int]:
        """Where each partition ends; for read_committed: where its first open transaction begins."""
        consumer = self._consumers[level]
        tps = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        return dict(consumer.end_offsets(tps)) if tps else {}

    def caught_up(self) -> bool:
        """Is the end of the source committed, partition by partition?"""
        consumer = self._consumers["read_uncommitted"]
        return all((consumer.committed(tp) or 0) >= end for tp, end in self.ends(self._source).items())

    def closed(self, *topics: str) -> bool:
        """Is no transaction open in these topics?"""
        return all(self.ends(topic) == self.ends(topic, "read_committed") for topic in topics)

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
