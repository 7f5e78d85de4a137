"""The topics of one deployment: what they must be like, making them, checking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from deploy.connect import connect
from stream.errors import BrokerError, TopologyError
from stream.security import refusal
from stream.settings import Settings

MIB = 1 << 20


@dataclass(frozen=True)
class Topic:
    """One topic. `partitions` of None: as many as the source topics; `config` holds what `check` insists on."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: Settings) -> list[Topic]:
    """Every topic of these settings, the sources first."""
    count = settings.partitions
    # The broker unpacks: what a record holds is bounded by what the topic takes (see stream.unpack for what was not).
    unpacked = {"compression.type": "uncompressed"}
    source = unpacked | {
        "cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": str(4 * MIB),
    }  # fmt: skip
    # What workers write is kept and found by the broker's time: a worker's clock may be wrong.
    written = {"message.timestamp.type": "LogAppendTime"}
    compacted = written | {"cleanup.policy": "compact", "max.message.bytes": str(4 * MIB)}
    return [
        *(Topic(name, count, source) for name in settings.sources),
        Topic(settings.items_topic, 1, unpacked | {"cleanup.policy": "compact"}),
        Topic(settings.recommendations_topic, count, written | {"cleanup.policy": "compact,delete"}),
        Topic(
            settings.dead_letters_topic,
            count,
            written | {"cleanup.policy": "delete", "max.message.bytes": str(4 * MIB + (64 << 10))},
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
                refused = refusal(error, topic.name, "Create")
                raise refused or BrokerError(f"topic {topic.name} cannot be made: {type(error).__name__}") from None
            made.append(topic.name)
    return made


@dataclass(frozen=True)
class Topology:
    """partitions: of the source topics; ids: topic name -> the id that Kafka gave it when it was made."""

    partitions: int
    ids: dict[str, str]


def rights(settings: Settings) -> dict[str, set[str]]:
    """Topic -> the operations that a worker needs there; each of these brings Kafka's Describe along."""
    reads = {"READ", "DESCRIBE_CONFIGS"}
    writes = {"WRITE", "DESCRIBE_CONFIGS"}
    return {
        **dict.fromkeys(settings.sources, reads),
        settings.items_topic: reads,
        settings.changelog_topic: reads | writes,
        settings.recommendations_topic: writes,
        settings.dead_letters_topic: writes,
    }


def check(settings: Settings, *, worker: bool = False) -> Topology:
    """What the source topics are like, if all topics are there and fit together.

    worker: also that we may do all that a worker does. Raises TopologyError naming everything that is wrong, BrokerError
    where no broker answers within startup_timeout, or naming every ACL that is missing.
    """
    expected = topics(settings)
    with admin(settings) as client:
        answers = client.describe_topics([topic.name for topic in expected])
        _check_rights(client, settings, answers, worker)
        described = [topic for topic in answers if not topic["error_code"]]
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
    return Topology(count, _ids(settings, described))


def ids(settings: Settings) -> dict[str, str]:
    """Source topic -> its id, of those that are there. Raises BrokerError where no broker answers."""
    with admin(settings) as client:
        return _ids(settings, client.describe_topics(list(settings.sources)))


def _ids(settings: Settings, described: list[dict[str, Any]]) -> dict[str, str]:
    return {
        topic["name"]: str(topic["topic_id"])
        for topic in described
        if not topic["error_code"] and topic["name"] in settings.sources
    }


def _check_rights(client: KafkaAdminClient, settings: Settings, answers: list[dict[str, Any]], worker: bool) -> None:
    """Raises BrokerError naming each topic or group with the operations that no ACL allows us."""
    needed = rights(settings) if worker else {}
    missing = []
    for topic in answers:
        wanted = needed.get(topic["name"], {"DESCRIBE", "DESCRIBE_CONFIGS"})
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            missing.append((f"topic {topic['name']}", wanted))
        elif not topic["error_code"] and (allowed := topic.get("authorized_operations")) is not None:
            missing.append((f"topic {topic['name']}", wanted - set(allowed)))
    if worker:
        try:
            client.list_group_offsets(settings.app_id)
            group = client.describe_groups([settings.app_id], include_authorized_operations=True)[settings.app_id]
            allowed = group.get("authorized_operations")
            missing.append((f"group {settings.app_id}", {"READ"} - set(allowed or {"READ"})))
        except GroupAuthorizationFailedError:
            missing.append((f"group {settings.app_id}", {"READ"}))
        except KafkaError:
            pass  # no coordinator yet: the first member of the first group makes its topic
    said = [f"{what}: {', '.join(map(_spelled, sorted(which)))}" for what, which in missing if which]
    if said:
        raise BrokerError(f"ACLs are missing at {settings.brokers}: {'; '.join(said)}")


def _spelled(operation: str) -> str:
    """DESCRIBE_CONFIGS -> DescribeConfigs, as kafka-acls writes it."""
    return "".join(word.capitalize() for word in operation.split("_"))


def _wrong_configs(client: KafkaAdminClient, expected: list[Topic]) -> Iterator[str]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in expected]
    actual = client.describe_configs(resources, config_filter=ConfigFilterType.ALL)["topic"]
    for topic in expected:
        for name in ("cleanup.policy", "message.timestamp.type", "compression.type"):
            wanted = topic.config.get(name)
            has = str(actual[topic.name].get(name, {}).get("value", ""))
            if wanted and set(has.split(",")) != set(wanted.split(",")):
                yield f"topic {topic.name} has {name}={has}, expected {wanted}"


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client; raises BrokerError as `connect` says, and where the broker goes away, or refuses, while it is asked."""
    arguments = settings.kafka_python()
    client = connect(
        settings, lambda wait: KafkaAdminClient(client_id="freshet-admin", bootstrap_timeout_ms=wait, **arguments)
    )
    try:
        yield client
    except KafkaError as error:
        refused = refusal(error)
        raise refused or BrokerError(f"{settings.brokers} did not answer: {type(error).__name__}") from None
    finally:
        client.close()
