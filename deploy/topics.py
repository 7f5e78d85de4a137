"""The topics of one deployment: what they must be like, making them, checking them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kafka import KafkaAdminClient
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType
from kafka.errors import (
    KafkaError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
)

from stream.errors import BrokerError, TopologyError
from stream.settings import Settings

MIB = 1 << 20
ATTEMPT_MS = 2000  # one try to reach a broker


@dataclass(frozen=True)
class Topic:
    """One topic. `partitions` of None: as many as the source topics; `config` holds what `check` insists on."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: Settings) -> list[Topic]:
    """Every topic of these settings, the sources first."""
    count = settings.partitions
    source = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": str(4 * MIB)}
    compacted = {"cleanup.policy": "compact", "max.message.bytes": str(4 * MIB)}
    return [
        *(Topic(name, count, source) for name in settings.sources),
        Topic(settings.items_topic, 1, {"cleanup.policy": "compact"}),
        Topic(settings.recommendations_topic, count, {"cleanup.policy": "compact,delete"}),
        Topic(
            settings.dead_letters_topic,
            count,
            {"cleanup.policy": "delete", "max.message.bytes": str(4 * MIB + (64 << 10))},
        ),
        Topic(settings.changelog_topic, count, compacted),
    ]


def create(settings: Settings) -> list[str]:
    """Make the topics that are missing -> their names. Raises BrokerError."""
    made = []
    with admin(settings) as client:
        for topic in topics(settings):
            new = {
                "num_partitions": topic.partitions,
                "replication_factor": settings.replication,
                "configs": topic.config,
            }
            try:
                client.create_topics({topic.name: new}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                raise BrokerError(f"topic {topic.name} cannot be made: {type(error).__name__}") from None
            made.append(topic.name)
    return made


@dataclass(frozen=True)
class Topology:
    """partitions: of the source topics; ids: topic name -> the id that Kafka gave it when it was made."""

    partitions: int
    ids: dict[str, str]


def check(settings: Settings) -> Topology:
    """What the source topics are like, if all topics are there and fit together.

    Raises TopologyError naming everything that is wrong, BrokerError where no broker answers within startup_timeout.
    """
    expected = topics(settings)
    with admin(settings) as client:
        described = [
            topic for topic in client.describe_topics([topic.name for topic in expected]) if not topic["error_code"]
        ]
        found = {topic["name"]: len(topic["partitions"]) for topic in described}
        wrong = [f"topic {topic.name} is missing" for topic in expected if topic.name not in found]
        if wrong:
            raise TopologyError("; ".join(wrong) + ": `freshet topics create` makes them")
        count = found[expected[0].name]
        for topic in expected[1:]:
            needed = topic.partitions if topic.name == settings.items_topic else count
            if found[topic.name] != needed:
                wrong.append(
                    f"topic {topic.name} has {found[topic.name]} partitions, expected {needed}, as {expected[0].name}"
                )
        wrong += _wrong_configs(client, [topic for topic in expected if topic.name in found])
    if wrong:
        raise TopologyError("; ".join(wrong))
    ids = {topic["name"]: str(topic["topic_id"]) for topic in described if topic["name"] in settings.sources}
    return Topology(count, ids)


def _wrong_configs(client: KafkaAdminClient, expected: list[Topic]) -> Iterator[str]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in expected]
    actual = client.describe_configs(resources, config_filter=ConfigFilterType.ALL)["topic"]
    for topic in expected:
        for name in ("cleanup.policy", "message.timestamp.type"):
            wanted = topic.config.get(name)
            has = str(actual[topic.name].get(name, {}).get("value", ""))
            if wanted and set(has.split(",")) != set(wanted.split(",")):
                yield f"topic {topic.name} has {name}={has}, expected {wanted}"


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client; retries for startup_timeout, then raises BrokerError."""
    end = time.monotonic() + settings.startup_timeout
    while True:
        try:
            client = KafkaAdminClient(
                client_id="freshet-admin", bootstrap_timeout_ms=ATTEMPT_MS, **settings.kafka_python()
            )
            break
        except SaslAuthenticationFailedError as error:
            raise BrokerError(f"the broker at {settings.brokers} refuses our credentials: {error}") from None
        except (KafkaError, OSError) as error:
            if time.monotonic() >= end:
                raise BrokerError(
                    f"no Kafka broker answers at {settings.brokers} ({type(error).__name__}); "
                    "`freshet broker start` runs one here"
                ) from None
            time.sleep(0.3)
    try:
        yield client
    finally:
        client.close()
