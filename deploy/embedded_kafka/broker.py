"""One Apache Kafka broker in KRaft mode, on loopback, with its data in a folder of ours.

The folder contains server.properties, log4j2.yaml, data/, kafka.log and start.lock. While the broker runs, it also
contains broker.json (pid, port).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from deploy.embedded_kafka import startup_cache
from deploy.embedded_kafka.jars import classpath, java
from stream.core.errors import BrokerError

log = logging.getLogger("freshet.broker")

START_LIMIT: Final = 60.0  # seconds after which a broker that does not answer counts as failed
STOP_LIMIT: Final = 20.0
TRAINING_LIMIT: Final = 120.0  # seconds for each step of a training run
CLUSTER: Final = "cluster.json"  # in the folder of a cluster: deploy.embedded_kafka.cluster
MAX_MESSAGE: Final = (4 << 20) + (128 << 10)  # bytes: enough for a dead letter of 4 MiB and its headers

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
broker.session.timeout.ms={session}
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
default.replication.factor={copies}
min.insync.replicas={insync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={insync}
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={insync}
message.max.bytes={message}
replica.fetch.max.bytes={message}
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""

_LOGGING = """\
Configuration:
  status: warn
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d{ISO8601} %p %c{1} %m%n"
  Loggers:
    Root:
      level: warn
      AppenderRef:
        ref: out
"""


class EmbeddedKafka:
    """A broker with its data in `directory`. Also a context manager.

    Args:
        directory: Folder of the broker.
        port: Loopback port; 0 for any free one.
        note: Is told what takes long.
    """

    HEAP: ClassVar[tuple[str, ...]] = ("-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=4")

    def __init__(self, directory: Path, port: int = 0, note: Callable[[str], None] = log.info) -> None:
        self.directory = directory.absolute()
        self._note = note
        self._asked = port
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running broker; 0 if none is running."""
        state = self._state()
        return state["pid"] if state and _runs(state["pid"]) else 0

    @property
    def port(self) -> int:
        state = self._state()
        return state["port"] if state else 0

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it runs and accepts connections."""
        return bool(self.pid) and _answers(self.port)

    def start(self) -> EmbeddedKafka:
        """Start the broker and wait until it answers. After any exception, including Ctrl-C, no process is left behind.

        Raises:
            BrokerError: It is already running or starting, the port is taken, or it died or was too slow at its start.
        """
        with alone(self.directory):
            if (self.directory / CLUSTER).exists():
                raise BrokerError(
                    f"{self.directory} contains a cluster: start it with --nodes, or choose another --dir for one broker"
                )
            if pid := self.pid:
                raise BrokerError(f"a broker is already running in {self.directory} (pid {pid}, {self.bootstrap})")
            jars = classpath()
            port = self._asked or free_port()
            if _answers(port) or not _bindable(port):
                raise BrokerError(f"port {port} is already in use; choose another one with --port (0: any free port)")
            self._write(port)
            command = self._command(jars, self._jvm(jars))
            self._format(command)
            try:
                self._launch(command, port)
                self._wait_up(port)
            except BaseException:
                self._abandon()
                raise
        return self

    def stop(self) -> bool:
        """Stop the broker: SIGTERM, then SIGKILL after STOP_LIMIT. Return False if none was running."""
        pid = self.pid
        if pid:
            _end(pid, self._child)
        self._file.unlink(missing_ok=True)
        return bool(pid)

    def __enter__(self) -> EmbeddedKafka:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _file(self) -> Path:
        return self.directory / "broker.json"

    @property
    def _log(self) -> Path:
        return self.directory / "kafka.log"

    def _state(self) -> dict[str, int] | None:
        try:
            state = json.loads(self._file.read_text())
            return {"pid": int(state["pid"]), "port": int(state["port"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _launch(self, command: list[str], port: int) -> None:
        with self._log.open("ab") as out:
            self._child = subprocess.Popen(
                [*command, "kafka.Kafka", str(self.directory / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
                start_new_session=True,  # it outlives the command that started it
            )
        self._file.write_text(json.dumps({"pid": self._child.pid, "port": port}))

    def _abandon(self) -> None:
        """Stop the child process of a failed start, even if its state file was not written."""
        if self._child is not None and self._child.poll() is None:
            _end(self._child.pid, self._child)
        self._file.unlink(missing_ok=True)

    def _write(self, port: int) -> None:
        properties = _PROPERTIES.format(
            port=port, data=self.directory / "data", message=MAX_MESSAGE, **self._node_properties()
        )
        (self.directory / "server.properties").write_text(properties)
        (self.directory / "log4j2.yaml").write_text(_LOGGING)

    def _node_properties(self) -> dict[str, object]:
        """Return the node's number, controller port and quorum, and the numbers of copies for topics created there."""
        controller = free_port()
        voters = f"1@127.0.0.1:{controller}"
        return {
            "node": 1,
            "controller": controller,
            "voters": voters,
            "copies": 1,
            "insync": 1,
            "session": 3000,  # after a kill, the controller lets the broker in when the former session has ended
        }

    def _cluster(self) -> str:
        """Return the id of the cluster that its storage is formatted for."""
        return cluster_id(uuid.uuid4())

    def _jvm(self, jars: list[Path]) -> tuple[str, ...]:
        """Return more options of the JVM."""
        return startup_cache.options(jars, _train, self._note)

    def _command(self, jars: list[Path], options: tuple[str, ...]) -> list[str]:
        return [
            java(),
            *self.HEAP,
            *options,
            "-XX:+UseSerialGC",
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.yaml'}",
            "-cp",
            os.pathsep.join(map(str, jars)),
        ]

    def _format(self, command: list[str]) -> None:
        if (self.directory / "data" / "meta.properties").is_file():
            return
        done = subprocess.run(
            [
                *command,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                self._cluster(),
                "-c",
                str(self.directory / "server.properties"),
            ],
            capture_output=True,
            cwd=self.directory,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"the broker's storage cannot be formatted: {_last(done.stdout + done.stderr)}")

    def _wait_up(self, port: int) -> None:
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            if self._child is not None and self._child.poll() is not None:
                last = _last(self._log.read_bytes())
                raise BrokerError(
                    f"the broker died during startup (exit code {self._child.returncode}): {last}; see {self._log}"
                )
            if _answers(port):
                return
            time.sleep(0.1)
        raise BrokerError(f"the broker did not answer within {START_LIMIT:g} s; see {self._log}")


class _Training(EmbeddedKafka):
    """A broker whose JVM writes the startup cache to `output` at its end."""

    def __init__(self, directory: Path, output: Path) -> None:
        super().__init__(directory)
        self._output = output

    def _jvm(self, jars: list[Path]) -> tuple[str, ...]:
        return (f"-XX:AOTCacheOutput={self._output}",)

    def finish(self) -> None:
        """Stop the broker and wait until the cache is written. Raises BrokerError if it is not."""
        if self._child is None:
            raise BrokerError("the training run has not started")
        self._child.terminate()
        try:
            self._child.wait(TRAINING_LIMIT)
        except subprocess.TimeoutExpired:
            raise BrokerError(f"the training run did not end within {TRAINING_LIMIT:g} s") from None
        if not self._output.is_file():
            raise BrokerError(f"the training run wrote no cache: {_last(self._log.read_bytes())}")


def _train(output: Path) -> None:
    """Do a training run for the startup cache: a broker that one producer and one consumer use. See startup_cache."""
    topic = "training"
    with tempfile.TemporaryDirectory(prefix="freshet-kafka-") as folder, (broker := _Training(Path(folder), output)):
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
            admin.create_topics([NewTopic(topic, 1, 1)])
        with closing(KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")) as producer:
            producer.send(topic, b"1").get(TRAINING_LIMIT)
        with closing(
            KafkaConsumer(
                topic, bootstrap_servers=broker.bootstrap, group_id=topic, auto_offset_reset="earliest",
                consumer_timeout_ms=1000 * int(TRAINING_LIMIT),
            )
        ) as consumer:  # fmt: skip
            next(consumer)
        broker.finish()


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Allow one start at a time in a folder: a second would overwrite the files of the first. Raises BrokerError."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BrokerError(f"another command is currently starting a broker in {directory}") from None
        yield


def cluster_id(number: uuid.UUID) -> str:
    """Return an id in Kafka's form: 22 characters of URL-safe base64 that never begin with a hyphen, like an option."""
    text = urlsafe_b64encode(number.bytes).decode().rstrip("=")
    return "A" + text[1:] if text.startswith("-") else text


def free_port() -> int:
    """Return a port of 127.0.0.1 that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _runs(pid: int) -> bool:
    """Return whether the process exists, is a Kafka, and is not a zombie: another process may have reused the pid."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return status != "Z" and b"kafka.Kafka" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, IndexError):
        pass
    if Path("/proc/self").exists():
        return False
    try:  # no /proc on this system
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _gone(pid: int) -> bool:
    """Return whether the process has released its port and files. Its parent may not have read its exit code yet."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True
    return not _runs(pid)


def _end(pid: int, child: subprocess.Popen[bytes] | None) -> None:
    for number, seconds in ((signal.SIGTERM, STOP_LIMIT), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if _gone(pid):
                if child is not None and child.pid == pid:
                    child.wait()  # do not leave a zombie behind
                return
            time.sleep(0.05)


def _last(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"
