"""A log that is cut off under a reader: what tells, at a fetch and at a takeover. Batches as Kafka lays them out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import OffsetOutOfRangeError, UnknownTopicOrPartitionError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition
from kafka.record import default_records

from stream.transport.cuts import Beside, Found, decode, encode
from stream.transport.epochs import Epochs

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
        self.cuts: list[tuple[TopicPartition, int, int]] = []
        self.epochs = Epochs(self.log, frozenset({"clicks"}), self._cut)
        self.epochs.watch()

    async def _cut(self, place: TopicPartition, end: int, read: int) -> None:
        self.cuts.append((place, end, read))

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
    assert (reader.cuts, reader.log.asked) == ([], [])
    reader.log.ends[4] = 18
    reader.fetch(18, (18, 1, 7))
    reader.fetch(19, (19, 1, 7))
    assert (reader.cuts, reader.log.asked) == ([], [4])
    assert reader.epochs.reached(PLACE) == 19
    assert [reader.epochs.before(PLACE, offset) for offset in (0, 1, 12, 13, 18, 19)] == [-1, 3, 3, 4, 4, 7]


def test_a_log_that_was_cut_off_and_has_grown_beyond_is_told_by_its_epoch(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 6
    reader.fetch(10, (8, 5, 4))  # other records at 6 to 9, and a batch that reaches over where we are
    assert reader.cuts == [(PLACE, 6, 10)]


def test_a_log_that_ends_below_what_was_read_is_told_before_the_fetcher_begins_elsewhere(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 6
    reader.log.code = OffsetOutOfRangeError.errno
    reader.fetch(10)
    assert reader.cuts == [(PLACE, 6, 10)]


def test_a_log_cut_off_where_we_are_has_lost_nothing_that_was_read(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.log.ends[3] = 10
    reader.fetch(10, (10, 1, 4))
    assert (reader.cuts, reader.log.asked) == ([], [3])


def test_a_broker_that_does_not_know_the_epoch_proves_nothing(reader: Reader) -> None:
    reader.fetch(0, (0, 10, 3))
    reader.fetch(10, (10, 1, 4))
    assert reader.cuts == []


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
    for beside in (Beside(), Beside(9, 3, 17), Beside(9, cut=5)):
        assert decode(encode(beside)) == beside
    for strange in ("", "owner", "[]", '{"epoch": "x"}', "1"):
        assert decode(strange) == Beside()


@pytest.mark.parametrize(
    ("found", "cut"),
    [
        (Found(10, Beside(10, 3), 12), -1),
        (Found(10, Beside(10, 3), 10), -1),
        (Found(10, Beside(10, 3), 9), 9),
        (Found(10, Beside(14, 3), 12), 12),  # states may hold what was read beyond the offset
        (Found(10, Beside(14, 3), 14), -1),
        (Found(10, Beside(10, 3), -1), -1),  # the broker cannot say
        (Found(10, Beside(), -1), -1),
        (Found(10, Beside(cut=4), -1), 4),  # a worker has seen it
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
    assert not reader.cuts
    assert reader.epochs.before(PLACE, 5) == 1
    assert reader.epochs.before(PLACE, 9) == 2
