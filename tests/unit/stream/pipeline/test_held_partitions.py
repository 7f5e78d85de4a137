"""Which partitions are not fetched while events wait behind comments: comments first, one user's own first of all."""

from __future__ import annotations

import asyncio

from faust.types import TP

from stream.core.messages import CLICK, COMMENT, NAN, SourceEvent
from stream.pipeline import held_partitions
from tests.source_consumer import Thread, consumer_of

TOPICS = ("clicks", "ratings", "comments")
OURS = {TP(topic, partition) for topic in TOPICS for partition in range(3)}
COMMENTS = {tp for tp in OURS if tp.topic == "comments"}
LIMIT, BATCH = 50, 512


def waiting(partition: int, comments: int, clicks: int = 0) -> list[SourceEvent]:
    kinds = [COMMENT] * comments + [CLICK] * clicks
    return [
        SourceEvent(kind, partition, offset, 0, b"u", "i", 0, NAN, "", "", "", b"") for offset, kind in enumerate(kinds)
    ]


def held(*queues: list[SourceEvent]) -> set[TP]:
    return held_partitions.partitions(queues, sum(map(len, queues)), LIMIT, BATCH, TOPICS, OURS)


def test_nothing_waits() -> None:
    assert held() == set()


def test_one_users_flood_of_comments_holds_the_comments_of_its_partition_alone() -> None:
    assert held(waiting(1, 5)) == set()
    assert held(waiting(1, 6), waiting(2, 5)) == {TP("comments", 1)}


def test_clicks_behind_a_comment_are_no_flood_of_comments() -> None:
    assert held(waiting(1, 1, clicks=40)) == set()


def test_many_users_comments_hold_the_comments_and_no_clicks() -> None:
    assert held(*(waiting(number % 3, 1) for number in range(50))) == set()
    assert held(*(waiting(number % 3, 1) for number in range(51))) == COMMENTS


def test_one_users_flood_of_clicks_behind_a_comment_holds_its_partition() -> None:
    assert held(waiting(1, 1, clicks=50)) == COMMENTS
    assert held(waiting(1, 1, clicks=51)) == COMMENTS | {TP(topic, 1) for topic in TOPICS}


def test_comments_alone_never_hold_a_click() -> None:
    """Two micro-batches full of them may be under way when the first are held; a small limit is passed by far."""
    assert held(waiting(1, 5), waiting(2, 2 * BATCH)) == COMMENTS
    assert held(*(waiting(number % 3, 1) for number in range(LIMIT + 2 * BATCH))) == COMMENTS


def test_far_beyond_the_limit_nothing_is_fetched() -> None:
    most = LIMIT + BATCH  # users with two events each
    assert held(*(waiting(number % 3, 1, clicks=1) for number in range(most))) == COMMENTS
    assert held(*(waiting(number % 3, 1, clicks=1) for number in range(most + 1))) == OURS


def fetched(hold: set[TP]) -> list[set[TP]]:
    """The partitions that are read in one fetch after a micro-batch that ended with `hold`."""

    async def check() -> list[set[TP]]:
        consumer = consumer_of(Thread())
        consumer.positions.begin(dict.fromkeys(OURS, 0))
        consumer._set_active_tps(OURS)
        asked: list[set[TP]] = []

        async def read(tps: set[TP], timeout: float, room: int) -> None:
            asked.append(tps)

        consumer._fetcher._read = read
        consumer.finish({}, hold)
        consumer.hand_over.notify()
        async with asyncio.timeout(5):
            await consumer._fetcher.fetch_once()
        return asked

    return asyncio.run(check())


def test_what_is_held_is_not_fetched_and_all_else_is() -> None:
    assert fetched(set()) == [OURS]
    assert fetched(COMMENTS) == [OURS - COMMENTS]
    assert fetched(OURS) == []
