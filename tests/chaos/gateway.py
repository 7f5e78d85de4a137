"""Fault 57: replicas of the API, workers and the broker are killed while clients write events and read them at once."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from deploy.clients.murmur2 import murmur2
from stream.settings import Settings
from tests.chaos.broker import AWAY, settings_for
from tests.chaos.trial import BACKOFF, RATE, READY, Traffic, Trial
from tests.failing_kafka import FailingKafka, low_port
from tests.gateway_process import GatewayProcess
from tests.worker_process import until

TIMEOUT = 10.0  # seconds that a client waits for an answer
PAUSE = 0.02  # seconds between two events of a client
DEFAULT_SESSION = {name: Settings.model_fields[name].default for name in ("session_timeout", "inference_timeout")}
"""How long users wait is measured with the settings that people have."""
REPLICA, WORKER, BROKER = "a replica", "a worker", "the broker"


@dataclass
class Sent:
    """One click that a client sent to the API. partition, offset: of the acknowledgement; -1 without one."""

    user: str
    sha256: str
    partition: int = -1
    offset: int = -1


@dataclass
class Client:
    """One user who clicks and reads the slate with the click, one after the other."""

    user: str
    sent: list[Sent] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)
    met: float = 0.0
    """When the newest click was sent whose slate was read, in seconds of time.monotonic()."""


class Clients(Traffic):
    """The trial's usual events, and clients of the API beside them; the producer log holds the sends of both."""

    def __init__(self, settings: Settings, producer_log: Path, seed: int, port: int, users: list[str]) -> None:
        super().__init__(settings, producer_log, seed, RATE, users=200)
        self.clients = [Client(user) for user in users]
        self._port = port
        self._clicks = settings.sources[0]
        self._seed = seed
        self._log = producer_log
        self._quit = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(client,), daemon=True) for client in self.clients]

    def start(self) -> None:
        super().start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> int:
        """As Traffic's, with the clicks of the clients -> how many of all events were acknowledged."""
        self._quit.set()
        for thread in self._threads:
            thread.join()
        acked = super().stop()
        with self._log.open("a", encoding="utf-8") as out:
            for client in self.clients:
                for number, sent in enumerate(client.sent):
                    line: dict[str, Any] = {
                        "id": f"{client.user}/{number}", "topic": self._clicks, "key": client.user, "sha256": sent.sha256,
                        "status": "indeterminate",
                    }  # fmt: skip
                    if sent.offset >= 0:
                        acked += 1
                        line |= {"status": "acked", "partition": sent.partition, "offset": sent.offset}
                    out.write(json.dumps(line) + "\n")
        self.acked = acked
        return acked

    def all_met(self, since: float) -> bool:
        """Whether each client has read a slate with a click that it sent after `since`."""
        return all(client.met > since for client in self.clients)

    def _live(self, client: Client) -> None:
        draw = random.Random(f"{self._seed} {client.user}")
        while not self._quit.wait(PAUSE):
            event = {"user": client.user, "item": f"item-{draw.randint(1, 50)}", "time": int(time.time() * 1000)}
            sent = Sent(client.user, sha256(msgspec.json.encode(event)).hexdigest())
            began = time.monotonic()
            client.sent.append(sent)
            with suppress(OSError, http.client.HTTPException):  # it was killed
                status, body = self._ask("POST", "/v1/events", {"type": "click"} | event)
                client.answers[status] += 1
                if status == 200:
                    (written,) = body["events"]
                    sent.partition, sent.offset = written["partition"], written["offset"]
                    self._read(client, sent, began)

    def _read(self, client: Client, sent: Sent, began: float) -> None:
        """Read the slate with the click. 503: it could not be had in time."""
        asked = f"{self._clicks}/{sent.partition}:{sent.offset}"
        status, body = self._ask("GET", f"/v1/users/{client.user}/recommendations?min_offset={asked}")
        client.answers[status] += 1
        if status != 200:
            return
        applied = body["applied"].get(f"{self._clicks}/{sent.partition}", -1)
        if applied < sent.offset:
            client.contradictions.append(f"{client.user} asked for {asked} and got a slate with {applied}")
        client.met = began

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            raw = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, raw, {"Content-Type": "application/json"} if raw else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


class Supervised:
    """One `freshet serve` that is started again whenever it ends, as behind a supervisor. exits: its exit codes."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.exits: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Supervised:
        self.gateway.start().wait_ready()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.gateway.close()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            code = self.gateway.process.poll()
            if code is not None:
                self.exits.append(code)
                self._over.wait(BACKOFF[0])
                self.gateway.start()


def kills(kafka: FailingKafka, bundles: Path, folder: Path, seed: int, rounds: int) -> None:
    """Fault 57: in each round a replica, a worker and the broker are killed by SIGKILL, in seeded order; each is started again
    at once. After each kill, every client must soon read a slate with a click that it sent after the kill."""
    settings = settings_for(kafka, **DEFAULT_SESSION)
    port = low_port()
    gateway = GatewayProcess(settings, folder, bundles=bundles, serve_port=port)
    trial = Trial(57, "kills under load of the API", seed, settings, bundles, folder, allowed=(-9, *AWAY))
    users = one_of_each_partition(settings.partitions, 2)
    clients = Clients(settings, folder / "ledger.jsonl", seed, port, users)
    trial.traffic.events.close()
    trial.traffic = clients
    back: dict[str, list[float]] = {REPLICA: [], WORKER: [], BROKER: []}
    with Supervised(gateway) as served:
        with trial:
            until(lambda: clients.all_met(0.0), READY, "every client has read its click")
            for _ in range(rounds):
                for victim in trial.draw.sample(list(back), len(back)):
                    trial.pause(0.5, 2)
                    began = time.monotonic()
                    _kill(victim, trial, served, kafka)
                    until(
                        partial(clients.all_met, began),
                        READY,
                        f"every client reads its clicks after {victim} was killed",
                    )
                    back[victim].append(time.monotonic() - began)
            longest = ", ".join(f"{victim} {max(times):.1f} s" for victim, times in back.items())
            trial.note = (
                f"{rounds} kills of each; until every client read a click that it sent afterwards, at most: {longest}"
            )
        exits = [code for code in served.exits if code not in (-9, *AWAY)]
        assert not exits, f"the gateway ended with {exits}"
    contradictions = [line for client in clients.clients for line in client.contradictions]
    assert not contradictions, contradictions[:5]
    answers = sum((client.answers for client in clients.clients), Counter())
    assert set(answers) <= {200, 503}, answers
    assert "Traceback" not in gateway.log.read_text(errors="replace")


def one_of_each_partition(partitions: int, count: int) -> list[str]:
    """`count` users of each partition."""
    found: dict[int, list[str]] = {}
    for number in range(10_000):
        user = f"client-{number}"
        of_one = found.setdefault((murmur2(user.encode()) & 0x7FFFFFFF) % partitions, [])
        if len(of_one) < count:
            of_one.append(user)
    return sorted(user for of_one in found.values() for user in of_one)


def _kill(victim: str, trial: Trial, served: Supervised, kafka: FailingKafka) -> None:
    trial.kills += 1
    if victim == REPLICA:
        served.gateway.kill()
    elif victim == WORKER:
        trial.kills -= 1  # the trial counts it
        trial.kill(trial.one())
    else:
        kafka.kill()
        kafka.start()
