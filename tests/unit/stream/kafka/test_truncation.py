"""A log that is cut off under a reader: what tells, at a fetch and at a takeover. Batches as Kafka lays them out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    NodeNotReadyError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from kafka.record import default_records

from stream.kafka.leader_epochs import Epochs
from stream.kafka.truncation import CommitMetadata, Found, TruncationWatch, decode, encode

PLACE = TopicPartition("clicks", 0)


def batches(*made: tuple[int, int, int]) -> bytes:
    """(first offset, how many records, leader epoch) of each batch."""
    data = b""
    for first, count, epoch in made:
        builder = default_records.DefaultRecordBatchBuilder(
            magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
            batch_size=1 << 20,
        )  # fmt: skip
        for number in range(count):
            builder.append(number, timestamp=5, key=b"k", value=b"v", headers=[])
        one = bytearray(builder.build())
        one[:8], one[12:16] = first.to_bytes(8, "big"), epoch.to_bytes(4, "big")  # as the broker sets them
        data += bytes(one)
    return data


class Answer:
    def __init__(self, topics: Any) -> None:
        self.topics = topics


class Log:
    """The leader of one partition. ends: epoch -> where the log ends it, -1 where it is not known."""

    def __init__(self) -> None:
        self.data = b""
        self.code = 0
        self.ends: dict[int, int] = {}
        self.asked: list[int] = []

    async def send(self, node: int, request: Any) -> Answer:
        if isinstance(request, FetchRequest):
            return Answer([("clicks", [(0, self.code, 99, 99, 0, [], self.data)])])
        struct = request.build(_struct(request))
        ((_, ((_, _, epoch),)),) = struct.topics
        self.asked.append(epoch)
        return Answer([("clicks", [(0, 0, epoch, self.ends.get(epoch, -1))])])


def _struct(request: Any) -> Any:
    return type(request)._CLASSES[0]


class Reader:
    def __init__(self) -> None:
        self.log = Log()
        self.truncations: list[tuple[TopicPartition, int, int]] = []
        self.epochs = Epochs(self.log, frozenset({"clicks"}), self._cut)
        self.epochs.watch()

    async def _cut(self, tp: TopicPartition, end: int, read: int) -> None:
        self.truncations.append((tp, end, read))

    def fetch(self, position: int, *made: tuple[int, int, int]) -> None:
        self.log.data = batches(*made)
        request = FetchRequest(50, 1, 1 << 20, 1, [("clicks", [(0, position, 1 << 20)])], rack_id="")
        asyncio.run(self.log.send(0, request))


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_another_leader_that_has_all_that_was_read_is_asked_once(reader: Reader) -> None:
    reader.fetch(0, (0, 5, 3), (5, 5, 3))
    reader.log.ends[3] = 12
    reader.fetch(10, (10, 2, 3), (12, 3, 4))
    reader.fetch(15, (15, 3, 4))
    assert (reader.truncations, reader.log.asked) == ([], [])
    reader.log.ends[4] = 18
    reader.fetch(18, (18, 1, 7))
    reader.fetch(19, (19, 1, 7))
    assert (reader.truncations, reader.log.asked) == ([], [4])
    assert reader.epochs.reached(PLACE) == 19
    assert [reader.epochs.before(PLACE, offset) for offset in (0, 1, 12, 13, 18, 19)] == [-1, 3, 3, 4, 4, 7]


def test_a_log_that_was_cut_off_and_has_grown_beyond_is_told_by_its_epoch(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 6
    reader.fetch(10, (8, 5, 4))  # other records at 6 to 9, and a batch that reaches over where we are
    assert reader.truncations == [(PLACE, 6, 10)]


def test_a_log_that_ends_below_what_was_read_is_told_before_the_fetcher_begins_elsewhere(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 6
    reader.log.code = OffsetOutOfRangeError.errno
    reader.fetch(10)
    assert reader.truncations == [(PLACE, 6, 10)]


def test_a_log_cut_off_where_we_are_has_lost_nothing_that_was_read(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 10
    reader.fetch(10, (10, 1, 4))
    assert (reader.truncations, reader.log.asked) == ([], [3])


def test_a_broker_that_does_not_know_the_epoch_proves_nothing(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.fetch(10, (10, 1, 4))
    assert reader.truncations == []


def test_what_is_read_again_from_further_back_keeps_its_epochs(reader: Reader) -> None:
    reader.fetch(5, (5, 5, 3), (10, 5, 4))
    reader.fetch(2, (2, 3, 3), (5, 5, 3), (10, 5, 4))
    assert [reader.epochs.before(PLACE, offset) for offset in (3, 10, 11)] == [3, 3, 4]


def test_errors_empty_answers_and_older_formats_are_left_to_the_fetcher(reader: Reader) -> None:
    reader.fetch(0)
    reader.log.code = UnknownTopicOrPartitionError.errno
    reader.fetch(0, (0, 3, 1))
    reader.log.code = 0
    reader.fetch(0, (0, 3, 1))
    old = bytearray(batches((3, 1, 2)))
    old[16] = 1
    reader.log.data = bytes(old)
    asyncio.run(reader.log.send(0, FetchRequest(50, 1, 1 << 20, 1, [("clicks", [(0, 3, 1 << 20)])], rack_id="")))
    assert [reader.epochs.before(PLACE, offset) for offset in (3, 4)] == [1, 1]
    assert reader.log.asked == []


def test_what_is_committed_beside_an_offset_is_read_again_and_strangers_say_nothing() -> None:
    for noted in (CommitMetadata(), CommitMetadata(9, 3, 17), CommitMetadata(9, cut=5)):
        assert decode(encode(noted)) == noted
    for strange in ("", "owner", "[]", '{"epoch": "x"}', "1"):
        assert decode(strange) == CommitMetadata()


@pytest.mark.parametrize(
    ("found", "cut"),
    [
        (Found(10, CommitMetadata(10, 3), 12), -1),
        (Found(10, CommitMetadata(10, 3), 10), -1),
        (Found(10, CommitMetadata(10, 3), 9), 9),
        (Found(10, CommitMetadata(14, 3), 12), 12),  # states may hold what was read beyond the offset
        (Found(10, CommitMetadata(14, 3), 14), -1),
        (Found(10, CommitMetadata(10, 3), -1), -1),  # the broker cannot say
        (Found(10, CommitMetadata(), -1), -1),
        (Found(10, CommitMetadata(cut=4), -1), 4),  # a worker has seen it
    ],
)
def test_an_offset_stands_for_records_that_the_log_has(found: Found, cut: int) -> None:
    assert found.cut() == cut


def test_what_is_fetched_while_a_takeover_asks_stays_known() -> None:
    """The fetcher goes on from the committed offset while the group is asked what was committed beside it."""
    reader = Reader()
    reader.log.ends = {1: 5, 2: 9}
    reader.fetch(5, (5, 4, 2))
    reader.epochs.keep_from(PLACE, 5)
    reader.epochs.note_committed(PLACE, 4, 1)
    reader.fetch(9, (9, 3, 2))
    assert not reader.truncations
    assert reader.epochs.before(PLACE, 5) == 1
    assert reader.epochs.before(PLACE, 9) == 2


class Cluster:
    """A consumer, and the leaders that it asks at a takeover. leaders: place -> node; errors: codes that a place answers with,
    once each; away: nodes whose next request is lost. asked: (node, its places) of each request."""

    def __init__(self, leaders: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        self.leaders, self.ends = leaders, ends
        self.errors: dict[TopicPartition, list[int]] = {}
        self.away: list[int] = []
        self.asked: list[tuple[int, set[TopicPartition]]] = []
        self.refreshed = 0
        self.moved: dict[TopicPartition, int] = {}  # leaders as the next metadata say
        self._client = self._coordinator = self.cluster = self
        self.committed = {tp: OffsetAndMetadata(10, encode(CommitMetadata(12, 3, 7))) for tp in leaders}
        self.truncations = TruncationWatch(
            self, frozenset(tp.topic for tp in leaders), lambda partition: -1, lambda error, records: None
        )

    def commit(self, offsets: Any) -> None:
        raise AssertionError(f"a takeover commits nothing: {offsets}")

    async def fetch_committed_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        return {tp: self.committed[tp] for tp in tps}

    def leader_for_partition(self, tp: TopicPartition) -> int | None:
        return self.leaders[tp]

    async def force_metadata_update(self) -> None:
        self.refreshed += 1
        self.leaders |= self.moved

    async def send(self, node: int, request: Any) -> Answer:
        struct = request.build(_struct(request))
        struct.encode()  # as it goes over the wire
        tps = {TopicPartition(topic, one[0]): one[2] for topic, partitions in struct.topics for one in partitions}
        assert set(tps.values()) == {3}
        self.asked.append((node, set(tps)))
        if node in self.away:
            self.away.remove(node)
            raise NodeNotReadyError(node)
        topics: dict[str, list[Any]] = {}
        for tp in reversed(tps):  # in no order of ours
            code = self.errors[tp].pop() if self.errors.get(tp) else 0
            topics.setdefault(tp.topic, []).append((code, tp.partition, 3, -1 if code else self.ends[tp]))
        return Answer(list(topics.items()))

    def take_over(self) -> dict[TopicPartition, Found]:
        return asyncio.run(self.truncations.take_over(list(self.leaders)))


PLACES = [TopicPartition(topic, partition) for topic in ("clicks", "ratings", "comments") for partition in range(40)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr("stream.kafka.truncation.PAUSE", 0.0)
    return Cluster({tp: tp.partition % 3 for tp in PLACES}, {tp: 12 + tp.partition for tp in PLACES})


def test_a_takeover_asks_each_leader_once(cluster: Cluster) -> None:
    found = cluster.take_over()
    assert {tp: one.end for tp, one in found.items()} == cluster.ends
    assert sorted(node for node, _ in cluster.asked) == [0, 1, 2]
    assert all(node == cluster.leaders[tp] for node, tps in cluster.asked for tp in tps)
    assert cluster.refreshed == 0


def test_who_has_not_answered_for_a_partition_is_asked_for_that_one_again(cluster: Cluster) -> None:
    again = TopicPartition("ratings", 7)
    cluster.errors[again] = [NotLeaderForPartitionError.errno, UnknownTopicOrPartitionError.errno]
    cluster.moved = {again: 2}
    assert {tp: one.end for tp, one in cluster.take_over().items()} == cluster.ends
    assert cluster.asked[3:] == [(2, {again}), (2, {again})]


def test_a_leader_that_is_away_or_not_there_yet_holds_only_its_own_up(cluster: Cluster) -> None:
    late = TopicPartition("comments", 5)
    cluster.leaders[late] = -1
    cluster.moved = {late: 0}
    cluster.away = [1]
    assert {tp: one.end for tp, one in cluster.take_over().items()} == cluster.ends
    first, second = cluster.asked[:3], cluster.asked[3:]
    assert late not in {tp for _, tps in first for tp in tps}
    lost = next(tps for node, tps in first if node == 1)
    assert sorted(second, key=lambda one: one[0]) == [(0, {late}), (1, lost)]


def test_a_cut_is_told_of_its_own_partition(cluster: Cluster) -> None:
    cut = TopicPartition("clicks", 11)
    cluster.ends[cut] = 9
    assert [tp for tp, one in cluster.take_over().items() if one.cut() >= 0] == [cut]


def test_what_says_no_epoch_is_not_asked_for(cluster: Cluster) -> None:
    silent, fresh = TopicPartition("clicks", 1), TopicPartition("clicks", 2)
    cluster.committed[silent] = OffsetAndMetadata(10, "somebody else's")
    cluster.committed[fresh] = OffsetAndMetadata(-1, "")
    found = cluster.take_over()
    assert fresh not in found
    assert found[silent].end == -1
    assert [tp for tp, one in found.items() if one.foreign] == [silent]
    assert not {silent, fresh} & {tp for _, tps in cluster.asked for tp in tps}


def test_a_fetch_that_shows_new_epochs_of_many_partitions_asks_once() -> None:
    """As after an election: every partition of the fetch has another leader's epoch."""
    log = Many()
    reported: list[tuple[TopicPartition, int, int]] = []

    async def cut(tp: TopicPartition, end: int, read: int) -> None:
        reported.append((tp, end, read))

    epochs = Epochs(log, frozenset({"clicks"}), cut)
    epochs.watch()
    asyncio.run(log.fetch(0, epoch=3))
    log.ends = dict.fromkeys(range(8), 5) | {6: 4}
    asyncio.run(log.fetch(5, epoch=4))
    assert log.asked == [8]
    assert reported == [(TopicPartition("clicks", 6), 4, 5)]


def test_a_partition_without_an_answer_ends_the_fetch_before_anybody_is_told() -> None:
    log = Many()
    reported: list[TopicPartition] = []

    async def cut(tp: TopicPartition, end: int, read: int) -> None:
        reported.append(tp)

    epochs = Epochs(log, frozenset({"clicks"}), cut)
    epochs.watch()
    asyncio.run(log.fetch(0, epoch=3))
    log.ends = dict.fromkeys(range(8), 4)
    log.code = NotLeaderForPartitionError.errno
    with pytest.raises(NotLeaderForPartitionError):
        asyncio.run(log.fetch(5, epoch=4))
    assert reported == []  # told once, when all is known
    log.code = 0
    asyncio.run(log.fetch(5, epoch=4))
    assert len(reported) == 8


class Many:
    """The leader of eight partitions, five records a fetch in each. code: what partition 2 answers about its epochs."""

    def __init__(self) -> None:
        self.data = b""
        self.code = 0
        self.ends: dict[int, int] = {}
        self.asked: list[int] = []

    async def fetch(self, position: int, epoch: int) -> None:
        self.data = batches((position, 5, epoch))
        wanted = [("clicks", [(partition, position, 1 << 20) for partition in range(8)])]
        await self.send(0, FetchRequest(50, 1, 1 << 20, 1, wanted, rack_id=""))

    async def send(self, node: int, request: Any) -> Answer:
        if isinstance(request, FetchRequest):
            return Answer([("clicks", [(partition, 0, 99, 99, 0, [], self.data) for partition in range(8)])])
        ((_, asked),) = request.build(_struct(request)).topics
        self.asked.append(len(asked))
        codes = {2: self.code}
        return Answer(
            [("clicks", [(codes.get(one, 0), one, epoch, self.ends.get(one, -1)) for one, _, epoch in asked])]
        )
