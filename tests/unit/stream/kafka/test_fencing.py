"""Two writers of one changelog partition, over a log in memory and real RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from stream.core.errors import FencedError, LossError, TopologyError
from stream.core.fencing_log import (
    CLAIM_KEY,
    NO_CLAIM,
    Claim,
    LeftOut,
    LogRecord,
    Written,
    decode,
    epoch_of,
    sift,
    stamp,
)
from stream.core.keys import FORMS, JSON, LONG, UTF8, key_of, user_of
from stream.kafka import fencing
from stream.kafka.fencing import ChangelogReader, Fence
from stream.kafka.producer import Outgoing
from stream.settings import Settings
from tests.stores import plain_store


class Log:
    """One partition. silent: the next acknowledgements come without an offset, as for a batch that arrived twice."""

    def __init__(self) -> None:
        self.records: list[Written] = []
        self.silent = 0

    async def send(self, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        ((place, records),) = lists.items()
        for record in records:
            self.records.append(Written(len(self.records), record.key, record.value, record.headers))
        if self.silent:
            self.silent -= 1
            return {place: -1}
        return {place: len(self.records) - 1}

    async def read(self, partition: int, first: int, last: int) -> list[LogRecord]:
        return list(self.records[first : last + 1])

    async def find(self, partition: int) -> Claim:
        return sift(self.records, NO_CLAIM).claim

    def states(self) -> dict[bytes, bytes | None]:
        return dict(sift(self.records, NO_CLAIM).states)

    def kept_by_compaction(self) -> dict[bytes | None, bytes | None]:
        return {record.key: record.value for record in self.records}


class Writer:
    def __init__(
        self, log: Log, folder: Path, topics: Mapping[str, str] | None = None, partitions: int = 2, key: str = UTF8
    ) -> None:
        self.log = log
        self.store = plain_store(folder, "log")
        self.store.prepare(0)
        self.left_out: list[LeftOut] = []
        self._fence(topics, partitions, key)

    @classmethod
    def over(cls, other: Writer, key: str) -> Writer:
        """A worker that is started over the folder of another, which has ended."""
        made = cls.__new__(cls)
        made.log, made.store, made.left_out = other.log, other.store, []
        made._fence(None, 2, key)
        return made

    def _fence(self, topics: Mapping[str, str] | None, partitions: int, key: str) -> None:
        batches: Any = self.log
        read, find = self.log.read, self.log.find
        self.fence = Fence(self.store, lambda: batches, read, find, topics or {}, partitions, self._count, key)

    def _count(self, found: LeftOut) -> None:
        self.left_out.append(found)

    @property
    def fenced(self) -> int:
        return sum(found.fenced for found in self.left_out)

    def take_over(self) -> None:
        asyncio.run(self.fence.take_over([0]))

    def write(self, **states: bytes) -> None:
        """A micro-batch: changelog, check, RocksDB."""
        self.write_keys({user.encode(): value for user, value in states.items()})

    def write_keys(self, states: Mapping[bytes, bytes]) -> None:
        async def batch() -> None:
            sent = [Outgoing(key, value, self.fence.stamp(0)) for key, value in states.items()]
            ends = await self.log.send({("log", 0): sent})
            settled = await self.fence.confirm({0: sent}, {0: ends["log", 0]})
            self.store.write(0, [(one.key, one.value) for one in sent if one.key and one.value], settled[0])

        asyncio.run(batch())


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


# The form of the users' keys


def keys_of(form: str, *users: str) -> list[bytes]:
    return [key_of(user, form) for user in users]


@pytest.mark.parametrize("partition", [0, 3])
@pytest.mark.parametrize(("before", "now"), [(UTF8, JSON), (UTF8, LONG), (JSON, UTF8), (LONG, JSON)])
def test_another_form_of_keys_is_refused(log: Log, tmp_path: Path, before: str, now: str, partition: int) -> None:
    """Also for a partition that has no claim yet: partition 0 has one."""
    Writer(log, tmp_path / "a", key=before).take_over()
    other = Writer(log, tmp_path / "b", key=now)
    other.store.prepare(partition)
    if partition == 0:
        other.store.apply(0, log.records)
    said = (
        rf'key: found "{now}", expected "{before}".*partition 0 of log.*FRESHET_KEY={before}.*another app_id and prefix'
    )
    with pytest.raises(TopologyError, match=said) as error:
        asyncio.run(other.fence.take_over([partition]))
    assert error.value.exit_code == 78
    assert len(log.records) == 1


def test_a_claim_that_does_not_say_the_form_is_of_plain_text(log: Log, tmp_path: Path) -> None:
    """Versions before the setting wrote no other."""
    value = b'{"epoch": 1, "worker": "%s", "time": 5, "topics": {}, "partitions": 2}' % (b"a" * 32)
    log.records.append(Written(0, CLAIM_KEY, value, stamp(1)))
    assert decode(value).key == UTF8
    other = Writer(log, tmp_path / "b", key=JSON)
    other.store.apply(0, log.records)
    with pytest.raises(TopologyError, match='found "json", expected "utf8"'):
        other.take_over()
    same = Writer(log, tmp_path / "c")
    same.store.apply(0, log.records)
    same.take_over()
    assert decode(log.records[-1].value).key == UTF8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", FORMS)
def test_a_folder_that_was_read_back_with_another_setting_holds_all_states(
    log: Log, tmp_path: Path, form: str, wrong: str
) -> None:
    """The setting is put right after the refusal, and no user is taken for a new one: also of those states that compaction has
    left before the first claim."""
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    ann, ben = keys_of(form, "100", "-2")
    writer.write_keys({ann: b"1"})
    writer.take_over()
    writer.write_keys({ben: b"2"})
    log.records[0] = Written(0, ann, b"0", stamp(1))  # as compaction leaves it: no claim comes before it
    other = Writer(log, tmp_path / "b", key=wrong)
    assert other.store.apply(0, log.records) == LeftOut()
    if wrong != form:
        with pytest.raises(TopologyError):
            other.take_over()
    again = Writer.over(other, key=form)
    again.take_over()
    assert again.store.read(0, [ann, ben]) == [b"1", b"2"]
    again.write_keys({ann: b"3"})


@pytest.mark.parametrize("form", FORMS)
def test_a_key_of_another_form_is_no_users_behind_a_claim(log: Log, tmp_path: Path, form: str) -> None:
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    strange = [key for key in ((1).to_bytes(8), b'"a\\/b"', b"\xffwriter2") if user_of(key, form) is None]
    log.records += [Written(len(log.records) + at, key, b"?", stamp(1)) for at, key in enumerate(strange)]
    (ann,) = keys_of(form, "7")
    writer.write_keys({ann: b"1"})
    assert sum(one.forged for one in writer.left_out) == len(strange)
    other = Writer(log, tmp_path / "b", key=form)
    assert other.store.apply(0, log.records) == LeftOut(0, len(strange))
    assert other.store.read(0, [ann, *strange]) == [b"1", *[None for _ in strange]]


@pytest.mark.parametrize("form", FORMS)
def test_a_state_over_which_somebody_has_written_is_written_again_in_any_form(
    log: Log, tmp_path: Path, form: str
) -> None:
    writer = Writer(log, tmp_path / "a", key=form)
    writer.take_over()
    ann, ben = keys_of(form, "7", "8")
    writer.write_keys({ann: b"1"})
    log.records.append(Written(len(log.records), ann, b"stale", stamp(1)))
    writer.write_keys({ben: b"2"})
    assert log.kept_by_compaction()[ann] == b"1"
    log.records.append(Written(len(log.records), ann, b"stale", stamp(1)))
    other = Writer(log, tmp_path / "b", key=form)
    other.take_over()
    assert (other.store.read(0, [ann]), log.kept_by_compaction()[ann]) == ([b"1"], b"1")


def test_a_claim_of_a_form_that_this_version_does_not_know_is_refused_and_loses_no_state(
    log: Log, tmp_path: Path
) -> None:
    value = b'{"epoch": 1, "worker": "%s", "time": 5, "key": "uuid"}' % (b"a" * 32)
    log.records += [Written(0, CLAIM_KEY, value, stamp(1)), Written(1, bytes(8), b"1", stamp(1))]
    other = Writer(log, tmp_path / "a")
    other.store.apply(0, log.records)
    assert other.store.read(0, [bytes(8)]) == [b"1"]
    with pytest.raises(TopologyError, match='found "utf8", expected "uuid"'):
        other.take_over()


def test_the_last_of_many_states_stands_though_one_list_brings_them_all(log: Log, tmp_path: Path) -> None:
    writer = Writer(log, tmp_path / "a")
    writer.take_over()
    for value in (b"1", b"2"):
        writer.write(ann=value, ben=value)
    log.records.append(
        Written(len(log.records), b"ben", None, writer.fence.stamp(0))
    )  # no worker's: it deletes nothing
    log.records.append(Written(len(log.records), b"cid", b"3", writer.fence.stamp(0)))
    other = Writer(log, tmp_path / "b")
    assert other.store.apply(0, log.records) == LeftOut(1, 0)
    assert other.store.read(0, [b"ann", b"ben", b"cid"]) == [b"2", b"2", b"3"]
    assert other.store.offset(0) == len(log.records) - 1


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
    log.records.append(Written(len(log.records), b"ann", None, stamp(2)))  # no worker's: compaction would delete her
    before = len(log.records)
    new.take_over()
    assert [record.key for record in log.records[before:]] == [CLAIM_KEY, b"ann"]
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

    def state_value(self, place: TopicPartition) -> Any:
        return SimpleNamespace(position=self.at, has_valid_position=True, lso=2 if self.left else 5, highwater=5)

    async def getmany(self, timeout_ms: int) -> Any:
        assert self.reader is not None
        self.seen.append(self.reader.held)
        if self.at == 2 and self.left:
            self.left -= 1
            return {}
        first, self.at = self.at, 2 if self.at < 2 else 5
        return {TopicPartition("log", 0): [Written(at, b"ann", b"", []) for at in range(first, self.at)]}

    async def position(self, place: TopicPartition) -> int:
        return self.at

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, places: Any) -> None: ...
    def seek(self, place: TopicPartition, offset: int) -> None: ...


def test_a_reader_says_which_open_transaction_holds_it_up_as_long_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = Held()
    monkeypatch.setattr(fencing, "AIOKafkaConsumer", lambda **arguments: consumer)
    reader = consumer.reader = ChangelogReader(Settings(), "log")
    found = asyncio.run(reader.read(0, 0, 4))
    assert [record.offset for record in found] == [0, 1, 2, 3, 4]
    held = "an open transaction of another producer on log/0 since offset 2 holds it up"
    assert consumer.seen == ["", "", held, held, ""]
    assert reader.held == ""
