"""Several Apache Kafka nodes on loopback, each a broker and a controller: a real cluster for tests and first tries.

The folder contains cluster.json (the cluster's id and the ports of each node) and one folder per node, as described in
deploy.embedded_kafka.broker. Topics in a cluster of three or more nodes have three copies. A record is acknowledged
once two of them have it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, NamedTuple

from deploy.embedded_kafka.broker import CLUSTER, EmbeddedKafka, alone, cluster_id, free_port
from stream.core.errors import BrokerError

COPIES: Final = 3  # copies of every topic, in a cluster with at least this many nodes
INSYNC: Final = 2  # copies that must have a record before it is acknowledged


class Ports(NamedTuple):
    """The ports of one node."""

    broker: int
    controller: int


class Node(EmbeddedKafka):
    """One node of a cluster. Node numbers begin at 1."""

    HEAP: ClassVar[tuple[str, ...]] = ("-Xms64m", "-Xmx256m", "-XX:TieredStopAtLevel=1")

    def __init__(self, directory: Path, number: int, ports: Sequence[Ports], cluster: str) -> None:
        super().__init__(directory, ports[number - 1].broker)
        self.number = number
        self._ports = tuple(ports)
        self._id = cluster

    def start(self) -> Node:
        super().start()
        return self

    def _node_properties(self) -> dict[str, object]:
        return {
            "node": self.number,
            "controller": self._ports[self.number - 1].controller,
            "voters": ",".join(f"{number}@127.0.0.1:{its.controller}" for number, its in enumerate(self._ports, 1)),
            "copies": min(COPIES, len(self._ports)),
            "insync": INSYNC if len(self._ports) >= COPIES else 1,
            "session": 9000,  # Kafka's default
        }

    def _cluster(self) -> str:
        return self._id


class KafkaCluster:
    """A cluster of nodes below one folder. Also a context manager.

    Args:
        directory: Folder of the cluster.
        count: Number of nodes; may be 0 if the folder already contains a cluster.
        port: First of the consecutive broker ports; 0 for any free ones.
        draw: Finds a free port.
    """

    node_type: ClassVar[type[Node]] = Node

    def __init__(self, directory: Path, count: int = 0, port: int = 0, draw: Callable[[], int] = free_port) -> None:
        self.directory = directory.absolute()
        self._count = count
        self._port = port
        self._draw = draw
        self.nodes: list[Node] = []
        if (known := self._state()) is not None:
            self._take(*known)

    @property
    def bootstrap(self) -> str:
        """host:port of every node, for clients."""
        return ",".join(node.bootstrap for node in self.nodes if node.port)

    @property
    def alive(self) -> bool:
        """Whether every node runs and accepts connections."""
        return bool(self.nodes) and all(node.alive for node in self.nodes)

    def start(self) -> KafkaCluster:
        """Start all nodes that are not running, in parallel, and wait until each answers.

        Raises:
            BrokerError: All nodes are already running, the folder contains a cluster with another number of nodes, a
                port is taken, or a node fails. In that case, the nodes that this call has started are stopped.
        """
        with alone(self.directory):
            self._fit()
            down = [node for node in self.nodes if not node.pid]
            if not down:
                raise BrokerError(f"a cluster is already running in {self.directory} ({self.bootstrap})")
            try:
                self._all(down, lambda node: node.start())
            except BaseException:
                self._all(down, lambda node: node.stop())
                raise
        return self

    def stop(self) -> bool:
        """Stop every node, as EmbeddedKafka.stop does. Return False if none was running."""
        return any(self._all(self.nodes, lambda node: node.stop()))

    def __enter__(self) -> KafkaCluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _fit(self) -> None:
        """Choose the nodes' ports, and the cluster's id if there is none yet.

        Raises BrokerError if the folder contains a single broker or a cluster of another size.
        """
        if (self.directory / "data").exists():
            raise BrokerError(
                f"{self.directory} contains the data of a single broker: start it without --nodes, or choose another --dir"
            )
        known = self._state()
        if known is not None and self._count not in (0, len(known[1])):
            raise BrokerError(
                f"{self.directory} contains a cluster of {len(known[1])} nodes, not of {self._count}: start it with "
                f"--nodes {len(known[1])}, or choose another --dir"
            )
        if any(node.pid for node in self.nodes):
            return  # the running nodes know the ports of the missing ones
        count = len(known[1]) if known is not None else self._count
        brokers = [self._port + number if self._port else self._draw() for number in range(count)]
        identity = known[0] if known is not None else cluster_id(uuid.uuid4())
        self._take(identity, [Ports(port, self._draw()) for port in brokers])
        state = {"cluster": identity, "nodes": [node._ports[node.number - 1]._asdict() for node in self.nodes]}
        (self.directory / CLUSTER).write_text(json.dumps(state))

    def _take(self, cluster: str, ports: Sequence[Ports]) -> None:
        self.nodes = [
            self.node_type(self.directory / f"node-{number}", number, ports, cluster)
            for number in range(1, len(ports) + 1)
        ]

    def _state(self) -> tuple[str, list[Ports]] | None:
        try:
            state = json.loads((self.directory / CLUSTER).read_text())
            ports = [Ports(int(one["broker"]), int(one["controller"])) for one in state["nodes"]]
            return (str(state["cluster"]), ports) if ports else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def _all(nodes: Sequence[Node], what: Callable[[Node], object]) -> list[object]:
        """Call `what` for all nodes in parallel. The first error is raised when all calls have ended."""
        if not nodes:
            return []
        with ThreadPoolExecutor(len(nodes)) as pool:
            return list(pool.map(what, nodes))


def at(directory: Path) -> EmbeddedKafka | KafkaCluster:
    """Return the cluster in a folder, or a single broker if it contains none."""
    cluster = KafkaCluster(directory)
    return cluster if cluster.nodes else EmbeddedKafka(directory)
