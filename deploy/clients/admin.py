"""Creates, checks and mends the topics of one deployment. stream.settings.topic_needs defines what they must be like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

BROKERS_OWN = -1  # in a request to create a topic: the broker's default.replication.factor


@dataclass(frozen=True)
class Topic:
    """One topic. `config` holds the topic settings that it is created with (stream.settings.topic_needs)."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


def topics(settings: Settings, copies: int = 0) -> list[Topic]:
    """Return every topic of these settings, the sources first. copies: Replicas of each partition; 0: as set."""
    return [
        Topic(name, 1 if kind.single else settings.partitions, kind.config(copies or settings.replication))
        for kind in topic_needs.KINDS
        for name in kind.names(settings)
    ]


def create(settings: Settings) -> list[str]:
    """Create the topics that are missing. Return their names. Raises BrokerError."""
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
                raise refused or BrokerError(f"topic {topic.name} cannot be created: {type(error).__name__}") from None
            made.append(topic.name)
    return made


def mend(settings: Settings) -> list[str]:
    """Give the existing topics the settings that they need. Return what was changed, one line each. Raises BrokerError."""
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
    """The topics as they are.

    Attributes:
        partitions: Number of partitions of each source topic.
        ids: Existing topic -> the id that Kafka gave it when it was created.
        missing: Topics that do not exist.
        wrong: What does not fit, one clause each.
        cluster: The cluster's id; "" if the broker reports none.
        room: Source topic -> the largest size of a record batch, in bytes.
    """

    partitions: int
    ids: dict[str, str]
    missing: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    cluster: str = ""
    room: dict[str, int] = field(default_factory=dict)


def rights(settings: Settings) -> dict[str, set[str]]:
    """Return topic -> the operations that a worker needs there. Each of these includes Kafka's Describe."""
    reads = {"READ", "DESCRIBE_CONFIGS"}
    writes = {"WRITE", "DESCRIBE_CONFIGS"}
    return {
        **dict.fromkeys(settings.sources, reads | writes if settings.misplaced == "forward" else reads),
        settings.items_topic: reads,
        settings.rules_topic: reads,
        **({settings.tables_topic: reads} if settings.tables == "stream" else {}),
        settings.bundles_topic: reads | writes,
        settings.changelog_topic: reads | writes,
        settings.recommendations_topic: reads | writes,
        settings.dead_letters_topic: writes,
        settings.forgotten_topic: writes,
    }


def gateway_rights(settings: Settings) -> dict[str, set[str]]:
    """Return topic -> the operations that a gateway needs there. It has nothing to do with dead letters."""
    reads = {"READ", "DESCRIBE_CONFIGS"}
    writes = {"WRITE", "DESCRIBE_CONFIGS"}
    return {
        **dict.fromkeys(settings.sources, writes),
        settings.items_topic: reads | writes,
        settings.rules_topic: reads | writes,
        **({settings.tables_topic: reads} if settings.tables == "stream" else {}),
        settings.bundles_topic: reads | writes,
        settings.changelog_topic: reads,
        settings.recommendations_topic: reads,
    }


def tally_rights(settings: Settings) -> dict[str, set[str]]:
    """Return topic -> the operations that a tally needs there. It also needs Write and Describe on its transactional id."""
    reads = {"READ", "DESCRIBE_CONFIGS"}
    return {**dict.fromkeys(settings.sources, reads), settings.tables_topic: reads | {"WRITE"}}


def check(settings: Settings, *, worker: bool = False, gateway: bool = False, tally: bool = False) -> Topology:
    """Check that all topics exist and are as they must be. Return what they are like.

    Args:
        settings: Settings of the deployment.
        worker: Whether to check, too, that the ACLs allow everything that a worker does, and that no other deployment uses
            its group.
        gateway: Whether to check only the topics of a gateway, and that the ACLs allow everything that it does.
        tally: The same for a tally.

    Raises:
        TopologyError: Names everything that is wrong.
        BrokerError: No broker answers within startup_timeout, or ACLs are missing; it then names all of them.
    """
    with admin(settings) as client:
        answers = _answers(client, settings)
        if gateway or tally:
            needed = gateway_rights(settings) if gateway else tally_rights(settings)
            answers = [topic for topic in answers if topic["name"] in needed]
            _check_rights(client, settings, answers, needed, {"DESCRIBE"} if gateway else set())
        elif worker:
            _check_rights(client, settings, answers, rights(settings), {"READ"})
        else:
            _check_rights(client, settings, answers, {}, set())
        if worker:
            _refuse_another(client, settings)
        found = _topology(client, settings, answers)
    refuse_missing(found.missing)
    refuse_wrong(found.wrong)
    return found


def look(settings: Settings) -> Topology:
    """Return what the topics are like, without a check. Raises BrokerError if no broker answers."""
    with admin(settings) as client:
        return _topology(client, settings, _answers(client, settings))


def refuse_missing(missing: Iterable[str]) -> None:
    """Raise TopologyError if topics are missing."""
    if missing:
        raise TopologyError(
            "; ".join(f"topic {name} is missing" for name in missing) + ": create them with `freshet topics create`"
        )


def refuse_wrong(wrong: Iterable[str]) -> None:
    """Raise TopologyError if there are clauses of `Topology.wrong`."""
    if wrong:
        raise TopologyError("; ".join(wrong))


def _answers(client: KafkaAdminClient, settings: Settings) -> list[dict[str, Any]]:
    """Return the broker's answer for each topic, also for a missing one."""
    found: list[dict[str, Any]] = client.describe_topics([topic.name for topic in topics(settings)])
    return found


def _there(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the topics that exist."""
    return [topic for topic in answers if not topic["error_code"]]


def _topology(client: KafkaAdminClient, settings: Settings, answers: Sequence[dict[str, Any]]) -> Topology:
    described = _there(answers)
    counts = {topic["name"]: len(topic["partitions"]) for topic in described}
    found = _found(client, described)
    return Topology(
        counts.get(topics(settings)[0].name, 0),
        {topic["name"]: str(topic["topic_id"]) for topic in described},
        tuple(
            topic["name"] for topic in answers if topic["error_code"] not in (0, TopicAuthorizationFailedError.errno)
        ),
        (*_wrong_counts(settings, counts), *_wrong_settings(settings, found)),
        str(client.describe_cluster().get("cluster_id") or ""),
        {
            name: int(one.settings.get("max.message.bytes", 0))
            for name, one in found.items()
            if name in settings.sources
        },
    )


def _wrong_counts(settings: Settings, counts: dict[str, int]) -> Iterator[str]:
    """Yield a clause for each topic with another number of partitions than it needs. counts: Topic -> its partitions."""
    first, *others = (topic.name for topic in topics(settings))
    if first not in counts:
        return
    for name in others:
        needed = 1 if topic_needs.kind_of(settings, name).single else counts[first]
        if counts.get(name, needed) != needed:
            reason = "" if needed == 1 else f", as {first}"
            yield f"topic {name} has {counts[name]} partitions, expected {needed}{reason}"


def _wrong_settings(settings: Settings, found: dict[str, topic_needs.Found]) -> Iterator[str]:
    """Yield a clause for each topic setting that is not as it must be."""
    for name, one in found.items():
        for need, value in topic_needs.wrong(settings, name, one):
            yield (
                f"topic {name} has {need.setting}={value}, expected {need.expected} ({need.why.rstrip('.')}): "
                "`freshet topics mend` sets it"
            )


def _check_rights(
    client: KafkaAdminClient,
    settings: Settings,
    answers: list[dict[str, Any]],
    needed: Mapping[str, set[str]],
    of_group: set[str],
) -> None:
    """Raise BrokerError if ACLs are missing. It names each topic or group with the operations that no ACL allows.

    Args:
        client: The client whose rights are checked.
        settings: Settings of the deployment.
        answers: What the broker says of each topic.
        needed: Topic -> operations; of any other topic those that this check itself needs.
        of_group: Operations on the workers' group.
    """
    missing = []
    for topic in answers:
        wanted = needed.get(topic["name"], {"DESCRIBE", "DESCRIBE_CONFIGS"})
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            missing.append((f"topic {topic['name']}", wanted))
        elif not topic["error_code"] and (allowed := topic.get("authorized_operations")) is not None:
            missing.append((f"topic {topic['name']}", wanted - set(allowed)))
    if of_group:
        try:
            client.list_group_offsets(settings.app_id)
            group = client.describe_groups([settings.app_id], include_authorized_operations=True)[settings.app_id]
            allowed = group.get("authorized_operations")
            missing.append((f"group {settings.app_id}", of_group - set(allowed or of_group)))
        except GroupAuthorizationFailedError:
            missing.append((f"group {settings.app_id}", of_group))
        except KafkaError:
            pass  # no coordinator yet: the first member of the first group creates its topic
    lacking = [f"{what}: {', '.join(map(_spelled, sorted(which)))}" for what, which in missing if which]
    if lacking:
        raise BrokerError(f"ACLs are missing at {settings.brokers}: {'; '.join(lacking)}")


def workers(settings: Settings) -> int | None:
    """Return the number of members of the workers' group; None if it cannot be read. Raises BrokerError."""
    with admin(settings) as client:
        try:
            return len(client.describe_groups([settings.app_id])[settings.app_id]["members"])
        except KafkaError:
            return None


def _refuse_another(client: KafkaAdminClient, settings: Settings) -> None:
    """Raise TopologyError if the group has committed offsets of source topics of another deployment.

    The claims in the changelog show this as well, but a worker reads them only after it has joined the group. A group whose
    members differ in topics assigns partitions so that no member can work.
    """
    try:
        committed = client.list_group_offsets(settings.app_id).get(settings.app_id, {})
    except KafkaError:
        return  # no coordinator yet, so nothing has been committed
    others = {tp.topic for tp in committed if tp.topic.endswith(SOURCE_TOPICS)} - set(settings.sources)
    if others:
        raise TopologyError(
            f"app_id: the group {settings.app_id} reads {', '.join(sorted(others))}, but this worker's topics are "
            f"{', '.join(settings.sources)}: another deployment has this app_id; choose another app_id, or the prefix of those "
            "topics"
        )


def _spelled(operation: str) -> str:
    """Return DescribeConfigs for DESCRIBE_CONFIGS, as kafka-acls writes it."""
    return "".join(word.capitalize() for word in operation.split("_"))


def _found(client: KafkaAdminClient, described: Sequence[dict[str, Any]]) -> dict[str, topic_needs.Found]:
    """Read the settings and replicas of each topic."""
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
    """Open an admin client.

    Raises BrokerError as `connect` does, and if the broker goes away or refuses a request.
    """
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
