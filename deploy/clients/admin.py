"""The topics of one deployment: making, checking and mending them. What they must be like stands in
stream.settings.topic_needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

from deploy.clients.arguments import client_arguments
from deploy.clients.connect import connect
from stream.core.denials import refusal
from stream.core.errors import BrokerError, TopologyError
from stream.core.messages import SOURCE_TOPICS
from stream.settings import Settings, topic_needs

BROKERS_OWN = -1  # in a request to make a topic: the broker's default.replication.factor


@dataclass(frozen=True)
class Topic:
    """One topic. `config`: what it is made with (stream.settings.topic_needs)."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: Settings, copies: int = 0) -> list[Topic]:
    """Every topic of these settings, the sources first. copies: of each partition; 0: as set."""
    return [
        Topic(name, 1 if kind.single else settings.partitions, kind.config(copies or settings.replication))
        for kind in topic_needs.KINDS
        for name in kind.names(settings)
    ]


def create(settings: Settings) -> list[str]:
    """Make the topics that are missing -> their names. Raises BrokerError."""
    made = []
    with admin(settings) as client:
        for number, topic in enumerate(topics(settings)):
            new = {
                "num_partitions": topic.partitions,
                "replication_factor": settings.replication or BROKERS_OWN,
                "configs": topic.config,
            }
            try:
                copies = client.create_topics({topic.name: new}, validate_only=True)["topics"][0]["replication_factor"]
                new["configs"] = topics(settings, copies)[number].config
                client.create_topics({topic.name: new}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                refused = refusal(error, topic.name, "Create")
                raise refused or BrokerError(f"topic {topic.name} cannot be made: {type(error).__name__}") from None
            made.append(topic.name)
    return made


def mend(settings: Settings) -> list[str]:
    """Give the topics that are there the settings that they need -> what was changed, a line each. Raises BrokerError."""
    changed = []
    with admin(settings) as client:
        for topic, found in _found(client, _there(_answers(client, settings))).items():
            values = topic_needs.mended(settings, topic, found)
            if not values:
                continue
            try:
                client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
            except KafkaError as error:
                refused = refusal(error, topic, "AlterConfigs")
                raise refused or BrokerError(f"topic {topic} cannot be changed: {type(error).__name__}") from None
            changed += [f"{topic} {name}: {found.settings.get(name, '')} -> {value}" for name, value in values.items()]
    return changed


@dataclass(frozen=True)
class Topology:
    """partitions: of the source topics; ids: topic -> the id that Kafka gave it when it was made, of those that are there;
    missing: those that are not; wrong: what does not fit, one clause each; cluster: its id, "" where the broker tells none;
    room: source topic -> bytes of a record batch at most."""

    partitions: int
    ids: dict[str, str]
    missing: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    cluster: str = ""
    room: dict[str, int] = field(default_factory=dict)


def rights(settings: Settings) -> dict[str, set[str]]:
    """Topic -> the operations that a worker needs there; each of these brings Kafka's Describe along."""
    reads = {"READ", "DESCRIBE_CONFIGS"}
    writes = {"WRITE", "DESCRIBE_CONFIGS"}
    return {
        **dict.fromkeys(settings.sources, reads | writes if settings.misplaced == "forward" else reads),
        settings.items_topic: reads,
        settings.changelog_topic: reads | writes,
        settings.recommendations_topic: writes,
        settings.dead_letters_topic: writes,
    }


def check(settings: Settings, *, worker: bool = False) -> Topology:
    """What the topics are like, if all are there and as they must be.

    worker: also that we may do all that a worker does. Raises TopologyError naming everything that is wrong, BrokerError
    where no broker answers within startup_timeout, or naming every ACL that is missing.
    """
    with admin(settings) as client:
        answers = _answers(client, settings)
        _check_rights(client, settings, answers, worker)
        if worker:
            _refuse_another(client, settings)
        found = _topology(client, settings, answers)
    refuse_missing(found.missing)
    refuse_wrong(found.wrong)
    return found


def look(settings: Settings) -> Topology:
    """What the topics are like, whatever that is. Raises BrokerError where no broker answers."""
    with admin(settings) as client:
        return _topology(client, settings, _answers(client, settings))


def refuse_missing(missing: Iterable[str]) -> None:
    """Raises TopologyError for topics that are not there."""
    if missing:
        raise TopologyError(
            "; ".join(f"topic {name} is missing" for name in missing) + ": `freshet topics create` makes them"
        )


def refuse_wrong(wrong: Iterable[str]) -> None:
    """Raises TopologyError for clauses of `Topology.wrong`."""
    if wrong:
        raise TopologyError("; ".join(wrong))


def _answers(client: KafkaAdminClient, settings: Settings) -> list[dict[str, Any]]:
    """What the broker says of each topic, also that it is not there."""
    found: list[dict[str, Any]] = client.describe_topics([topic.name for topic in topics(settings)])
    return found


def _there(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The topics that are there."""
    return [topic for topic in answers if not topic["error_code"]]


def _topology(client: KafkaAdminClient, settings: Settings, answers: Sequence[dict[str, Any]]) -> Topology:
    described = _there(answers)
    counts = {topic["name"]: len(topic["partitions"]) for topic in described}
    expected = topics(settings)
    wrong = []
    first = expected[0].name
    if first in counts:
        for topic in expected[1:]:
            needed = 1 if topic_needs.kind_of(settings, topic.name).single else counts[first]
            if counts.get(topic.name, needed) != needed:
                wrong.append(
                    f"topic {topic.name} has {counts[topic.name]} partitions, expected {needed}"
                    + ("" if needed == 1 else f", as {first}")
                )
    room = {}
    for name, found in _found(client, described).items():
        if name in settings.sources:
            room[name] = int(found.settings.get("max.message.bytes", 0))
        wrong += [
            f"topic {name} has {need.setting}={value}, expected {need.expected} ({need.why.rstrip('.')}): "
            "`freshet topics mend` sets it"
            for need, value in topic_needs.wrong(settings, name, found)
        ]
    return Topology(
        counts.get(first, 0),
        {topic["name"]: str(topic["topic_id"]) for topic in described},
        tuple(
            topic["name"] for topic in answers if topic["error_code"] not in (0, TopicAuthorizationFailedError.errno)
        ),
        tuple(wrong),
        str(client.describe_cluster().get("cluster_id") or ""),
        room,
    )


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


def workers(settings: Settings) -> int | None:
    """How many members the workers' group has; None where nobody says. Raises BrokerError."""
    with admin(settings) as client:
        try:
            return len(client.describe_groups([settings.app_id])[settings.app_id]["members"])
        except KafkaError:
            return None


def _refuse_another(client: KafkaAdminClient, settings: Settings) -> None:
    """Raises TopologyError where the group has committed offsets of source topics that are not ours. The claims in the changelog
    tell it as well, but only who has joined the group reads them, and a group whose members differ in topics divides them so
    that nobody can work."""
    try:
        committed = client.list_group_offsets(settings.app_id).get(settings.app_id, {})
    except KafkaError:
        return  # no coordinator yet: nobody has committed anything
    others = {place.topic for place in committed if place.topic.endswith(SOURCE_TOPICS)} - set(settings.sources)
    if others:
        raise TopologyError(
            f"app_id: the group {settings.app_id} reads {', '.join(sorted(others))}, and this worker's topics are "
            f"{', '.join(settings.sources)}: another deployment has this app_id; choose another, or the prefix of those topics"
        )


def _spelled(operation: str) -> str:
    """DESCRIBE_CONFIGS -> DescribeConfigs, as kafka-acls writes it."""
    return "".join(word.capitalize() for word in operation.split("_"))


def _found(client: KafkaAdminClient, described: Sequence[dict[str, Any]]) -> dict[str, topic_needs.Found]:
    """Each topic as it is."""
    if not described:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic["name"]) for topic in described]
    actual = client.describe_configs(resources, config_filter=ConfigFilterType.ALL)["topic"]
    return {
        topic["name"]: topic_needs.Found(
            {name: str(entry.get("value", "")) for name, entry in actual[topic["name"]].items()},
            min((len(partition["replica_nodes"]) for partition in topic["partitions"]), default=0),
        )
        for topic in described
    }


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client; raises BrokerError as `connect` says, and where the broker goes away, or refuses, while it is asked."""
    arguments = client_arguments(settings)
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
