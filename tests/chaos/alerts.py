"""Every alert is fired by its fault: a real Prometheus scrapes real workers, its rules made faster by one factor.

A scenario names the alerts that must fire, each with its instance; none else may, except what it names as a consequence.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from deploy.clients.arguments import client_arguments
from deploy.embedded_kafka import EmbeddedKafka, free_port
from deploy.verify import run as verify
from export.publish import build, publish
from models.data import generate
from models.evaluation.gate import DAY
from stream.settings import Settings
from tests.activations import activate
from tests.bundles import text_onnx, tiny_run
from tests.chaos.gaps import Transactions
from tests.chaos.outcomes import Outcome, record
from tests.chaos.trial import Traffic
from tests.clocks import wrong_by
from tests.failing_kafka import FailingKafka
from tests.gateway_process import GatewayProcess
from tests.learn_faults import HOLDS as STANDS
from tests.learn_process import LearnProcess, write_days
from tests.mutants import SLOW, slowed
from tests.prometheus import RULES, Firing, Prometheus, binary, faster
from tests.settings import with_own_topics
from tests.tally_faults import CRAWLS, HOLDS
from tests.tally_process import TallyProcess
from tests.worker_process import Events, WorkerProcess, until

RATE = 100  # events a second
LATE: Firing = {("FreshetBudgetBurnsFast", ""), ("FreshetBudgetBurns", ""), ("FreshetBudgetBurnsSlowly", "")}
"""What any interruption brings about in rules that take five seconds for five minutes: events waited longer than a second."""
STARTS: Firing = {("FreshetNotReady", "w1"), ("FreshetRecoveryStands", "w1")}
"""What a start brings about on a busy machine, in rules that take five seconds for five minutes."""
DISK = 768 << 20  # bytes of the small file system; RocksDB sets aside some ten MiB at once, which is no trend
IDLE = 20.0  # seconds without an event; FreshetLag and FreshetStalled would fire within a third of it, by rules / 60
TRAINS = (
    180.0  # seconds within which a small data set is trained on, judged and exported, on a machine that is busy besides
)
FILL = 3 << 20  # bytes written to it every quarter of a second


class Station:
    """Workers that are watched by Prometheus, under traffic; keeps how long each alert took to fire."""

    def __init__(self, kafka: EmbeddedKafka, settings: Settings, bundles: Path, folder: Path) -> None:
        self.kafka = kafka
        self.settings = settings
        self.bundles = bundles
        self.folder = folder
        self.traffic: Traffic
        self.prometheus: Prometheus
        self.poisoned = 0
        self.committed = 0  # events of transactions, and those that the HTTP API acknowledged
        self.unanswered = 0  # events sent to the HTTP API without an acknowledgement; each may be in the topic
        self.gateways: dict[str, str] = {}  # name -> host:port of those that are scraped
        self.tallies: dict[str, str] = {}  # likewise
        self.learners: dict[str, str] = {}  # likewise
        self.judged = True
        self.took: dict[tuple[str, str], float] = {}
        self._workers: dict[str, WorkerProcess] = {}
        self._ports: dict[str, int] = {}
        self._watched: list[str] = []
        self._began = 0.0

    @property
    def events(self) -> Events:
        return self.traffic.events

    def worker(self, name: str, mutant: str = "", **more: Any) -> WorkerProcess:
        """A worker that answers at the same port in every life, as behind a supervisor. Not started yet."""
        if name not in self._ports:
            self._ports[name] = free_port()
        more = {"bundles": self.bundles, "web_port": self._ports[name]} | more
        self._workers[name] = WorkerProcess(self.settings, self.folder, name, mutant, **more)
        return self._workers[name]

    def watch(self, *names: str) -> None:
        """Prometheus scrapes these workers, all gateways, tallies and learners from now on, and no others."""
        workers = {name: f"127.0.0.1:{self._ports[name]}" for name in names}
        self.prometheus.watch(workers, self.gateways, self.tallies, self.learners)
        count = len(names) + len(self.gateways) + len(self.tallies) + len(self.learners)
        up = f"count(up) == {count}" if count else "absent(up)"
        until(lambda: self.prometheus.query(up), 10, f"{names} are scraped")

    def noise(self) -> str:
        """The alerts that fire though nothing is wrong; "" for none."""
        firing = self.prometheus.firing()
        return ", ".join(
            f"{name} {instance}".strip() for name, instance in sorted(firing - self.prometheus.late(firing))
        )

    def quiet(self) -> bool:
        return not self.noise()

    def fault(self) -> None:
        """A fault begins."""
        self._began = time.monotonic()

    def fires(self, within: float, *alerts: tuple[str, str]) -> None:
        """Wait until each alert has fired, in whatever order, since the fault began."""
        left = set(alerts)

        def all_fired() -> bool:
            for alert in left & self.prometheus.firing():
                self.took.setdefault(alert, time.monotonic() - self._began)
                left.discard(alert)
            return not left

        end = time.monotonic() + within
        while not all_fired():
            assert time.monotonic() < end, f"not within {within:g} s: {left}; fires: {self.prometheus.firing()}"
            time.sleep(0.1)

    def resolves(self, within: float, *alerts: tuple[str, str]) -> None:
        """Wait until none of the alerts fires any more."""
        until(lambda: not self.prometheus.firing() & set(alerts), within, f"resolved: {alerts}")

    def poison(self, count: int) -> None:
        for _ in range(count):
            self.events.producer.send(self.settings.sources[0], key=b"x", value=b"not json")
        self.events.producer.flush()
        self.poisoned += count

    @property
    def failing(self) -> FailingKafka:
        """The broker of a scenario that has its own."""
        assert isinstance(self.kafka, FailingKafka)
        return self.kafka

    @contextmanager
    def without_broker(self, worker: WorkerProcess) -> Iterator[None]:
        """The broker stands still under a write of the worker, dies with it unanswered, and comes back at the same port."""
        until(lambda: self._still_under_a_write(worker), 60, "a write stays unanswered")
        self.failing.kill()
        try:
            yield
        finally:
            self.failing.start()

    def _still_under_a_write(self, worker: WorkerProcess) -> bool:
        """Stop the broker for a second; it goes on where the worker had nothing under way at that instant."""
        self.failing.suspend()
        time.sleep(1)  # the fault's own duration: what can be finished without the broker is
        if worker.metric("freshet_lag_records"):
            return True
        self.failing.resume()
        return False

    def check(self) -> None:
        """Once everything is finished: nothing lost, nothing twice, and every dead letter one of ours."""
        report = verify(self.settings, wait=60)
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
        acknowledged, unacknowledged = self.traffic.acked, self.events.sent - self.traffic.acked
        least = acknowledged + self.committed
        assert least <= report.applied <= least + unacknowledged + self.unanswered
        assert report.dead_letters == self.poisoned

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()


@dataclass(frozen=True)
class Scenario:
    """A run with one set of workers. factor: what the rules' times are divided by; first: the mutant that w1 is, or "";
    fires: what must fire; consequences: what may, as does the absence of a worker that was asked to leave, until it is no
    target any more; own_broker: one that the scenario may stop or end; values: settings."""

    run: Callable[[Station, WorkerProcess], None]
    factor: int
    fires: Firing
    consequences: Firing = field(default_factory=lambda: LATE)
    first: str = ""
    own_broker: bool = False
    values: dict[str, Any] = field(default_factory=dict)


def play(name: str, kafka: EmbeddedKafka, bundles: Path, folder: Path, seed: int = 0) -> None:
    """Run one scenario, record its outcome."""
    binary()
    if SCENARIOS[name].own_broker:
        with FailingKafka(folder / "kafka") as own:
            played(name, own, bundles, folder, seed)
    else:
        played(name, kafka, bundles, folder, seed)


def played(name: str, kafka: EmbeddedKafka, bundles: Path, folder: Path, seed: int) -> None:
    scenario = SCENARIOS[name]
    began = time.monotonic()
    station = Station(kafka, settings_at(kafka, **scenario.values), bundles, folder)
    first = station.worker("w1", scenario.first).start()
    try:
        first.wait_ready()
        with traffic(station.settings, folder, seed) as station.traffic:
            works(first)
            rules = faster(RULES.read_text(), scenario.factor)
            with Prometheus(folder / "prometheus", {}, rules) as station.prometheus:
                station.watch("w1")
                until(station.quiet, 60, station.noise)  # before, nobody was scraped
                start = time.time()
                scenario.run(station, first)
                found = station.prometheus.fired(start, time.time())
                late = station.prometheus.late(found)
        unexpected = found - scenario.fires - scenario.consequences - late
        assert not unexpected, f"fired, and nothing was wrong: {unexpected}"
        assert scenario.fires <= found
        assert scenario.fires <= station.took.keys()
        if station.judged:
            station.check()
    finally:
        station.close()
    took = ", ".join(
        f"{alert} {instance}".strip() + f" {took:.1f} s" for (alert, instance), took in station.took.items()
    )
    note = f"{name}, times of the rules / {scenario.factor}: {took}"
    seconds = round(time.monotonic() - began, 1)
    record(Outcome(0, f"alerts, {name}", seed, events=station.events.sent, seconds=seconds, note=note))


@contextmanager
def traffic(settings: Settings, folder: Path, seed: int) -> Iterator[Traffic]:
    """RATE events a second until the block ends."""
    sending = Traffic(settings, folder / "ledger.jsonl", seed, RATE, users=60)
    sending.events.send_items()
    sending.start()
    try:
        yield sending
    finally:
        sending.stop()


def settings_at(kafka: EmbeddedKafka, **values: Any) -> Settings:
    """Settings with topics of their own."""
    return with_own_topics(kafka.bootstrap, partitions=2, **values)


def works(worker: WorkerProcess, applied: float = 0) -> None:
    """Wait until it has applied a second's events more than `applied`."""
    until(lambda: worker.applied() > applied + RATE, 30, worker.awaited("works"))


def idle(station: Station, *workers: WorkerProcess) -> None:
    """Nothing comes any more, and the last that stands in every partition is a transaction's marker, of a commit and then of an
    abort. Nothing is wrong."""
    station.traffic.paused.set()
    until(lambda: not any(worker.metric("freshet_lag_records") for worker in workers), 30, "all is finished")
    writer = Transactions(station.settings, station.events, random.Random(1))
    for commit in (True, False):
        writer.everywhere(commit=commit)
        time.sleep(IDLE)  # the silence itself
    station.committed += writer.committed
    station.traffic.paused.clear()


def slow(station: Station, first: WorkerProcess) -> None:
    """Poison; then inference takes 1.5 s more a micro-batch until the worker is more than a minute behind."""
    burns = ("FreshetBudgetBurnsFast", ""), ("FreshetBudgetBurns", ""), ("FreshetBudgetBurnsSlowly", "")
    station.fault()
    station.poison(50)
    station.fires(20, ("FreshetDeadLetters", ""))
    station.resolves(30, ("FreshetDeadLetters", ""))
    assert not station.noise()
    station.fault()
    slowed(first.data_dir, 0.75)  # two model calls a micro-batch
    station.fires(30, *burns)
    station.fires(90, ("FreshetLag", "w1"))
    (first.data_dir / SLOW).unlink()
    station.resolves(60, ("FreshetLag", "w1"), burns[0])
    station.resolves(60, burns[1])  # 30 min / 60; the third's windows are 6 and 72 minutes long


def refused(station: Station, first: WorkerProcess) -> None:
    """The broker dies under a write; then the event loop hangs."""
    errors, stalled = ("FreshetSendErrors", "w1"), ("FreshetStalled", "w1")
    stands = ("FreshetLoopStands", "w1"), ("FreshetNotReady", "w1")
    station.fault()
    with station.without_broker(first):
        station.fires(20, errors, stalled)
    station.resolves(60, errors, stalled)
    station.fault()
    (first.data_dir / "stand").touch()
    station.fires(40, *stands)
    (first.data_dir / "stand").unlink()
    station.resolves(30, *stands, stalled)


def frozen(station: Station, first: WorkerProcess) -> None:
    """One worker is stopped and keeps its partitions; a second one waits for them, with another bundle, no GPU, and a small
    disk. Then nobody is scraped, then the disk fills."""
    other = other_bundle(station.folder / "other")
    second = station.worker("w2", bundles=other, provider="auto")
    waits = ("FreshetNotReady", "w2"), ("FreshetRecoveryStands", "w2")
    with small_disk(second.data_dir):
        station.fault()
        first.send_signal(signal.SIGSTOP)
        station.fires(15, ("FreshetAbsent", "w1"))
        second.start()
        until(lambda: second.get("/metrics")[0] == 200, 30, "the second worker answers")
        station.watch("w1", "w2")
        station.fault()
        station.fires(25, *waits)
        first.send_signal(signal.SIGCONT)
        station.resolves(30, ("FreshetAbsent", "w1"), *waits)
        station.fires(30, ("FreshetTwoBundles", ""), ("FreshetProviderFallback", "w2"))

        station.fault()
        filling = second.data_dir / "filling"
        assert ("FreshetDiskFull", "w2") not in station.prometheus.firing()
        with filled(filling):
            station.fires(60, ("FreshetDiskFull", "w2"))
        filling.unlink()
        station.resolves(90, ("FreshetDiskFull", "w2"))

        station.fault()
        station.watch()
        station.fires(15, ("FreshetAbsent", ""))
        station.watch("w1", "w2")
        station.resolves(15, ("FreshetAbsent", ""))

        assert second.terminate() == 0
        station.watch("w1")
        station.resolves(15, ("FreshetTwoBundles", ""), ("FreshetProviderFallback", "w2"))
        first.wait_ready()
        until(lambda: first.metric("freshet_partitions_assigned") == 6, 30, "the first worker owns all")


def comes_and_goes(station: Station, first: WorkerProcess) -> None:
    """A second worker joins and leaves six times, asked and killed in turn."""
    second = station.worker("w2")
    station.fault()
    for number in range(6):
        second.start().wait_ready()
        if number == 0:
            station.watch("w1", "w2")
        until(lambda: scraped(station, second), 15, "the second worker's life is scraped")
        if number % 2:
            second.kill()
        else:
            assert second.terminate() == 0
    station.fires(15, ("FreshetRebalances", "w1"), ("FreshetRestarts", "w2"))
    station.watch("w1")
    station.resolves(120, ("FreshetRebalances", "w1"), ("FreshetRestarts", "w2"))


def scraped(station: Station, worker: WorkerProcess) -> bool:
    seen = station.prometheus.query(f'process_start_time_seconds{{instance="{worker.name}"}}')
    return bool(seen) and float(seen[0]["value"][1]) == worker.metric("process_start_time_seconds")


def broken(station: Station, first: WorkerProcess) -> None:
    """A late writer; a worker killed, its store damaged and unread events deleted meanwhile; a broker that stands still."""
    station.judged = False  # events are lost, as a person has allowed
    fenced, damaged, lost, absent = (
        ("FreshetFencedWriter", "w1"), ("FreshetDamagedPartition", "w1"), ("FreshetAcceptedLoss", "w1"), ("FreshetAbsent", "w1"),
    )  # fmt: skip
    second = station.worker("w2", "stalls").start()  # it may stop before it was ever seen ready
    until(second.stopped, 60, "the second worker stops before a write")
    until(lambda: first.metric("freshet_partitions_assigned") == 6, 30, "the first worker owns all")
    works(first, first.applied())
    station.fault()
    second.send_signal(signal.SIGCONT)
    assert second.wait(20) == 75
    station.fires(20, fenced)

    station.fault()
    first.kill()
    station.fires(15, absent)
    next(first.data_dir.rglob("CURRENT")).write_bytes(b"")
    admin = KafkaAdminClient(**client_arguments(station.settings))
    clicks = station.settings.sources[0]
    admin.delete_records({TopicPartition(clicks, partition): -1 for partition in range(2)})  # all that is there
    admin.close()
    station.fault()
    first = station.worker("w1", accept_loss=True).start().wait_ready()
    station.fires(20, damaged, lost)
    station.resolves(20, absent)

    station.fault()
    station.failing.suspend()
    try:
        assert first.wait(30) == 75
        station.fires(15, absent)
    finally:
        station.failing.resume()
    first = station.worker("w1").start().wait_ready()
    station.resolves(20, absent)
    station.resolves(90, fenced, damaged, lost)


def wrong_clock(station: Station, first: WorkerProcess) -> None:
    """The clock of a second worker jumps ahead by two hours, and back."""
    clock = ("FreshetClock", "w2")
    second, file = station.worker("w2"), station.folder / "clock"
    wrong_by(file, 0.0)
    second.command = ["tests.clocks", str(file)]
    second.start().wait_ready()
    station.watch("w1", "w2")
    assert not station.noise()
    station.fault()
    wrong_by(file, 7200.0)
    station.fires(20, clock)
    wrong_by(file, 0.0)
    station.resolves(20, clock)


def unknown_items(station: Station, first: WorkerProcess) -> None:
    """Half of the events are on items that nobody has put on the items topic; then none."""
    alert = ("FreshetUnknownItems", "")
    station.fault()
    station.events.unknown = 0.5
    station.fires(40, alert)
    station.events.unknown = 0.0
    station.resolves(60, alert)


def hits_fall(station: Station, first: WorkerProcess) -> None:
    """Users find what they choose in their slates as often as chance has it; then a rule leaves two items in them."""
    alert = ("FreshetHitsFall", "")
    station.events.users = 600  # so many that most choices are of items that their users have not had
    judged = 'sum(increase(freshet_prequential_choices_total{item="known"}[1m]))'
    until(lambda: station.prometheus.query(f"{judged} > 600"), 60, "choices judge the slates")
    station.fault()
    rule = {"rule": "two", "kind": "only", "filter": {"item": ["item-1", "item-2"]}}
    station.events.producer.send(station.settings.rules_topic, key=b"two", value=json.dumps(rule).encode()).get(30)
    station.fires(120, alert)
    station.events.producer.send(station.settings.rules_topic, key=b"two", value=None).get(30)
    station.resolves(180, alert)


def activated(station: Station, first: WorkerProcess) -> None:
    """A bundle is activated that is in no folder; then one, and w1 takes long to load it."""
    refused, overdue = ("FreshetBundleRefused", "w1"), ("FreshetBundleOverdue", "w1")
    station.fault()
    activate(station.settings, "0" * 64)
    station.fires(30, refused)
    station.fault()
    (first.data_dir / SLOW).touch()
    other = other_bundle(station.folder / "other")
    (made,) = (one.parent for one in other.glob("*/manifest.json"))
    made.rename(station.bundles / made.name)
    activate(station.settings, made.name)
    station.fires(40, overdue)
    (first.data_dir / SLOW).unlink()
    station.resolves(90, refused, overdue)


def short(station: Station, first: WorkerProcess) -> None:
    """Poison, events on items that nobody has announced, items of most slates blocked, a worker that stands still."""
    reissues = ("FreshetReissuesSlow", "w1")
    dead_letters, unknown, absent = ("FreshetDeadLetters", ""), ("FreshetUnknownItems", ""), ("FreshetAbsent", "w1")
    station.fault()
    station.poison(50)
    station.fires(20, dead_letters)
    station.fault()
    station.events.unknown = 0.5
    station.fires(40, unknown)
    station.events.unknown = 0.0
    station.traffic.paused.set()  # a user's next event replaces the slate, too
    station.fault()
    rule = {"rule": "recall", "kind": "block", "filter": {"item": [f"item-{number}" for number in range(1, 21)]}}
    station.events.producer.send(station.settings.rules_topic, key=b"recall", value=json.dumps(rule).encode()).get(30)
    station.fires(40, reissues)
    station.traffic.paused.clear()
    station.resolves(60, reissues)
    station.fault()
    first.send_signal(signal.SIGSTOP)
    station.fires(15, absent)
    first.send_signal(signal.SIGCONT)
    station.resolves(60, absent, dead_letters, unknown)


class Clients:
    """Four clients of a gateway, ten requests a second each: a click, the slate with it, the popular items. While `posting` is
    not set, only the last. `written`: clicks that were acknowledged; `asked`: those that were sent."""

    def __init__(self, served: GatewayProcess) -> None:
        self.posting = threading.Event()
        self.written = self.asked = 0
        self._served = served
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(f"client {number}",)) for number in range(4)]

    def __enter__(self) -> Clients:
        self.posting.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, user: str) -> None:
        while not self._over.wait(0.1):
            with suppress(OSError, http.client.HTTPException):  # it is stopped, too
                if self.posting.is_set():
                    event = {"type": "click", "user": user, "item": "item-1", "time": int(time.time() * 1000)}
                    with self._lock:
                        self.asked += 1
                    answer = self._served.ask("POST", "/v1/events", event, timeout=5)
                    if answer.status == 200:
                        with self._lock:
                            self.written += 1
                        self._served.slate(user, f"min_offset={answer.body['events'][0]['min_offset']}")
                self._served.ask("GET", "/v1/popular", timeout=5)


def gateway(station: Station, first: WorkerProcess) -> None:
    """The worker stands still while clients wait for their own events; then the broker does; then the gateway itself."""
    served = GatewayProcess(station.settings, station.folder, bundles=station.bundles, serve_wait=1.5)
    errors, slow, absent = ("FreshetApiErrors", ""), ("FreshetApiSlow", ""), ("FreshetApiAbsent", "g1")
    old = ("FreshetApiStale", "g1"), ("FreshetApiNotReady", "g1")
    try:
        served.start().wait_ready()
        station.gateways = {"g1": f"127.0.0.1:{served.port()}"}
        station.watch("w1")
        with Clients(served) as clients:
            met = 'freshet_api_waits_total{outcome="applied"} > 20'
            until(lambda: station.prometheus.query(met), 30, "clients see their own events")
            until(station.quiet, 30, station.noise)

            station.fault()
            first.send_signal(signal.SIGSTOP)
            station.fires(40, errors, slow)
            first.send_signal(signal.SIGCONT)
            station.resolves(60, errors, slow)
            clients.posting.clear()
            until(station.quiet, 60, station.noise)

            station.fault()
            station.failing.suspend()
            try:
                station.fires(60, *old)
                assert first.wait(30) == 69  # nothing that it wrote is acknowledged
            finally:
                station.failing.resume()
            first.start().wait_ready()
            station.resolves(60, *old, errors)

            station.fault()
            served.send_signal(signal.SIGSTOP)
            try:
                station.fires(15, absent)
            finally:
                served.send_signal(signal.SIGCONT)
            station.resolves(30, absent)
        station.committed += clients.written
        station.unanswered += clients.asked - clients.written
    finally:
        served.close()


def tally(station: Station, first: WorkerProcess) -> None:
    """A tally that counts and does not publish, one that reads too slowly, one that stands still; a row that is no JSON."""
    port = free_port()
    counts = TallyProcess(
        station.settings, station.folder, bundles=station.bundles, web_port=port, tally_epoch_seconds=1.0
    )
    counts.command = ["tests.tally_faults"]
    overdue, lag, absent = ("FreshetTallyOverdue", "t1"), ("FreshetTallyLag", "t1"), ("FreshetTallyAbsent", "t1")
    refused = ("FreshetTablesRefused", "w1")
    try:
        counts.start().wait_ready()
        station.tallies = {"t1": f"127.0.0.1:{port}"}
        station.watch("w1")
        until(lambda: first.metric("freshet_tables_epoch") > 1, 30, "the worker follows the epochs")
        until(station.quiet, 30, station.noise)
        for fault, alert in ((HOLDS, overdue), (CRAWLS, lag)):
            station.fault()
            (counts.tally_dir / fault).touch()
            station.fires(60, alert)
            (counts.tally_dir / fault).unlink()
            station.resolves(60, alert)
        station.fault()
        counts.send_signal(signal.SIGSTOP)
        station.fires(30, absent)
        counts.send_signal(signal.SIGCONT)
        station.resolves(30, absent)
        station.fault()
        station.events.producer.send(station.settings.tables_topic, key=b"i:item-1", value=b"{", partition=0).get(30)
        station.fires(30, refused)
        assert counts.terminate() == 0  # as the runbook has it: a start writes all rows again
        counts.start().wait_ready()
        station.resolves(60, refused)
        stands = first.metric("freshet_tables_epoch")
        until(lambda: first.metric("freshet_tables_epoch") > stands, 30, "the worker follows the epochs again")
    finally:
        counts.close()


def learn(station: Station, first: WorkerProcess) -> None:
    """A gate that nothing can pass, data that is not there, a turn that does not go on, a `freshet learn` that stands still."""
    folder = station.folder / "learn"
    folder.mkdir()
    world = generate(users=120, items=80, events=14)
    day = int(world.events["time"][0]) // DAY
    data, gone = folder / "data", folder / "gone"
    options = ["--no-capture", "--update", "head", "--epochs", "1", "--max-minutes", "0.3", "--every", "1s"]
    options += ["--judge-users", "3", "--fall", "1", "--ratio"]
    learns = LearnProcess(station.settings, folder, free_port())
    turns = partial(learns.metric, "freshet_learn_turns_total")
    published = partial(learns.awaited, "has published a bundle")
    refused, failed = ("FreshetLearnRefused", "l1"), ("FreshetLearnFailed", "l1")
    overdue, absent = ("FreshetLearnOverdue", "l1"), ("FreshetLearnAbsent", "l1")
    write_days(world, data, (day + 20) * DAY)
    station.traffic.paused.set()  # workers have no part in this, and within minutes their users would have seen every item
    try:
        learns.learns(*options, "9")
        until(lambda: learns.runs() and turns(outcome="published"), TRAINS, published)
        station.learners = {"l1": learns.address}
        station.watch("w1")
        until(station.quiet, 30, station.noise)
        station.fault()
        write_days(world, data, (day + 22) * DAY)
        station.fires(TRAINS, refused)
        assert learns.metric("freshet_learn_refusals_total", reason="prequential") >= 1
        learns.terminate()
        write_days(world, data, (day + 24) * DAY)  # as the runbook has it: a gate that suits the data
        learns.learns(*options, "0.1")
        until(lambda: learns.runs() and turns(outcome="published"), TRAINS, published)
        station.resolves(30, refused, absent)
        station.fault()
        data.rename(gone)
        station.fires(60, failed)
        gone.rename(data)
        station.resolves(30, failed)
        station.fault()
        (folder / "runs" / STANDS).touch()
        station.fires(90, overdue)
        (folder / "runs" / STANDS).unlink()
        station.resolves(30, overdue)
        station.fault()
        learns.send_signal(signal.SIGSTOP)
        station.fires(30, absent)
        learns.send_signal(signal.SIGCONT)
        station.resolves(30, absent)
    finally:
        learns.close()
        station.traffic.paused.clear()


def other_bundle(folder: Path) -> Path:
    """A bundles folder: the same networks as in the tests' own, another bundle by its measured figures."""
    folder.mkdir()
    publish(build(replace(tiny_run(), metrics={"validation NDCG@10": 0.5}), text=text_onnx()), folder)
    return folder


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of DISK bytes at `place`. Skips the test where mounting is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(file: Path) -> Iterator[None]:
    """The file grows by FILL every quarter of a second while the block runs."""
    over = threading.Event()

    def fill() -> None:
        with file.open("wb") as out:
            while not over.wait(0.25):
                out.write(bytes(FILL))
                out.flush()

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


SCENARIOS = {
    "idle behind a transaction": Scenario(idle, 60, set()),
    "slow": Scenario(
        slow, 60, {*LATE, ("FreshetLag", "w1"), ("FreshetDeadLetters", "")}, set(), first="slows",
        values={"micro_batch": 16},
    ),
    "refused": Scenario(
        refused, 60,
        {("FreshetSendErrors", "w1"), ("FreshetStalled", "w1"), ("FreshetLoopStands", "w1"), ("FreshetNotReady", "w1")},
        LATE | STARTS | {("FreshetAbsent", "w1")}, first="stands", own_broker=True, values={"session_timeout": 60.0},
    ),
    "frozen": Scenario(
        frozen, 60,
        {
            ("FreshetAbsent", "w1"), ("FreshetAbsent", ""), ("FreshetNotReady", "w2"), ("FreshetRecoveryStands", "w2"),
            ("FreshetTwoBundles", ""), ("FreshetProviderFallback", "w2"), ("FreshetDiskFull", "w2"),
        },
        LATE | {("FreshetAbsent", "w2")},
        values={"session_timeout": 60.0, "rebalance_timeout": 60.0},
    ),
    "comes and goes": Scenario(
        comes_and_goes, 10, {("FreshetRebalances", "w1"), ("FreshetRestarts", "w2")}, LATE | {("FreshetAbsent", "w2")},
        values={"session_timeout": 6.0, "inference_timeout": 3.0},
    ),
    "broken": Scenario(
        broken, 60,
        {
            ("FreshetFencedWriter", "w1"), ("FreshetDamagedPartition", "w1"), ("FreshetAcceptedLoss", "w1"),
            ("FreshetAbsent", "w1"),
        },
        LATE | STARTS | {("FreshetSendErrors", "w1")}, own_broker=True,
        values={"session_timeout": 6.0, "inference_timeout": 3.0},
    ),
    "wrong clock": Scenario(wrong_clock, 60, {("FreshetClock", "w2")}),
    "unknown items": Scenario(unknown_items, 60, {("FreshetUnknownItems", "")}),
    "hits fall": Scenario(hits_fall, 60, {("FreshetHitsFall", "")}),
    "bundles": Scenario(
        activated, 60, {("FreshetBundleRefused", "w1"), ("FreshetBundleOverdue", "w1")}, first="loads_late"
    ),
    "gateway": Scenario(
        gateway, 60,
        {
            ("FreshetApiErrors", ""), ("FreshetApiSlow", ""), ("FreshetApiStale", "g1"), ("FreshetApiNotReady", "g1"),
            ("FreshetApiAbsent", "g1"),
        },
        LATE | STARTS | {("FreshetAbsent", "w1"), ("FreshetStalled", "w1"), ("FreshetLag", "w1"), ("FreshetSendErrors", "w1")},
        own_broker=True, values={"session_timeout": 150.0},
    ),
    "tally": Scenario(
        tally, 60,
        {
            ("FreshetTallyOverdue", "t1"), ("FreshetTallyLag", "t1"), ("FreshetTallyAbsent", "t1"),
            ("FreshetTablesRefused", "w1"),
        },
    ),
    "learn": Scenario(
        learn, 60,
        {
            ("FreshetLearnRefused", "l1"), ("FreshetLearnFailed", "l1"), ("FreshetLearnOverdue", "l1"),
            ("FreshetLearnAbsent", "l1"),
        },
    ),
    "short": Scenario(
        short, 60,
        {("FreshetDeadLetters", ""), ("FreshetUnknownItems", ""), ("FreshetReissuesSlow", "w1"), ("FreshetAbsent", "w1")},
        LATE | STARTS | {("FreshetStalled", "w1")}, values={"session_timeout": 60.0, "reissue_rate": 1.0},
    ),
}  # fmt: skip


def calm(kafka: EmbeddedKafka, bundles: Path, folder: Path, seconds: float) -> None:
    """Two workers under steady traffic, then without any: no alert fires, by the rules as they are and by rules that are 60
    times as fast."""
    binary()
    began = time.monotonic()
    station = Station(kafka, settings_at(kafka), bundles, folder)
    workers = [station.worker(name).start() for name in ("w1", "w2")]
    try:
        for worker in workers:
            worker.wait_ready()
        with traffic(station.settings, folder, 0) as station.traffic:
            for worker in workers:
                works(worker)
            targets = {worker.name: f"127.0.0.1:{worker.port()}" for worker in workers}
            with (
                Prometheus(folder / "real", targets, RULES.read_text()) as real,
                Prometheus(folder / "fast", targets, faster(RULES.read_text(), 60)) as fast,
            ):
                both = {"real": real, "fast": fast}
                for served in both.values():
                    until(partial(served.query, "count(up == 1) == 2"), 30, "both workers are scraped")
                    until(served.silent, 30, "both are seen")  # before, nobody was scraped
                start, sent = time.time(), station.events.sent
                time.sleep(seconds)  # the calm itself
                assert station.events.sent - sent > 0.9 * RATE * seconds
                idle(station, *workers)
                end = time.time()
                for name, served in both.items():
                    checked(served, name, start, end)
        station.check()
    finally:
        station.close()
    note = (
        f"two workers, {RATE} events/s for {seconds:g} s, then {2 * IDLE:g} s of silence behind transactions: no alert fired, "
        "rules as they are and 60 times as fast"
    )
    taken = round(time.monotonic() - began, 1)
    record(Outcome(0, "calm run", 0, events=station.events.sent, seconds=taken, note=note))


def checked(served: Prometheus, name: str, start: float, end: float) -> None:
    """No alert has fired, every rule was evaluated without an error, and both workers were there all the time."""
    step = max(0.5, (end - start) / 10_000)  # Prometheus gives 11,000 points at most
    fired = served.fired(start, end)
    assert fired == set(), f"{name} rules: {fired}"
    assert [(rule["name"], rule.get("lastError")) for rule in served.rules() if rule["health"] != "ok"] == []
    (up,) = served.query_range("count(up == 1)", start + 1, end, step)
    assert {value for _, value in up["values"]} == {"2"}, name
