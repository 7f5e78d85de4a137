"""The private names of Faust, mode and aiokafka: all there, checked at start, and used in two places only."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, KafkaTimeoutError, LeaderNotAvailableError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from deploy.clients.arguments import client_arguments
from stream.core.errors import BrokerError, FreshetError, LeaseError, LossError, SettingsError
from stream.kafka import private_api
from stream.kafka.batch import MicroBatch
from stream.kafka.consumer import SourceConsumer
from stream.kafka.lease import Lease
from stream.kafka.private_api import check_private_names
from stream.kafka.truncation import Beside, decode, encode
from tests.conftest import ROOT

ALLOWED = ("stream/kafka/", "stream/process/supervision.py")


def test_everything_relied_on_is_there() -> None:
    assert private_api.missing_names() == []
    check_private_names()


def test_each_listed_name_is_missed_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in private_api.METHODS:
        with monkeypatch.context() as patch:
            for base in owner.__mro__[:-1]:
                if name in vars(base):
                    patch.delattr(base, name)
            assert private_api.missing_names(), f"{owner.__name__}.{name} is listed and not checked"


def test_a_missing_name_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(driver.AIOKafkaConsumerThread, "_fetch_records")
    with pytest.raises(SettingsError, match="_fetch_records"):
        check_private_names()


def test_an_untested_version_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private_api.PINNED, "aiokafka", "0.1")
    with pytest.raises(SettingsError, match="aiokafka"):
        check_private_names()


def test_private_names_are_used_in_stream_kafka_and_supervision_only() -> None:
    private = {name for _, name in (*private_api.METHODS, *private_api.ATTRIBUTES) if name.startswith("_")}
    private |= {text.removeprefix("self.") for texts in private_api._SOURCES.values() for text in texts}
    outside = [
        f"{path}:{node.lineno} .{node.attr}"
        for room in ("stream", "deploy", "models", "export")
        for path in sorted((ROOT / room).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(ALLOWED)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in private
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert outside == []


def test_every_private_name_in_use_is_listed() -> None:
    listed = {name for _, name in (*private_api.METHODS, *private_api.ATTRIBUTES)}
    listed |= {
        text.removeprefix("self.").removesuffix(" = ") for texts in private_api._SOURCES.values() for text in texts
    }
    own = {
        node.attr
        for path in sorted((ROOT / "stream/kafka").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        # self._x may be ours or inherited; what is read from another object is never ours
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert own - listed == set()


def test_the_lease_runs_out_at_three_quarters_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("stream.kafka.lease.steady", lambda: now)
    lease = Lease(10.0)
    lease.check()  # nothing assigned: nothing to guard
    lease.grant()
    now = 107.0
    lease.check()
    now = 108.0
    with pytest.raises(LeaseError):
        lease.check()
    lease.release()
    lease.check()


def test_sasl_ssl_reaches_every_client(tmp_path: Path) -> None:
    from stream.kafka.app import credentials
    from stream.kafka.clients import consumer_arguments
    from stream.settings import load

    settings = load(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="ann", sasl_password="s3cret"
    )
    faust = credentials(settings)
    assert (faust.protocol.value, faust.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (faust.username, faust.password) == ("ann", "s3cret")
    assert faust.ssl_context.check_hostname
    tools = client_arguments(settings)
    assert (tools["security_protocol"], tools["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (tools["sasl_plain_username"], tools["sasl_plain_password"]) == ("ann", "s3cret")
    items = consumer_arguments(settings)
    assert (items["security_protocol"], items["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (items["sasl_plain_username"], items["sasl_plain_password"]) == ("ann", "s3cret")
    assert items["ssl_context"].check_hostname
    assert "s3cret" not in repr(settings) + str(faust)
    assert credentials(load()) is None


def test_ssl_without_sasl() -> None:
    from stream.kafka.app import credentials
    from stream.settings import load

    assert credentials(load(security_protocol="SSL")).protocol.value == "SSL"


def test_the_last_commit_is_not_one_that_began_before_the_last_micro_batch_ended() -> None:
    """Faust's `commit` joins the commit under way: at a stop or a rebalance that would leave the newest offsets out."""

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        consumer.app = SimpleNamespace(client_only=False)
        consumer._commit_fut = None
        consumer.loop = asyncio.get_running_loop()
        finished, committed = [1], []
        answer = asyncio.Event()

        async def force_commit(topics: Any, start_new_transaction: bool = True) -> bool:
            offset = finished[-1]
            await answer.wait()
            committed.append(offset)
            return True

        consumer.force_commit = force_commit
        under_way = asyncio.ensure_future(consumer.commit())
        await asyncio.sleep(0)
        finished.append(2)
        last = asyncio.ensure_future(consumer.commit_finished())
        await asyncio.sleep(0)
        answer.set()
        await asyncio.gather(under_way, last)
        assert committed == [1, 2]

    asyncio.run(check())


def test_a_micro_batch_that_lingers_is_sent_when_fetching_pauses() -> None:
    """Else nothing would call the pipeline any more: `wake` relies on the micro-batch that is on its way."""

    async def check() -> None:
        sent: list[MicroBatch] = []

        async def put(batch: MicroBatch) -> None:
            sent.append(batch)

        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        vars(consumer).update(
            app=SimpleNamespace(micro_batches=SimpleNamespace(put=put)),
            epoch=1, _max=500, _changed=asyncio.Event(), _safe={}, _running=None, _assigning=False,
            _pending=MicroBatch(1), _next={TP("clicks", 0): 0}, _get_active_partitions=lambda: {TP("clicks", 0)},
        )  # fmt: skip
        lingering = consumer._pending
        consumer.finish({}, hold={TP("clicks", 0)})
        consumer.wake()
        assert not sent
        await consumer._fetch_once()
        assert sent == [lingering]
        assert lingering.sent

    asyncio.run(check())


def test_a_rebalance_waits_for_what_is_held_back() -> None:
    """A micro-batch that was handed over is finished, then the rest of the time is the pipeline's; a lingering one is let go."""

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        batch = MicroBatch(1)
        batch.sent = True
        sent: list[MicroBatch] = []

        async def put(batch: MicroBatch) -> None:
            sent.append(batch)

        vars(consumer).update(
            app=SimpleNamespace(micro_batches=SimpleNamespace(put=put)),
            epoch=1, _changed=asyncio.Event(), _safe={}, _running=None, _assigning=False, _pending=batch,
        )  # fmt: skip
        consumer._guard = lambda: None
        steps: list[str] = []

        async def drained(seconds: float) -> bool:
            assert 0 < seconds < 5
            steps.append("drained")
            return True

        async def work() -> None:
            await asyncio.sleep(0)
            assert consumer.take(batch)
            await asyncio.sleep(0)
            steps.append("finished")
            consumer.finish({}, hold=set())

        consumer.drained = drained
        await asyncio.gather(consumer.settle(5), work())
        assert steps == ["finished", "drained"]
        lingering = consumer._pending = MicroBatch(1)
        await consumer.settle(5)
        await asyncio.sleep(0)
        assert sent  # an empty one, which calls the pipeline
        assert lingering not in sent

    asyncio.run(check())


def test_nothing_is_begun_in_a_rebalance_while_the_worker_stops() -> None:
    """Whatever asks the consumer's thread then may wait for ever, and the stop with it."""

    def asked(partition: int) -> int:
        raise AssertionError("a partition is opened")

    consumer: Any = SourceConsumer.__new__(SourceConsumer)
    consumer.prepare = asked
    consumer.hold()
    consumer.app = SimpleNamespace()  # without a lease that could be granted
    asyncio.run(consumer.on_partitions_assigned({TP("x-changelog", 0)}))


def test_nothing_is_fetched_before_the_takeover_of_this_very_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust may call the recovery of a former assignment complete: its claims are cleared under the micro-batch."""

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        app = SimpleNamespace(tables=SimpleNamespace(actives_ready=True), rebalancing=False, should_stop=False)
        vars(consumer).update(
            app=app, sources=frozenset(), assignment=set, on_revoked=lambda: None, epoch=1, flow_active=True, _drainer=None,
            _changed=asyncio.Event(), _claimed=-1, _stopping=False, _fetch=None, _running=None, _pending=None, _next={},
            _handed={}, _safe={},
        )  # fmt: skip
        calls: list[set[int]] = []

        async def overtaken(partitions: set[int]) -> None:
            calls.append(partitions)
            await consumer.quiesce()

        async def in_peace(partitions: set[int]) -> None:
            calls.append(partitions)

        assert not consumer._open()
        consumer.take_over = overtaken
        await consumer.perform_seek()
        assert not consumer._open()
        consumer.take_over = in_peace
        await consumer.perform_seek()
        assert consumer._open()
        await consumer.quiesce()
        assert not consumer._open()
        assert len(calls) == 2

    async def sought(consumer: Any) -> None:
        pass

    async def nothing_lost(consumer: Any, tps: Any) -> dict[TP, int]:
        return {}

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr(SourceConsumer, "_begin", nothing_lost)
    monkeypatch.setattr(SourceConsumer, "_refuse_empty", nothing_lost)
    monkeypatch.setattr(SourceConsumer, "should_stop", False)
    asyncio.run(check())


@pytest.mark.parametrize("rebalanced", [False, True])
def test_where_a_partition_begins_is_committed_before_it_is_claimed(
    monkeypatch: pytest.MonkeyPatch, rebalanced: bool
) -> None:
    """A claim without a commit says that the commit has expired: no crash may leave one. And no commit, no claim."""
    fresh, known = TP("clicks", 0), TP("ratings", 0)
    steps: list[Any] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset.update({fresh: None, known: 9})

    async def commit(offsets: Any) -> None:
        steps.append({TP(*place): one.offset for place, one in offsets.items()})
        if rebalanced:
            raise CommitFailedError

    async def claim(partitions: set[int]) -> None:
        steps.append(partitions)

    async def ends(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 9)

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)

        async def seek(offsets: dict[TP, int]) -> None:
            pass

        vars(consumer).update(
            app=SimpleNamespace(), sources=frozenset({"clicks", "ratings"}), assignment=lambda: {fresh, known}, epoch=1,
            _drainer=None, _stopping=False, _claimed=-1, _next={}, _handed={}, _safe={}, _read_offset={},
            _committed_offset={}, claimed=lambda partition: False, take_over=claim, seek_wait=seek, _asked_ends=ends,
            _asked_beginnings=lambda *tps: ends(*tps),
        )  # fmt: skip
        aiokafka = SimpleNamespace(_client=None, commit=commit)
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert steps == ([{fresh: 9}] if rebalanced else [{fresh: 9}, {0}])
        assert consumer._claimed == (-1 if rebalanced else 1)

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    asyncio.run(check())


@pytest.mark.parametrize("overtaken", [True, False])
def test_what_a_takeover_finds_that_a_rebalance_has_overtaken_ends_no_worker(
    overtaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partitions are closed by then: reading their claims says so."""
    ours = TP("clicks", 0)
    closed = FreshetError("partition 0 of the table is not open here: this is a bug")
    told: list[BaseException] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset[ours] = None

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)

        async def claim(partitions: set[int]) -> None:
            consumer.epoch += overtaken
            raise closed

        async def ends(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        async def commit(offsets: Any) -> None:
            pass

        async def seek(offsets: dict[TP, int]) -> None:
            pass

        vars(consumer).update(
            app=SimpleNamespace(), sources=frozenset({"clicks"}), assignment=lambda: {ours}, epoch=1, _drainer=None,
            _stopping=False, _claimed=-1, _next={}, _handed={}, _safe={}, _read_offset={}, _committed_offset={},
            claimed=lambda partition: False, take_over=claim, _asked_ends=ends, _asked_beginnings=ends, seek_wait=seek,
        )  # fmt: skip
        aiokafka = SimpleNamespace(_client=None, commit=commit)
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert consumer._claimed == -1

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", told.append)
    asyncio.run(check())
    assert told == ([] if overtaken else [closed])


@pytest.mark.parametrize(
    ("idle", "end", "lost"),
    [
        (Beside(40, written=600), 500, 101),  # the changelog was cut off at 500
        (Beside(40, written=600), 0, 1),  # it is empty
        (Beside(40, written=300, cut=30), 700, 10),  # the log of the source was, at 30
    ],
)
def test_a_cut_that_is_accepted_is_told_once(
    monkeypatch: pytest.MonkeyPatch, idle: Beside, end: int, lost: int
) -> None:
    """Also where nothing comes to a source any more, so that its offset stays: not at a rebalance, not once told otherwise."""
    place = TopicPartition("ratings", 0)
    group = {place: OffsetAndMetadata(40, encode(idle))}

    async def sought(consumer: Any) -> None:
        consumer._read_offset, consumer._committed_offset = {TP(*place): 40}, {TP(*place): 40}

    async def commit(offsets: Any) -> None:
        group.update(offsets)

    async def committed(places: Any) -> Any:
        return {one: group[one] for one in places}

    async def claim(partitions: set[int]) -> None:
        pass

    async def start(accept: bool, end: int) -> list[int]:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        counted: list[int] = []

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: end if tp.topic == "changelog" else 40 for tp in tps}

        async def starts(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        app = SimpleNamespace(
            changelog=lambda partition: TP("changelog", partition),
            settings=SimpleNamespace(accept_loss=accept, request_timeout=1),
        )
        vars(consumer).update(
            app=app, sources=frozenset({"ratings"}), assignment=lambda: {TP(*place)}, epoch=1, _drainer=None,
            _stopping=False, _next={}, _handed={}, _safe={}, take_over=claim, _asked_ends=ends, _asked_beginnings=starts,
            claimed=lambda partition: True,
            log=SimpleNamespace(error=lambda *said: None), on_accepted_loss=counted.append,
        )  # fmt: skip
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        return counted

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    with pytest.raises(LossError):
        asyncio.run(start(False, end))
    assert asyncio.run(start(True, end)) == [lost]
    assert asyncio.run(start(True, end + 1)) == []
    assert asyncio.run(start(False, end + 1)) == []
    assert group[place].offset == 40
    assert decode(group[place].metadata).written in (end - 1, 300)


@pytest.mark.parametrize("metadata", ["", "somebody", "[]", '{"read": 39}', '{"epoch": 3}', encode(Beside(39))])
def test_an_offset_that_no_worker_committed_is_refused_where_a_worker_has_begun(
    monkeypatch: pytest.MonkeyPatch, metadata: str
) -> None:
    """Moved forward while no worker ran: what lies before it would be in no state, and nothing would tell."""
    place = TP("ratings", 0)
    group = {TopicPartition(*place): OffsetAndMetadata(40, metadata)}
    steps: list[str] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset, consumer._committed_offset = {place: 40}, {place: 40}

    async def commit(offsets: Any) -> None:
        steps.append("commit")
        group.update(offsets)

    async def committed(places: Any) -> Any:
        return {one: group[one] for one in places}

    async def claim(partitions: set[int]) -> None:
        steps.append("claim")

    async def start(accept: bool, claimed: bool) -> list[int]:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        counted: list[int] = []

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: 500 if tp.topic == "changelog" else 90 for tp in tps}

        async def starts(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        app = SimpleNamespace(
            changelog=lambda partition: TP("changelog", partition), conf=SimpleNamespace(id="an-app"),
            settings=SimpleNamespace(accept_loss=accept, request_timeout=1),
        )  # fmt: skip
        vars(consumer).update(
            app=app, sources=frozenset({"ratings"}), assignment=lambda: {place}, epoch=1, _drainer=None,
            _stopping=False, _next={}, _handed={}, _safe={}, take_over=claim, _asked_ends=ends, _asked_beginnings=starts,
            log=SimpleNamespace(error=lambda *said: None), on_accepted_loss=counted.append,
            claimed=lambda partition: claimed and partition == 0,
        )  # fmt: skip
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert consumer._next == {place: 40}
        return counted

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    foreign = dict(group)
    said = "ratings partition 0: offset 40 of the group an-app was not committed by a worker.*delete-offsets.*--accept-loss"
    with pytest.raises(LossError, match=said):
        asyncio.run(start(False, claimed=True))
    assert steps == []
    # where no worker has begun, whoever committed has said where to; the first one to begin says so in its own words
    for accept, claimed, lost in ((True, True, [1]), (False, False, [])):
        group.update(foreign)
        steps.clear()
        assert asyncio.run(start(accept, claimed)) == lost
        assert steps == ["commit", "claim"]
        assert asyncio.run(start(False, claimed=True)) == [], "and is told once"


class Ended(BaseException):
    """What `fatal` raises here in place of ending the process."""


def leaderless(**more: Any) -> Any:
    """A consumer that is told of no end of a log: the changelog's partition 3 has no leader."""
    consumer: Any = SourceConsumer.__new__(SourceConsumer)
    cluster = SimpleNamespace(
        _last_successful_refresh_ms=0, leader_for_partition=lambda tp: -1 if tp.partition == 3 else 1
    )
    client = SimpleNamespace(_client=SimpleNamespace(cluster=cluster), _coordinator=None)

    async def unanswered(*tps: TP) -> dict[TP, int]:
        await asyncio.sleep(1)
        raise KafkaTimeoutError

    vars(consumer).update(
        epoch=1, sources=frozenset({"clicks"}), _stopping=False, _drainer=None, _thread=SimpleNamespace(_consumer=client),
        _asked_beginnings=unanswered, _asked_ends=unanswered, _limit=0.02, _assign_limit=0.01, log=logging.getLogger("c"),
        app=SimpleNamespace(
            settings=SimpleNamespace(partitions=4), lease=SimpleNamespace(grant=lambda: None), changelog=lambda n: TP("log", n)
        ),
        held_up=lambda: "",
    )  # fmt: skip
    vars(consumer).update(more)
    return consumer


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    errors: list[BaseException] = []

    def end(error: BaseException) -> None:
        errors.append(error)
        raise Ended

    monkeypatch.setattr("stream.kafka.consumer.fatal", end)
    return errors


def test_a_changelog_without_a_leader_is_named_before_the_lease_is_over(ended: list[BaseException]) -> None:
    with pytest.raises(Ended):
        asyncio.run(leaderless().on_partitions_assigned({TP("log", 2), TP("log", 3)}))
    assert [(type(one), str(one)) for one in ended] == [
        (
            BrokerError,
            "no answer for 0.01 s, so assigned partitions cannot begin: waits for a broker: log partition 3 has no leader",
        )
    ]


def test_a_takeover_that_an_open_transaction_holds_up_says_so(ended: list[BaseException]) -> None:
    held = "an open transaction of another producer on log/3 since offset 7 holds it up"
    with pytest.raises(Ended):
        asyncio.run(leaderless(held_up=lambda: held).on_partitions_assigned({TP("log", 2), TP("log", 3)}))
    assert [(type(one), str(one)) for one in ended] == [
        (FreshetError, f"assigned partitions could not begin for 0.01 s: {held}")
    ]


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError("log"), ValueError("a bug")])
def test_an_assignment_that_fails_ends_the_process_at_once(error: Exception, ended: list[BaseException]) -> None:
    """aiokafka would log it, and the worker wait for its partitions until stall_timeout."""

    async def refused(*tps: TP) -> dict[TP, int]:
        raise error

    async def settle(seconds: float) -> None:
        raise error

    consumer = leaderless(_asked_beginnings=refused)
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_assigned({TP("log", 3)}))
    consumer.settle, consumer._guard = settle, lambda: None
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_revoked(set()))
    assert ended == [error, error]


def test_what_can_be_asked_again_is_and_says_what_has_no_leader(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception | None] = [KafkaTimeoutError(), LeaderNotAvailableError(), None]

    async def beginnings(*tps: TP) -> dict[TP, int]:
        if error := answers.pop(0):
            raise error
        return dict.fromkeys(tps, 3)

    async def ends(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 7)

    consumer = leaderless(_asked_beginnings=beginnings, _asked_ends=ends, _pause=0.0)
    assert asyncio.run(consumer._logs([TP("log", 3)])) == {TP("log", 3): range(3, 7)}
    assert "log partition 3 has no leader" in caplog.text


def test_a_takeover_that_waits_ends_before_faust_loses_its_patience(
    ended: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sought(consumer: Any) -> None:
        pass

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    consumer = leaderless(_read_offset={TP("clicks", 3): 5}, assignment=lambda: {TP("clicks", 3)})
    for asked in (consumer.perform_seek, lambda: consumer.highwaters(TP("clicks", 3))):
        with pytest.raises(Ended):
            asyncio.run(asked())
    assert [type(one) for one in ended] == [BrokerError] * 2
    assert all("clicks partition 3 has no leader" in str(one) for one in ended)
