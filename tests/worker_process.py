"""Real worker processes for the tests: start, watch, kill, stop, and talk to them through Kafka."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from pydantic import SecretStr

from deploy.clients.arguments import client_arguments
from deploy.clients.log_reader import KafkaLog
from stream.settings import Placement, Settings

JSON = (list, tuple, dict)


def environment(settings: Settings, **more: Any) -> dict[str, str]:
    """The process environment that gives a child these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    values = {name: getattr(settings, name) for name in settings.model_fields_set} | more
    values = {name: value for name, value in values.items() if not isinstance(value, SecretStr)}  # FRESHET_SECRETS
    return kept | {
        f"FRESHET_{name.upper()}": json.dumps(value, default=_dumped) if isinstance(value, JSON) else str(value)
        for name, value in values.items()
    }


def _dumped(value: Placement) -> dict[str, Any]:
    return value.model_dump(exclude_none=True)


def until(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str]) -> Any:
    """Poll `condition` until it is true, and return its value. Raises AssertionError naming `what` was awaited; a function
    says it as it is then."""
    end, pause = time.monotonic() + seconds, 0.02
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
        pause = min(0.25, pause * 1.25)  # a look at a worker's metrics costs it what an event does
    raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")


COMMAND = ("deploy.cli", "worker")


class WorkerProcess:
    """One `freshet worker` with its own data folder and log. mutant: one of tests.mutants in its place.

    command: what `start` starts, as the arguments of python -m; another may be put there between two starts.
    """

    def __init__(self, settings: Settings, folder: Path, name: str = "w1", mutant: str = "", **more: Any) -> None:
        self.settings = settings
        self.name = name
        self.data_dir = folder / f"data-{name}"
        self.log = folder / f"{name}.log"
        self._environment = environment(
            settings, **{"data_dir": self.data_dir, "web_port": 0, "provider": "cpu"} | more
        )
        self.command = ["tests.mutants", mutant] if mutant else list(COMMAND)
        self._process: subprocess.Popen[bytes] | None = None
        self._offset = 0

    def start(self) -> WorkerProcess:
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start() first"
        return self._process

    def lines(self) -> list[dict[str, Any]]:
        """JSON log lines of the current run."""
        with self.log.open("rb") as log:
            log.seek(self._offset)
            return [json.loads(line) for line in log.read().splitlines() if line.startswith(b"{")]

    def port(self) -> int:
        """Port of the health server; 0 while it is not known."""
        return next((line["port"] for line in self.lines() if line.get("message") == "worker starts"), 0)

    def get(self, path: str) -> tuple[int, str]:
        """HTTP status and body; (0, "") while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port()}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):  # it died in the middle of its answer
            return 0, ""

    def runs(self) -> bool:
        """True. Raises AssertionError with the end of its log where it has ended."""
        if self.process.poll() is not None:
            raise AssertionError(f"worker {self.name} ended with {self.process.returncode}:\n{self.tail()}")
        return True

    def ready(self) -> bool:
        return self.runs() and bool(self.port()) and self.get("/readyz")[0] == 200

    def wait_ready(self, seconds: float = 120) -> WorkerProcess:
        until(self.ready, seconds, partial(self.awaited, "ready"))
        return self

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry `labels`."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith((name + "{", name + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def applied(self) -> float:
        """How many events it has applied since its start."""
        return self.metric("freshet_events_total", outcome="applied")

    def wait_applied(self, count: int, seconds: float = 30) -> None:
        """Wait until exactly so many events are applied since its start; it must run."""
        until(
            lambda: self.runs() and self.applied() == count,
            seconds,
            lambda: self.awaited(f"applied {self.applied():g} of {count} events"),
        )

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stopped(self) -> bool:
        """By SIGSTOP."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def kill(self) -> int:
        self.process.kill()
        return self.process.wait(10)

    def terminate(self, seconds: float = 35) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(seconds)

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)

    def awaited(self, what: str) -> str:
        """What a wait for this worker was for, with the end of its log."""
        return f"worker {self.name} {what}:\n{self.tail()}"

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Events:
    """A seeded producer of made-up events for `users` users over the items `item-1`, `item-2`, ...; acks=all."""

    def __init__(self, settings: Settings, seed: int = 0, users: int = 40, items: int = 50) -> None:
        self._settings = settings
        self._random = random.Random(seed)
        self.users = users
        self._items = items
        self.producer = KafkaProducer(
            acks="all", linger_ms=2, reconnect_backoff_max_ms=1000, max_block_ms=10_000,
            delivery_timeout_ms=300_000,  # longer than any outage here: once a batch has expired it sends nothing more
            **client_arguments(settings),
        )  # fmt: skip
        self.sent = 0
        self.words = 6  # of a comment
        self.unknown = 0.0  # share of events on items that `send_items` never makes live
        self.weights = (70, 20, 10)  # of clicks, ratings, comments
        self.partition: Callable[[bytes], int | None] = lambda key: None  # of a key; None: as kafka-python places it

    def one(self, user: str | None = None, kind: str | None = None, **fields: Any) -> tuple[str, dict[str, Any]]:
        """(topic, message)"""
        draw = self._random
        kind = kind or draw.choices(("click", "rating", "comment"), self.weights)[0]
        message: dict[str, Any] = {
            "user": user or f"user{draw.randrange(self.users)}",
            "item": f"item-{1 + draw.randrange(self._items)}",
            "time": int(time.time() * 1000),
        }
        if self.unknown and draw.random() < self.unknown:
            message["item"] = f"unknown-{draw.randrange(self._items)}"
        if kind == "rating":
            message["value"] = draw.randrange(1, 11) / 2
        if kind == "comment":
            message["text"] = " ".join(
                draw.choice(("good", "dull", "funny", "long", "sweet")) for _ in range(self.words)
            )
        sources = dict(zip(("click", "rating", "comment"), self._settings.sources, strict=True))
        return sources[kind], message | fields

    def send(self, count: int, rate: float = 0.0, stop: Callable[[], bool] = lambda: False) -> int:
        """Send `count` events, at `rate` a second (0: at once), until told to stop; all acknowledged on return."""
        began = time.monotonic()
        for number in range(count):
            if stop():
                break
            topic, message = self.one()
            self.put(topic, message)
            if rate:
                ahead = began + number / rate - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
        self.producer.flush()
        return self.sent

    def put(self, topic: str, message: dict[str, Any], headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        """Hand one event to the client. Raises KafkaError, and counts nothing as sent, if it is not taken."""
        key, value = message["user"].encode(), json.dumps(message).encode()
        future = self.producer.send(topic, key=key, value=value, headers=list(headers), partition=self.partition(key))
        self.sent += 1
        return future

    def send_items(self, names: Iterable[str] | None = None) -> None:
        """Make items live; by default all of them."""
        for name in names if names is not None else [f"item-{n + 1}" for n in range(self._items)]:
            item = {"item": name, "title": f"Item {name}", "text": "a thing"}
            self.producer.send(self._settings.items_topic, key=name.encode(), value=json.dumps(item).encode())
        self.producer.flush()

    def close(self, seconds: float | None = None) -> None:
        """seconds: what the records that are still to be sent get; None: as long as the client tries."""
        self.producer.close(timeout=seconds)


def all_committed(settings: Settings, worker: WorkerProcess | None = None, seconds: float = 60.0) -> None:
    """Wait until the group has committed all that is in the source topics, right or wrong; what workers send on themselves while
    this waits is included. Raises AssertionError with what is left, and at once where `worker` has ended."""
    log = KafkaLog(settings)
    left: dict[tuple[str, int], str] = {}

    def finished() -> bool:
        nonlocal left
        if worker is not None:
            worker.runs()
        committed = log.committed()  # before the ends: what is sent on is written before the original is committed
        ends = {tp: span.end for tp, span in log.spans(settings.sources).items() if span.end}
        left = {tp: f"{committed.get(tp)} of {end}" for tp, end in ends.items() if committed.get(tp) != end}
        return not left

    try:
        until(finished, seconds, lambda: f"everything committed: {left}" + (f"\n{worker.tail()}" if worker else ""))
    finally:
        log.close()


def read_all(settings: Settings, topic: str) -> Iterator[Any]:
    """Every record of a topic, up to its end as of now."""
    consumer = KafkaConsumer(enable_auto_commit=False, isolation_level="read_committed", **client_arguments(settings))
    try:
        tps = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends = consumer.end_offsets(tps)
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for records in consumer.poll(timeout_ms=500, max_records=5000).values():
                yield from records
    finally:
        consumer.close()


def slates(settings: Settings, user: str | None = None) -> list[dict[str, Any]]:
    """Slates sent so far, of one user or of all (the popularity slate left out)."""
    found = [json.loads(record.value) for record in read_all(settings, settings.recommendations_topic) if record.value]
    return [slate for slate in found if slate["user"] == user or (user is None and slate["user"] != "*")]
