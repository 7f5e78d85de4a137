"""Faults 50 to 55: nodes of a cluster of three are killed, restarted, cut off, or lead though they have missed records.

Replication is 3 and min.insync.replicas 2, as docs/operations.md asks for, but where fault 55 says otherwise."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any, Final

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition

from deploy.clients.admin import admin
from stream.core.errors import BrokerError
from stream.settings import Settings
from tests.chaos.broker import AWAY, _back, _ended
from tests.chaos.outcomes import Outcome, record
from tests.chaos.steps import says
from tests.chaos.trial import Trial
from tests.failing_cluster import FailingCluster
from tests.settings import with_topics
from tests.worker_process import Events, WorkerProcess, slates, until

SETTINGS: Final[dict[str, Any]] = {"partitions": 4, "session_timeout": 20.0, "heartbeat_interval": 1.0}
AGAIN: Final = 60.0  # seconds from the second node's return until every worker is ready


def settings_for(cluster: FailingCluster, **values: Any) -> Settings:
    """Topics on a cluster -> the settings of who reaches it directly."""
    return with_topics(cluster.bootstrap, **SETTINGS | values)


def a_leader_killed(
    cluster: FailingCluster,
    bundles: Path,
    folder: Path,
    seed: int,
    *,
    victims: tuple[str, ...] = ("source", "changelog", "group"),
) -> None:
    """Fault 50: the node that leads a source partition, then one that leads a changelog partition, then the group's coordinator
    is killed under traffic, and started again once the others have taken over."""
    settings = settings_for(cluster)
    with Trial(50, "leader or coordinator killed", seed, settings, bundles, folder, allowed=AWAY) as trial:
        killed = []
        for what in trial.draw.sample(victims, len(victims)):
            cluster.wait_in_sync(settings)
            trial.pause(0, 2)
            number = _leading(cluster, settings, trial.draw, what)
            cluster.kill(number)
            trial.kills += 1
            if trial.draw.random() < 0.5:
                trial.works(seconds=45)  # on two nodes
            else:
                trial.pause(1, 6)
            cluster.restart(number)
            killed.append(f"of the {what}")
        trial.note = f"the leader {', then '.join(killed)} killed; {_ended(trial)}; {_back(trial)}"


def two_of_three_down(cluster: FailingCluster, bundles: Path, folder: Path, seed: int, seconds: float = 8.0) -> None:
    """Fault 51: two nodes are killed. Nothing is acknowledged while one is alone; every worker is ready again by itself within
    60 s of the second's return, though the third stays down for longer."""
    settings = settings_for(cluster)
    with Trial(51, "two of three down", seed, settings, bundles, folder, rate=100, allowed=AWAY) as trial:
        cluster.wait_in_sync(settings)
        trial.pause(1, 3)
        first, second = trial.draw.sample([1, 2, 3], 2)
        cluster.kill(first)
        trial.pause(0, 1)
        cluster.kill(second)
        trial.kills += 2
        time.sleep(1)  # what was on its way arrives
        known = _acknowledged(trial)
        time.sleep(seconds)  # the fault's own duration
        assert _acknowledged(trial) == known, "acknowledged by a node that was alone"
        cluster.restart(second)
        began = time.monotonic()
        trial.wait_ready(AGAIN)
        trial.works(seconds=AGAIN)
        took = time.monotonic() - began
        cluster.restart(first)
        cluster.wait_in_sync(settings)
        trial.note = (
            f"one alone for {1 + seconds:.0f} s, nothing acknowledged; ready and at work {took:.0f} s after the second's return; "
            f"{_ended(trial)}"
        )


def the_controller_moved(cluster: FailingCluster, bundles: Path, folder: Path, seed: int, rounds: int = 2) -> None:
    """Fault 52: the node of the active controller is killed under traffic, and so is that of the next one."""
    settings = settings_for(cluster)
    with Trial(52, "controller moved", seed, settings, bundles, folder, allowed=AWAY) as trial:
        were = []
        for _ in range(rounds):
            cluster.wait_in_sync(settings)
            trial.pause(0, 2)
            number = cluster.controller(settings)
            cluster.kill(number)
            trial.kills += 1
            were.append(number)
            until(lambda: another_controller(cluster, settings, were[-1]), 30, "another controller")
            trial.pause(0, 3)
            cluster.restart(number)
        cluster.wait_in_sync(settings)
        trial.note = f"{len(were)} active controllers killed; {_ended(trial)}; {_back(trial)}"


def another_controller(cluster: FailingCluster, settings: Settings, than: int) -> bool:
    try:
        return cluster.controller(settings) != than
    except BrokerError:  # asked of the node that was killed, over a connection of before
        return False


def rolling_restart(
    cluster: FailingCluster, bundles: Path, folder: Path, seed: int, *, rate: float = 1000.0, moved: int = 4
) -> None:
    """Fault 53: every node is stopped by SIGTERM and started again, one after the other, each when all copies are in sync; then
    some partitions get other leaders and copies. No worker ends."""
    settings = settings_for(cluster)
    with Trial(53, "rolling restart and reassignment", seed, settings, bundles, folder, rate=rate, allowed=()) as trial:
        began, before = time.monotonic(), trial.traffic.sent
        for number in trial.draw.sample([1, 2, 3], 3):
            cluster.wait_in_sync(settings)
            cluster.node(number).stop()
            cluster.restart(number)
        cluster.wait_in_sync(settings)
        _reassign(cluster, settings, trial.draw, moved)
        cluster.wait_in_sync(settings)
        took = time.monotonic() - began
        had = (trial.traffic.sent - before) / took
        assert trial.exits == []
        trial.note = (
            f"three nodes restarted and {moved} partitions reassigned in {took:.0f} s under {had:.0f} events/s; "
            "no worker ended"
        )


def one_bad_line(cluster: FailingCluster, bundles: Path, folder: Path, seed: int, *, seconds: float = 15.0) -> None:
    """Fault 54: one node is reached, by clients and by the other nodes, over a line that is slow and narrow and is reset again
    and again."""
    settings = settings_for(cluster)
    each = [{"brokers": cluster.over}] * 2
    with Trial(
        54, "one node behind a bad line", seed, settings, bundles, folder, rate=200, allowed=AWAY, each=each
    ) as trial:
        line = cluster.line
        line.latency, line.bandwidth = (0.025, 0.15), trial.draw.uniform(200_000, 600_000)
        end, cut, resets = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            trial.pause(0.2, 3)
            cut += line.reset()
            resets += 1
        line.latency, narrow, line.bandwidth = (0.0, 0.0), line.bandwidth, 0.0
        trial.note = (
            f"50-300 ms there and back, {narrow / 1000:.0f} kB/s, {cut} connections cut by {resets} resets; {_ended(trial)}; "
            f"{_back(trial)}"
        )


def _leading(cluster: FailingCluster, settings: Settings, draw: random.Random, what: str) -> int:
    if what == "group":
        return cluster.coordinator(settings)
    topic = settings.changelog_topic if what == "changelog" else draw.choice(settings.sources)
    return cluster.leader(settings, topic, draw.randrange(settings.partitions))


def _acknowledged(trial: Trial) -> int:
    """Events that the producer has got acknowledged by now."""
    return sum(future is not None and future.succeeded() for *_, future in list(trial.traffic.sends))


def _reassign(cluster: FailingCluster, settings: Settings, draw: random.Random, count: int) -> None:
    """Give partitions of the sources and the changelog another order of copies, then the first of each as its leader; one of
    them with two copies only for a while, so that records are copied again."""
    partitions = [
        (topic, number)
        for topic in (*settings.sources, settings.changelog_topic)
        for number in range(settings.partitions)
    ]
    chosen = [TopicPartition(*partition) for partition in draw.sample(partitions, count)]
    with admin(settings) as client:
        fewer = {tp: draw.sample([1, 2, 3], 2) for tp in chosen}
        client.alter_partition_reassignments(fewer)
        until(lambda: not client.list_partition_reassignments(), 60, "the copies are two")
        client.alter_partition_reassignments({tp: [*few, *({1, 2, 3} - set(few))][::-1] for tp, few in fewer.items()})
        until(lambda: not client.list_partition_reassignments(), 60, "the copies are three again")
        client.elect_leaders(0, {tp.topic: [one.partition for one in chosen if one.topic == tp.topic] for tp in chosen})


def unclean_election(
    cluster: FailingCluster, bundles: Path, folder: Path, seed: int, *, what: str, running: bool
) -> None:
    """Fault 55: a topic has two copies, asks for one, and lets any copy lead. What was acknowledged while one node was down is
    lost when the other stops and the first comes back: its log is cut off, and has grown since or not. A running worker stops
    with 76 and names the partition, and so does whoever starts then, with the worker's states or without; nothing is taken in any
    more. The session is long: no node answers for the coordinator while two of three are down."""
    began, draw = time.monotonic(), random.Random(seed)
    settings = settings_for(cluster, partitions=2, session_timeout=120.0)
    topic = settings.changelog_topic if what == "changelog" else settings.sources[0]
    keeper, misser = _weaken(cluster, settings, topic, draw)
    lost, more = draw.randrange(20, 60), draw.choice((5, 150))
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    try:
        events.send_items()
        worker.wait_ready()
        _applied(worker, events, 60)
        cluster.node(misser).stop()
        _applied(worker, events, lost)
        if not running:
            assert worker.terminate() == 0
        cluster.node(keeper).stop()
        cluster.restart(misser)
        until(
            lambda: cluster.leader(settings, topic, 0) == misser == cluster.leader(settings, topic, 1), 60, "it leads"
        )
        events.close()
        events = Events(
            settings, seed=seed + 1
        )  # the cut log knows the numbers of the former producer's batches no longer
        for _ in range(more):
            events.put(*events.one(kind="click"))
        events.producer.flush()
        if not running:
            worker.start()
        assert worker.wait(90) == 76, worker.tail()
        says(worker, f"{topic} partition ")
        shown = len(slates(settings))
        cluster.restart(keeper)
        cluster.wait_in_sync(settings)
        for _ in range(2):
            assert worker.start().wait(90) == 76, worker.tail()
            says(worker, f"{topic} partition ")
            _forget(worker)
        assert len(slates(settings)) == shown, "something was taken in"
    finally:
        events.close()
        worker.close()
    how = "a running" if running else "a stopped"
    note = (
        f"{lost} events after which the {what} was cut off and {more} that followed, under {how} worker: 76, named, by it, by it "
        "again, and without its states; nothing taken in"
    )
    name = f"unclean election cuts the {what}, worker {'running' if running else 'stopped'}"
    record(Outcome(55, name, seed, events=60 + lost + more, seconds=round(time.monotonic() - began, 1), note=note))


def _weaken(cluster: FailingCluster, settings: Settings, topic: str, draw: random.Random) -> tuple[int, int]:
    """Give a topic two copies, one of which is enough, and let any copy lead -> the leader's node and the other's."""
    keeper, misser = draw.sample([1, 2, 3], 2)
    partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
    weak = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
    with admin(settings) as client:
        client.alter_partition_reassignments({tp: [keeper, misser] for tp in partitions})
        until(lambda: not client.list_partition_reassignments(), 60, "two copies")
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=weak)])
        if any(cluster.leader(settings, topic, tp.partition) != keeper for tp in partitions):
            client.elect_leaders(0, {topic: [tp.partition for tp in partitions]}, raise_errors=False)
    until(lambda: all(cluster.leader(settings, topic, tp.partition) == keeper for tp in partitions), 30, "its leader")
    cluster.wait_in_sync(settings)
    return keeper, misser


def _forget(worker: WorkerProcess) -> None:
    """Delete its states, and nothing else: by its place in the group it need not wait for its former session."""
    for path in worker.data_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _applied(worker: WorkerProcess, events: Events, count: int) -> None:
    """Send clicks, and wait until all that were sent are applied."""
    for _ in range(count):
        events.put(*events.one(kind="click"))
    events.producer.flush()
    worker.wait_applied(events.sent, 60)
    until(lambda: worker.metric("freshet_lag_records") == 0, 10, "committed")
