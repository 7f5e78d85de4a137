"""A cluster of a test's own, its nodes to be stopped, killed and started again, one of them behind a bad line where asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from deploy.clients.admin import admin
from deploy.embedded_kafka.cluster import KafkaCluster, Node
from stream.settings import Settings
from tests.failing_kafka import Breakable, low_port
from tests.proxy import Proxy
from tests.worker_process import until

Partition = tuple[str, int]  # topic, partition


class FailingNode(Breakable, Node):
    """line: what stands between it and everybody else, the other nodes included."""

    line: Proxy | None = None
    through: int = 0  # the port that it listens on for those who come over lines

    def _write(self, port: int) -> None:
        super()._write(port)
        file = self.directory / "server.properties"
        properties = dict(line.split("=", 1) for line in file.read_text().splitlines())
        if self.through:
            advertised = self.line.port if self.line is not None else self.through
            properties["listeners"] += f",LINE://127.0.0.1:{self.through}"
            properties["advertised.listeners"] += f",LINE://127.0.0.1:{advertised}"
            properties["listener.security.protocol.map"] += ",LINE:PLAINTEXT"
            properties["inter.broker.listener.name"] = "LINE"
        file.write_text("\n".join(f"{name}={value}" for name, value in properties.items()) + "\n")


class FailingCluster(KafkaCluster):
    """Three nodes. behind: the number of the node that is reached only over `line`, by clients of `over` and by the other nodes;
    0: none is. `bootstrap` is for those who watch: it has no line."""

    node_type: ClassVar[type[Node]] = FailingNode
    nodes: list[FailingNode]  # type: ignore[assignment]

    def __init__(self, directory: Path, behind: int = 0, seed: int = 0) -> None:
        super().__init__(directory, 3, draw=low_port)
        self.behind = behind
        self.line = Proxy(low_port(), low_port(), seed)

    @property
    def over(self) -> str:
        """host:port of every node for clients, one behind its line."""
        return ",".join(f"127.0.0.1:{node.line.port if node.line else node.through}" for node in self.nodes)

    def node(self, number: int) -> FailingNode:
        return self.nodes[number - 1]

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            self.node(number).kill()

    def restart(self, *numbers: int) -> None:
        """Start nodes that are down, all at a time."""
        self._all([self.node(number) for number in numbers], lambda node: node.start())

    def __enter__(self) -> FailingCluster:
        if self.behind:
            self.line.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:  # its data are of no more use
            node.kill()
        self.line.close()

    def _take(self, cluster: str, ports: Any) -> None:
        super()._take(cluster, ports)
        if self.behind:
            for node in self.nodes:
                node.through = low_port()
            self.node(self.behind).through, self.node(self.behind).line = self.line.target, self.line

    # what the cluster says of itself

    def leader(self, settings: Settings, topic: str, partition: int) -> int:
        """The number of the node that leads a partition; -1 where none does."""
        return int(self.partitions(settings, [topic])[topic, partition]["leader_id"])

    def coordinator(self, settings: Settings) -> int:
        """The number of the node that coordinates the group of these settings."""
        topic = "__consumer_offsets"
        count = len(self.partitions(settings, [topic]))
        return self.leader(settings, topic, (_java_hash(settings.app_id) & 0x7FFFFFFF) % count)

    @staticmethod
    def controller(settings: Settings) -> int:
        """The number of the node whose controller is the active one."""
        with admin(settings) as client:
            quorum = client.describe_metadata_quorum()
        return int(quorum["topics"][0]["partitions"][0]["leader_id"])

    @staticmethod
    def partitions(settings: Settings, topics: Iterable[str] | None = None) -> dict[Partition, dict[str, Any]]:
        """What is known of each partition of some topics, or of all."""
        with admin(settings) as client:
            described = client.describe_topics(list(topics) if topics is not None else client.list_topics())
        return {(topic["name"], one["partition_index"]): one for topic in described for one in topic["partitions"]}

    def wait_in_sync(self, settings: Settings, seconds: float = 60.0) -> None:
        """Every partition has a leader and all its copies are in sync."""

        def lagging() -> list[str]:
            return [
                f"{topic} {partition}: leader {one['leader_id']}, in sync {one['isr_nodes']} of {one['replica_nodes']}"
                for (topic, partition), one in self.partitions(settings).items()
                if one["leader_id"] < 0 or set(one["isr_nodes"]) != set(one["replica_nodes"])
            ]

        until(lambda: not lagging(), seconds, lambda: "; ".join(lagging()))


def _java_hash(text: str) -> int:
    """String.hashCode, as 32 bits."""
    found = 0
    for letter in text:
        found = (31 * found + ord(letter)) & 0xFFFFFFFF
    return found
