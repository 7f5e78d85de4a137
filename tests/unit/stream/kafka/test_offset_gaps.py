"""Every offset that is not read is explained, or it is a loss: markers, aborted transactions, compaction, deletion, cut logs."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core.errors import LossError
from stream.kafka.lenient_records import Records
from stream.kafka.offset_gaps import Passed
from stream.kafka.source_thread import Fetched
from tests.source_consumer import Owner, Thread, consumer_of

CLICKS = TP("clicks", 0)
COMMIT, ABORT = b"\0\0\0\1", b"\0\0\0\0"
READ_COMMITTED = 1
WRITER, OTHER = 7, 8


def batch(base: int, *offsets: int, writer: int = -1, marker: bytes = b"") -> bytes:
    """A record batch of these offsets; writer: of a transaction; marker: a control batch that ends one."""
    builder = DefaultRecordBatchBuilder(2, 0, int(writer >= 0), writer, 0, 0, 1 << 20)
    for offset in offsets:
        builder.append(offset - base, 5, marker or b"k", b"\0" * 6 if marker else b"v", [])
    made = bytearray(builder.build())
    made[:8] = base.to_bytes(8, "big")  # as the thread sets it
    if marker:
        made[22] |= 0x20
    return bytes(made)


def unexplained(data: bytes, first: int, aborted: list[tuple[int, int]] | None = None) -> tuple[list[int], list[range]]:
    """What aiokafka reads of a fetch from `first` on, and which offsets up to its end are missing. aborted: (writer, where)."""
    passed = Passed({"clicks"})
    fetcher: Any = SimpleNamespace()
    passed.watch(fetcher)
    tp = TopicPartition(*CLICKS)
    records = PartitionRecords(tp, Records(data), aborted, first, None, None, False, READ_COMMITTED)
    fetcher._records[tp] = FetchResult(tp, assignment=None, partition_records=records, backoff=0)
    read = [record.offset for record in records]
    return read, passed.missing(TP(*tp), first, records.next_fetch_offset, read)


def test_nothing_is_missing() -> None:
    assert unexplained(batch(0, 0, 1, 2) + batch(3, 3), 0) == ([0, 1, 2, 3], [])


def test_a_committed_transaction_and_its_marker() -> None:
    data = batch(4, 4, 5, writer=WRITER) + batch(6, 6, writer=WRITER, marker=COMMIT) + batch(7, 7)
    assert unexplained(data, 4) == ([4, 5, 7], [])


def test_the_marker_comes_last() -> None:
    data = batch(4, 4, 5, writer=WRITER) + batch(6, 6, writer=WRITER, marker=COMMIT)
    assert unexplained(data, 4) == ([4, 5], [])


def test_nothing_but_markers() -> None:
    data = batch(6, 6, writer=WRITER, marker=COMMIT) + batch(7, 7, writer=OTHER, marker=ABORT)
    assert unexplained(data, 6) == ([], [])


def test_an_aborted_transaction_between_the_records_of_others() -> None:
    data = (
        batch(0, 0, 1, writer=WRITER) + batch(2, 2) + batch(3, 3, writer=OTHER) + batch(4, 4, 5, writer=WRITER)
        + batch(6, 6, writer=WRITER, marker=ABORT) + batch(7, 7, writer=OTHER, marker=COMMIT)
    )  # fmt: skip
    assert unexplained(data, 0, [(WRITER, 0)]) == ([2, 3], [])


def test_whole_batches_are_gone() -> None:
    assert unexplained(batch(0, 0) + batch(10, 10, 11) + batch(20, 20), 0) == (
        [0, 10, 11, 20],
        [range(1, 10), range(12, 20)],
    )


def test_the_first_batches_are_gone() -> None:
    assert unexplained(batch(10, 10, 11), 4) == ([10, 11], [range(4, 10)])


def test_records_within_a_batch_are_gone() -> None:
    """As compaction leaves a batch: its first and last offset are kept."""
    assert unexplained(batch(0, 0, 3, 5) + batch(6, 6), 0) == ([0, 3, 5, 6], [range(1, 3), range(4, 5)])


def test_a_transaction_that_was_compacted_is_no_excuse() -> None:
    data = batch(0, 0, 3, writer=WRITER) + batch(4, 4, writer=WRITER, marker=COMMIT) + batch(5, 5)
    assert unexplained(data, 0) == ([0, 3, 5], [range(1, 3)])


def test_what_is_gone_beside_a_marker_is_named_alone() -> None:
    data = batch(0, 0) + batch(4, 4, writer=WRITER, marker=COMMIT) + batch(7, 7)
    assert unexplained(data, 0) == ([0, 7], [range(1, 4), range(5, 7)])


def test_a_fetch_that_begins_in_the_middle_of_a_batch() -> None:
    data = batch(0, 0, 1, 2, 3, writer=WRITER) + batch(4, 4, writer=WRITER, marker=COMMIT)
    assert unexplained(data, 2) == ([2, 3], [])


def test_other_topics_are_not_watched() -> None:
    """A changelog is compacted: its holes are nobody's loss, and nothing is kept of them."""
    passed = Passed({"clicks"})
    fetcher: Any = SimpleNamespace()
    passed.watch(fetcher)
    tp = TopicPartition("changelog", 0)
    data = batch(6, 6, writer=WRITER, marker=COMMIT)
    records = PartitionRecords(tp, Records(data), None, 6, None, None, False, READ_COMMITTED)
    fetcher._records[tp] = FetchResult(tp, assignment=None, partition_records=records, backoff=0)
    assert list(records) == []
    assert passed._known == {}


def test_what_is_noted_is_forgotten_once_it_is_passed() -> None:
    passed = Passed({"clicks"})
    for base in range(1, 2000, 2):
        marker: Any = SimpleNamespace(base_offset=base, next_offset=base + 1, is_control_batch=True)
        passed.note(CLICKS, marker)
        assert passed.missing(CLICKS, base - 1, base + 1, [base - 1]) == []
    assert not passed._known


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=12)


def one_by_one(first: int, end: int, read: set[int], right: list[tuple[int, int]]) -> list[range]:
    """The same by looking at each offset."""
    lost: list[range] = []
    for offset in range(first, end):
        if offset in read or any(base <= offset < behind for base, behind in right):
            continue
        if lost and lost[-1].stop == offset:
            lost[-1] = range(lost[-1].start, offset + 1)
        else:
            lost.append(range(offset, offset + 1))
    return lost


@settings(max_examples=500, deadline=None)
@given(first=st.integers(0, 20), size=st.integers(0, 30), read=st.sets(st.integers(0, 50)), spans=SPANS)
def test_what_is_missing_is_what_a_look_at_each_offset_finds(
    first: int, size: int, read: set[int], spans: list[tuple[int, int]]
) -> None:
    end = first + size
    read = {offset for offset in read if first <= offset < end}
    right = [(base, base + length) for base, length in dict(spans).items()]
    passed = Passed({"clicks"})
    for base, behind in right:
        marker: Any = SimpleNamespace(base_offset=base, next_offset=behind, is_control_batch=True)
        passed.note(CLICKS, marker)
    assert passed.missing(CLICKS, first, end, sorted(read)) == one_by_one(first, end, read, right)
    assert passed._known.get(CLICKS, {}) == {base: behind for base, behind in right if behind > end}


def test_many_holes_and_many_markers_take_no_longer_than_reading_them() -> None:
    """A record, a marker and a hole, ten thousand times in one fetch."""
    count = 10_000
    passed = Passed({"clicks"})
    for base in range(1, 3 * count, 3):
        marker: Any = SimpleNamespace(base_offset=base, next_offset=base + 1, is_control_batch=True)
        passed.note(CLICKS, marker)
    began = time.process_time()
    found = passed.missing(CLICKS, 0, 3 * count, range(0, 3 * count, 3))
    took = time.process_time() - began
    assert found == [range(base, base + 1) for base in range(2, 3 * count, 3)]
    assert took < 1.0


# the consumer


def worker(thread: Thread, offset: int | None = 10, **more: Any) -> Any:
    """A consumer that has begun at offset 10 of CLICKS, where `offset` is committed."""
    consumer = consumer_of(thread, linger_ms=0, **more)
    consumer.group.epoch = 1
    consumer.positions.begin({CLICKS: 10})
    consumer._read_offset[CLICKS] = offset
    return consumer


def owner(claimed: bool) -> Owner:
    made = Owner()
    made.claimed = claimed
    return made


def fetch(before: int, after: int, *offsets: int) -> Fetched:
    records: list[Any] = [SimpleNamespace(offset=offset) for offset in offsets]
    return Fetched({CLICKS: records} if records else {}, {CLICKS: before}, {CLICKS: after})


def test_a_gap_that_no_batch_explains_stops_the_worker() -> None:
    consumer = worker(Thread(0, 20))
    with pytest.raises(LossError, match="clicks partition 0: source records 12 to 14 are gone"):
        asyncio.run(consumer._fetcher._pass_on(fetch(10, 16, 10, 11, 15)))
    assert not consumer.sent


def test_a_gap_that_is_accepted_is_counted_once() -> None:
    consumer = worker(Thread(0, 20), accept_loss=True)
    asyncio.run(consumer._fetcher._pass_on(fetch(10, 16, 10, 11, 15)))
    assert consumer.lost == [3]
    assert [[record.offset for record in part.parts[CLICKS]] for part in consumer.sent] == [[10, 11, 15]]
    assert consumer.positions.next == {CLICKS: 16}


def test_holes_of_one_fetch_are_one_line() -> None:
    consumer = worker(Thread(0, 20))
    with pytest.raises(LossError, match="source records 11 to 15, 4 of them, are gone"):
        asyncio.run(consumer._fetcher._pass_on(fetch(10, 17, 10, 13, 16)))


def test_what_an_earlier_fetch_found_and_was_not_handed_over_is_read_again() -> None:
    thread = Thread(0, 30)
    consumer = worker(thread)
    asyncio.run(consumer._fetcher._pass_on(fetch(15, 17, 15, 16)))
    assert thread.sought == {CLICKS: 10}
    assert not consumer.sent
    assert consumer.positions.next == {CLICKS: 10}


def test_a_fetch_from_before_our_place_gives_only_what_is_new() -> None:
    consumer = worker(Thread(0, 30))
    asyncio.run(consumer._fetcher._pass_on(fetch(8, 12, 8, 9, 10, 11)))
    assert [record.offset for record in consumer.sent[0].parts[CLICKS]] == [10, 11]


def test_what_is_deleted_before_our_position_stops_the_worker() -> None:
    consumer = worker(Thread(210, 230))
    error = OffsetOutOfRangeError({CLICKS: 10})
    with pytest.raises(LossError, match="clicks partition 0: source records are gone: 10 to 209; see --accept-loss"):
        asyncio.run(consumer._fetcher._seek_into_log(error.args[0]))


def test_what_is_deleted_before_our_position_and_accepted() -> None:
    thread = Thread(210, 230)
    consumer = worker(thread, accept_loss=True)
    asyncio.run(consumer._fetcher._seek_into_log({CLICKS: 10}))
    assert consumer.lost == [200]
    assert thread.sought == consumer.positions.next == {CLICKS: 210}
    asyncio.run(consumer._fetcher._seek_into_log({CLICKS: 10}))  # of a position that we have left
    assert consumer.lost == [200]


@pytest.mark.parametrize("position", [5, 15])
def test_a_position_out_of_range_that_is_not_our_place_is_read_again_from_there(position: int) -> None:
    """Behind our place: what an earlier fetch found was not handed over. Before it: somebody sought what was committed. Whether
    our place itself is gone the next fetch says."""
    thread = Thread(0, 12)
    consumer = worker(thread)
    asyncio.run(consumer._fetcher._seek_into_log({TopicPartition(*CLICKS): position}))
    assert thread.sought == consumer.positions.next == {CLICKS: 10}
    assert consumer.lost == []


def test_every_partition_of_an_answer_out_of_range_is_explained_or_read_again() -> None:
    ours, dropped, strange = CLICKS, TP("ratings", 1), TP("comments", 2)
    thread = Thread(210, 400)
    consumer = worker(thread, accept_loss=True)
    consumer.positions.begin({dropped: 300})
    asyncio.run(consumer._fetcher._seek_into_log({ours: 10, dropped: 500, strange: 3}))
    assert thread.sought == consumer.positions.next == {ours: 210, dropped: 300}  # what is not ours its owner seeks
    assert consumer.lost == [200]


def test_nothing_is_sought_for_partitions_that_a_rebalance_has_taken() -> None:
    thread = Thread(0, 12)
    consumer = worker(thread)

    async def rebalance(*tps: TP) -> dict[TP, int]:
        consumer.group.epoch += 1
        return dict.fromkeys(tps, 0)

    thread.earliest_offsets = rebalance  # type: ignore[method-assign]
    consumer.positions.next[TP("ratings", 1)] = 10
    asyncio.run(consumer._fetcher._seek_into_log({CLICKS: 15, TP("ratings", 1): 10}))
    assert thread.sought == {}


@pytest.mark.parametrize(("end", "message"), [(5, "beyond the log's end 5, read up to 10"), (40, "cut off before 10")])
def test_a_log_that_was_cut_off_stops_the_worker_whatever_is_accepted(end: int, message: str) -> None:
    """An unclean election, or a recreated topic: also where the log has grown beyond our position again."""
    consumer = worker(Thread(0, end), accept_loss=True)
    with pytest.raises(LossError, match=message):
        asyncio.run(consumer._fetcher._seek_into_log({CLICKS: 10}))


def test_a_commit_of_0_is_a_commit() -> None:
    """What came to a partition that was empty, and was deleted while the worker was away."""
    consumer = worker(Thread(200, 230), offset=0)
    with pytest.raises(LossError, match="0 to 199"):
        asyncio.run(consumer.starts.seek([CLICKS]))


def test_what_was_never_committed_begins_at_the_logs_start() -> None:
    thread = Thread(200, 230)
    assert asyncio.run(worker(thread, offset=None).starts.seek([CLICKS])) == {CLICKS: 200}
    assert thread.sought == {CLICKS: 200}


@pytest.mark.parametrize(("start", "claimed"), [(200, False), (0, True)])
def test_where_nobody_has_begun_or_nothing_is_deleted_no_commit_is_missed(start: int, claimed: bool) -> None:
    consumer = worker(Thread(start, 230), None, owner=owner(claimed))
    assert asyncio.run(consumer.starts.seek([CLICKS])) == {CLICKS: start}


def test_a_commit_that_expired_while_records_were_deleted_stops_the_worker() -> None:
    """All workers down for longer than offsets.retention.minutes: what was read by then nobody knows."""
    consumer = worker(Thread(200, 230), None, owner=owner(True))
    message = "clicks partition 0: the group's offsets are gone .* records before 200, which may never have been read"
    with pytest.raises(LossError, match=message):
        asyncio.run(consumer.starts.seek([CLICKS]))


def test_a_commit_that_expired_and_is_accepted_is_counted() -> None:
    consumer = worker(Thread(200, 230), None, owner=owner(True), accept_loss=True)
    assert asyncio.run(consumer.starts.seek([CLICKS])) == {CLICKS: 200}
    assert consumer.lost == [1]


# lag and commits


def behind(consumer: Any, stable: int) -> tuple[int, dict[TP, int]]:
    """Lag, and what would be committed."""
    consumer._thread.stable_end = lambda tp: stable
    return consumer.lag()[CLICKS], consumer._filter_committable_offsets(())


def test_a_marker_behind_everything_is_no_lag_and_is_committed() -> None:
    consumer = worker(Thread(0, 30))
    consumer._thread.passed._known = {CLICKS: {12: 13}}
    asyncio.run(consumer._fetcher._pass_on(fetch(10, 13, 10, 11)))
    assert behind(consumer, 13) == (3, {CLICKS: 10})
    consumer.positions.safe[CLICKS] = 12
    assert behind(consumer, 13) == (0, {CLICKS: 13})
    consumer._thread.passed._known = {CLICKS: {13: 17}}
    asyncio.run(consumer._fetcher._pass_on(fetch(13, 17)))  # another, behind what it aborted
    assert behind(consumer, 17) == (0, {CLICKS: 17})


def test_a_comment_that_waits_keeps_markers_behind_it_uncommitted() -> None:
    consumer = worker(Thread(0, 30))
    consumer._thread.passed._known = {CLICKS: {12: 13}}
    asyncio.run(consumer._fetcher._pass_on(fetch(10, 13, 10, 11)))
    consumer.positions.safe[CLICKS] = 11
    assert behind(consumer, 13) == (2, {CLICKS: 11})


def test_nothing_but_markers_since_we_began() -> None:
    consumer = worker(Thread(0, 30))
    consumer._thread.passed._known = {CLICKS: {10: 12}}
    asyncio.run(consumer._fetcher._pass_on(fetch(10, 12)))
    assert not consumer.sent
    assert behind(consumer, 12) == (0, {CLICKS: 12})


# changelogs


def test_a_changelog_that_is_deleted_before_what_we_have_read_back() -> None:
    tp = TP("changelog", 0)
    consumer = worker(Thread(50, 90), accept_loss=True)
    consumer.read_back.last[tp] = 9
    asyncio.run(consumer.read_back.seek_into_log({tp: 10}))
    assert consumer.lost == [40]
    assert consumer.read_back.last[tp] == 49


def test_a_changelog_whose_record_that_we_have_is_gone() -> None:
    """Faust seeks to the last record that it has, not behind it."""
    tp, thread = TP("changelog", 0), Thread(50, 90)
    consumer = worker(thread)
    consumer.read_back.last[tp] = 49
    asyncio.run(consumer.read_back.seek_into_log({tp: 49}))
    assert consumer.lost == []
    assert thread.sought == {tp: 50}


@pytest.mark.parametrize("claimed", [False, True])
def test_what_lay_there_when_a_partition_was_given_may_have_been_read_if_a_worker_owned_it(claimed: bool) -> None:
    for offset, first in ((None, 0), (0, 0), (15, 15), (20, 20)):
        consumer = worker(Thread(0, 20), offset, owner=owner(claimed))
        assert asyncio.run(consumer.starts.seek([CLICKS])) == {CLICKS: first}
        assert consumer.starts.at_start == ({CLICKS: range(first, 20)} if claimed else {})
