"""An embedded Kafka of a test's own, to be stopped, killed and started again on the same address, and reached over bad lines."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from types import TracebackType

from deploy.embedded_kafka import EmbeddedKafka
from deploy.embedded_kafka.broker import _bindable
from tests.proxy import Proxy
from tests.worker_process import until


class Breakable(EmbeddedKafka):
    """A broker that a test stops, kills and starts again on the same address."""

    def suspend(self) -> None:
        """SIGSTOP: it still takes connections, as its kernel does that, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, if it runs; `start` runs it again on the same folder and port."""
        if pid := self.pid:  # 0 would be every process of our own group
            os.kill(pid, signal.SIGKILL)
        if self._child is not None:
            self._child.wait(10)
        until(lambda: not self.pid, 10, "the broker is gone")

    def stop(self) -> bool:
        if self.pid:
            self.resume()  # else it would not hear SIGTERM
        return super().stop()


class FailingKafka(Breakable):
    """`bootstrap` is the direct address; a client that comes over `lines[n].address` is told to stay on that line."""

    def __init__(self, directory: Path, lines: int = 0, seed: int = 0) -> None:
        super().__init__(directory, low_port())
        self.lines = [Proxy(low_port(), low_port(), seed + number) for number in range(lines)]

    def start(self) -> FailingKafka:
        super().start()
        return self

    def __enter__(self) -> FailingKafka:
        for line in self.lines:
            line.start()
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for line in self.lines:
            line.close()

    def _write(self, port: int) -> None:
        super()._write(port)
        file = self.directory / "server.properties"
        properties = dict(line.split("=", 1) for line in file.read_text().splitlines())
        for number, line in enumerate(self.lines):
            for setting, its in (("listeners", line.target), ("advertised.listeners", line.port)):
                properties[setting] += f",LINE{number}://127.0.0.1:{its}"
            properties["listener.security.protocol.map"] += f",LINE{number}:PLAINTEXT"
        properties["inter.broker.listener.name"] = "PLAINTEXT"
        file.write_text("\n".join(f"{name}={value}" for name, value in properties.items()) + "\n")


def low_port() -> int:
    """A free port below those that the system gives to clients: one of them might take it while the broker is down, or even
    connect to itself there."""
    draw = random.SystemRandom()
    while not _bindable(port := draw.randrange(15_000, 32_000)):
        pass
    return port
