"""Two writers of one changelog partition, over a log in memory and real RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream.core.errors import FencedError, LeaseError, LossError, TopologyError
from stream.core.fencing_log import CLAIM_KEY, LeftOut, Written, decode, epoch_of, stamp
from stream.kafka import changelog_reader, fencing
from stream.kafka.changelog_reader import ChangelogReader
from stream.kafka.producer import Outgoing
from stream.settings import Settings
from tests.unit.stream.kafka.changelogs import Log, Writer


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_takeover_costs_one_record(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1")
    assert [record.key for record in log.records] == [CLAIM_KEY, b"ann"]
    assert epoch_of(log.records[1].headers) == 1
    assert writer.store.offset(0) == 1


def test_partitions_that_are_given_up_are_not_ours_before_the_next_takeover(log: Log, tmp_path: Path) -> None:
    """Their folders close before that: whoever asks meanwhile must not read them."""
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    assert (writer.fence.partitions(), writer.fence.owns(0)) == ([0], True)
    writer.fence.revoked()
    assert (writer.fence.partitions(), writer.fence.owns(0)) == ([], False)
    writer.take_over()
    assert (writer.fence.partitions(), writer.fence.owns(0)) == ([0], True)


def test_a_takeover_during_which_the_partitions_are_given_up_claims_nothing(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    send = log.send

    async def meanwhile(lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        writer.fence.revoked()
        return await send(lists)

    log.send = meanwhile  # type: ignore[method-assign]
    with pytest.raises(LeaseError, match="given up while it was claimed"):
        writer.take_over()
    assert writer.fence.partitions() == []
    log.send = send  # type: ignore[method-assign]
    writer.take_over()
    assert writer.fence.partitions() == [0]


def test_a_takeover_reads_what_the_former_owner_wrote_until_the_claim(log: Log, tmp_path: Path) -> None:
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    old.write(ann=b"1")
    new.take_over()
    assert new.store.read(0, [b"ann"]) == [b"1"]


def test_a_former_owner_is_fenced_by_its_next_write_and_keeps_nothing(log: Log, tmp_path: Path) -> None:
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    new.take_over()
    new.write(ann=b"new")
    with pytest.raises(FencedError):
        old.write(ann=b"stale")
    assert old.store.read(0, [b"ann"]) == [None]
    assert log.states()[b"ann"] == b"new"


def test_the_owner_writes_again_what_a_stale_writer_wrote_over(log: Log, tmp_path: Path) -> None:
    """Else compaction would keep the stale record alone."""
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    new.take_over()
    new.write(ann=b"new", bob=b"bob")
    with pytest.raises(FencedError):
        old.write(ann=b"stale", cid=b"stale")
    new.write(bob=b"bob2")
    assert log.kept_by_compaction()[b"ann"] == b"new"
    assert log.kept_by_compaction()[b"bob"] == b"bob2"
    assert new.fenced == 2
    before = len(log.records)
    new.write(bob=b"bob3")
    assert len(log.records) == before + 1, "all is settled"


def test_the_newest_state_is_written_again_where_the_stale_record_follows_it(log: Log, tmp_path: Path) -> None:
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    new.take_over()
    new.write(ann=b"1")

    async def race() -> None:
        sent = [Outgoing(b"ann", b"2", new.fence.stamp(0))]
        ends = await log.send({("log", 0): sent})
        await log.send({("log", 0): [Outgoing(b"ann", b"stale", old.fence.stamp(0))]})
        await new.fence.confirm({0: sent}, {0: ends["log", 0]})
        more = [Outgoing(b"bob", b"1", new.fence.stamp(0))]
        new.store.write(0, [(b"ann", b"2")], ends["log", 0])
        ends = await log.send({("log", 0): more})
        await new.fence.confirm({0: more}, {0: ends["log", 0]})

    asyncio.run(race())
    assert log.kept_by_compaction()[b"ann"] == b"2"


def test_a_silent_acknowledgement_is_found_out(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    log.silent = 1
    writer.take_over()
    log.silent = 2
    writer.write(ann=b"1")
    writer.write(ann=b"2")
    assert log.states()[b"ann"] == b"2"
    assert writer.fenced == 0
    assert writer.store.offset(0) == len(log.records) - 1


def test_a_third_owner_reads_the_same_states(log: Log, tmp_path: Path) -> None:
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    old.write(ann=b"1")
    new.take_over()
    new.write(ann=b"2")
    with pytest.raises(FencedError):
        old.write(ann=b"stale")
    third = Writer(log, tmp_path / "c")
    third.take_over()
    assert third.store.read(0, [b"ann"]) == [b"2"]
    assert decode(log.records[-2].value).epoch == 3, "and then what was written over"
    assert log.records[-1][1:3] == (b"ann", b"2")


def test_a_topic_recreated_is_refused(log: Log, tmp_path: Path) -> None:
    Writer(log, tmp_path / "a", {"clicks": "id-1"}).take_over()
    other = Writer(log, tmp_path / "b", {"clicks": "id-2"})
    other.store.apply(0, log.records)
    with pytest.raises(LossError, match="clicks was recreated"):
        other.take_over()


def test_another_number_of_partitions_is_refused(log: Log, tmp_path: Path) -> None:
    Writer(log, tmp_path / "a", partitions=2).take_over()
    other = Writer(log, tmp_path / "b", partitions=4)
    other.store.apply(0, log.records)
    with pytest.raises(TopologyError, match="have 4 partitions, and had 2"):
        other.take_over()
    new = Writer(log, tmp_path / "c", partitions=4)
    new.store.prepare(3)
    with pytest.raises(TopologyError, match="have 4 partitions, and had 2"):
        asyncio.run(new.fence.take_over([3]))  # of a new partition nothing is known but by the claim of partition 0
    assert len(log.records) == 1


@pytest.mark.parametrize("partition", [0, 3])
def test_states_of_topics_of_other_names_are_another_deployments(log: Log, tmp_path: Path, partition: int) -> None:
    """Also for a partition that has no claim yet: partition 0 has one."""
    Writer(log, tmp_path / "a", {"clicks": "id-1", "ratings": "id-2"}).take_over()
    other = Writer(log, tmp_path / "b", {"shop-clicks": "id-3", "ratings": "id-2"})
    other.store.prepare(partition)
    if partition == 0:
        other.store.apply(0, log.records)
    with pytest.raises(
        TopologyError, match=r"states of the topics clicks, ratings, and.* are ratings, shop-clicks: another"
    ):
        asyncio.run(other.fence.take_over([partition]))
    assert len(log.records) == 1


@pytest.mark.parametrize(("before", "now"), [({}, {"clicks": "id"}), ({"clicks": "id"}, {})])
def test_claims_and_brokers_that_name_no_topics_refuse_nobody(
    log: Log, tmp_path: Path, before: dict[str, str], now: dict[str, str]
) -> None:
    Writer(log, tmp_path / "a", before).take_over()
    other = Writer(log, tmp_path / "b", now)
    other.store.apply(0, log.records)
    other.take_over()
    assert len(log.records) == 2


def test_the_last_of_many_states_stands_though_one_list_brings_them_all(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    for value in (b"1", b"2"):
        writer.write(ann=value, ben=value)
    log.records.append(Written(len(log.records), b"ben", None, []))  # no worker's: it deletes nothing
    log.records.append(Written(len(log.records), b"cid", b"3", writer.fence.stamp(0)))
    other = Writer(log, tmp_path / "b")
    assert other.store.apply(0, log.records) == LeftOut(1, 0)
    assert other.store.read(0, [b"ann", b"ben", b"cid"]) == [b"2", b"2", b"3"]
    assert other.store.offset(0) == len(log.records) - 1


def test_the_owners_tombstone_deletes_a_state_for_every_reader(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1", ben=b"1")
    log.records.append(Written(len(log.records), b"ben", None, writer.fence.stamp(0)))
    other = Writer(log, tmp_path / "b")
    assert other.store.apply(0, log.records) == LeftOut(0, 0)
    assert other.store.read(0, [b"ann", b"ben"]) == [b"1", None]


def test_a_log_that_was_cut_off_below_our_last_record_is_refused(log: Log, tmp_path: Path) -> None:
    """By the owner at its next write, before RocksDB has it, and by a takeover with a folder that is ahead of the log."""
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    writer.write(ann=b"1", ben=b"1")
    assert writer.fence.written(0) == 2
    del log.records[1:]
    with pytest.raises(LossError, match=r"log partition 0: the log ends at 2, and states were written up to 2"):
        writer.write(ann=b"2")
    assert writer.store.read(0, [b"ann"]) == [b"1"]
    del log.records[1:]
    with pytest.raises(LossError, match="states were written up to 2"):
        writer.take_over()


def test_a_takeover_writes_again_what_a_stale_writer_wrote_over(log: Log, tmp_path: Path) -> None:
    """The owner of that time may have ended before it wrote there again; compaction would keep the stale record alone, and
    of the claims the last: a worker without a folder would take the stale state for the right one."""
    old, new = Writer(log, tmp_path / "a"), Writer(log, tmp_path / "b")
    old.take_over()
    new.take_over()
    new.write(ann=b"new")
    with pytest.raises(FencedError):
        old.write(ann=b"stale")
    third = Writer(log, tmp_path / "c")
    third.take_over()
    third.write(bob=b"bob")
    assert log.kept_by_compaction()[b"ann"] == b"new"
    kept = {record.key: record for record in log.records}
    log.records[:] = sorted(kept.values())
    assert log.states()[b"ann"] == b"new"


def stale_over(log: Log, folder: Path, *users: str) -> Writer:
    """The users have states of epoch 2, and over each lies one of epoch 1 -> the owner, whose folder ends before those."""
    old, new = Writer(log, folder / "old"), Writer(log, folder / "new")
    old.take_over()
    new.take_over()
    new.write(**{user: user.encode() for user in users})
    with pytest.raises(FencedError):
        old.write(**dict.fromkeys(users, b"stale"))
    return new


def test_what_a_recovery_found_written_over_outlives_a_restart_before_the_takeover(log: Log, tmp_path: Path) -> None:
    """From the folder's offset, and from the log's start: the next start reads none of it again."""
    new = stale_over(log, tmp_path, "ann")
    empty = Writer(log, tmp_path / "empty")
    for writer in (new, empty):
        last = writer.store.offset(0)
        writer.store.apply(0, log.records[last + 1 :])
        assert writer.store.exposed(0, 9) == [b"ann"]
        assert writer.store.offset(0) == len(log.records) - 1
        before = len(log.records)
        writer.take_over()
        assert [record.key for record in log.records[before:]] == [CLAIM_KEY, b"ann"]
        assert log.kept_by_compaction()[b"ann"] == b"ann"
        assert (writer.store.exposed(0, 9), writer.store.offset(0)) == ([], len(log.records) - 1)
        before = len(log.records)
        writer.take_over()
        assert [record.key for record in log.records[before:]] == [CLAIM_KEY], "all is settled"
        log.records.append(Written(len(log.records), b"ann", b"stale", stamp(1)))


def test_the_owner_forgets_nothing_where_it_ends_before_it_wrote_again(log: Log, tmp_path: Path) -> None:
    """Its folder begins behind its own claim: it must have what lay before that, its own states too."""
    new = stale_over(log, tmp_path, "ann")
    send, sent = log.send, 0

    async def killed(lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        nonlocal sent
        sent += 1
        if sent == 3:  # a micro-batch, a claim
            raise KeyboardInterrupt
        return await send(lists)

    log.send = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        new.write(bob=b"bob")
    log.send = send  # type: ignore[method-assign]
    assert new.store.read(0, [b"ann", b"bob"]) == [b"ann", b"bob"]
    new.take_over()
    assert log.kept_by_compaction()[b"ann"] == b"ann"
    assert log.states() == {b"ann": b"ann", b"bob": b"bob"}
    other = Writer(log, tmp_path / "other")
    other.take_over()
    assert other.store.read(0, [b"ann", b"bob"]) == [b"ann", b"bob"]
    assert other.store.exposed(0, 9) == []


def test_a_takeover_writes_nothing_again_where_the_owner_has(log: Log, tmp_path: Path) -> None:
    """Within one list of records, and in a later one."""
    new = stale_over(log, tmp_path, "ann", "bob")
    new.write(cid=b"cid")
    at_once, by_one = Writer(log, tmp_path / "once"), Writer(log, tmp_path / "one")
    for record in log.records:
        by_one.store.apply(0, [record])
    before = len(log.records)
    at_once.take_over()
    by_one.store.apply(0, log.records[before:])
    by_one.take_over()
    assert {record.key for record in log.records[before:]} == {CLAIM_KEY}


def test_a_takeover_gives_nobody_a_state_who_has_none(log: Log, tmp_path: Path) -> None:
    new = stale_over(log, tmp_path, "ann")
    log.records.append(Written(len(log.records), b"eve", b"?", stamp(1)))
    log.records.append(Written(len(log.records), b"ann", None, []))  # no worker's: compaction would delete her
    before = len(log.records)
    new.take_over()
    written = [(record.key, record.value) for record in log.records[before:]]
    assert written[0][0] == CLAIM_KEY
    assert dict(written[1:]) == {
        b"ann": b"ann",
        b"eve": None,
    }  # hers is deleted, so that compaction keeps nothing of her
    assert new.store.exposed(0, 9) == []
    assert new.store.read(0, [b"eve"]) == [None]


def test_a_takeover_writes_many_again_in_chunks(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fencing, "CHUNK", 3)
    users = [f"user{number}" for number in range(8)]
    stale_over(log, tmp_path, *users)
    third = Writer(log, tmp_path / "third")
    third.take_over()
    kept = log.kept_by_compaction()
    assert [kept[user.encode()] for user in users] == [user.encode() for user in users]
    assert third.store.exposed(0, 9) == []
    assert [record.states for record in caplog.records if "written again" in record.message] == [8]  # type: ignore[attr-defined]


def test_whoever_is_claimed_away_while_it_writes_again_ends(log: Log, tmp_path: Path) -> None:
    new = stale_over(log, tmp_path, "ann")
    send = log.send

    async def overtaken(lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        ((_, records),) = lists.items()
        if records[0].key == b"ann":
            log.send = send  # type: ignore[method-assign]
            await Writer(log, tmp_path / "next").fence.take_over([0])
        return await send(lists)

    log.send = overtaken  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        new.take_over()
    assert new.store.exposed(0, 9) == [b"ann"], "the next start looks again"


class Held:
    """aiokafka's consumer of a log in which an open transaction begins at 2, for the first three fetches behind that."""

    def __init__(self) -> None:
        self.at = 0
        self.left = 3
        self.seen: list[str] = []
        self.reader: ChangelogReader | None = None
        self._subscription = self.subscription = self.assignment = self
        self.tps = {TopicPartition("log", 0)}

    def state_value(self, tp: TopicPartition) -> Any:
        return SimpleNamespace(position=self.at, has_valid_position=True, lso=2 if self.left else 5, highwater=5)

    async def getmany(self, timeout_ms: int) -> Any:
        assert self.reader is not None
        self.seen.append(self.reader.held)
        if self.at == 2 and self.left:
            self.left -= 1
            return {}
        first, self.at = self.at, 2 if self.at < 2 else 5
        return {TopicPartition("log", 0): [Written(at, b"ann", b"", []) for at in range(first, self.at)]}

    async def position(self, tp: TopicPartition) -> int:
        return self.at

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, tps: Any) -> None: ...
    def seek(self, tp: TopicPartition, offset: int) -> None: ...


def test_a_reader_says_which_open_transaction_holds_it_up_as_long_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Held()
    monkeypatch.setattr(changelog_reader, "groupless_consumer", lambda *of, **arguments: consumer)
    reader = consumer.reader = ChangelogReader(Settings(), "log")
    found = asyncio.run(reader.read(0, 0, 4))
    assert [record.offset for record in found] == [0, 1, 2, 3, 4]
    held = "an open transaction of another producer on log/0 since offset 2 holds it up"
    assert consumer.seen == ["", "", held, held, ""]
    assert reader.held == ""
