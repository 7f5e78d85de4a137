"""min_offset: what is read from it, and how requests wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from stream.core import state as interest
from stream.gateway.min_offset import NOTHING, Wanted, parse, written
from stream.gateway.positions import Positions
from stream.gateway.problems import ProblemError

TOPICS = ("clicks", "ratings", "comments")


def test_places_of_the_user_and_of_the_catalogue() -> None:
    assert parse(None, TOPICS, "items", 2) is NOTHING
    assert parse("clicks/2:41", TOPICS, "items", 2) == Wanted({0: 41})
    found = parse("clicks/2:41,comments/2:7,clicks/2:40,items/0:9", TOPICS, "items", 2)
    assert found == Wanted({0: 41, 2: 7}, 9)
    assert parse("clicks/2/41,items/0/9", TOPICS, "items", 2) == Wanted({0: 41}, 9)  # as commands print positions
    assert parse(written("ratings", 0, 3), TOPICS, "items", 0) == Wanted({1: 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected topic/partition:offset, like clicks/2:41"),
        ("clicks", "expected topic/partition:offset"),
        ("clicks/2", "expected topic/partition:offset"),
        ("clicks/2:-1", "expected topic/partition:offset"),
        ("clicks/2:41,", "expected topic/partition:offset"),
        ("clicks/2:" + "9" * 19, "expected topic/partition:offset"),
        ("clicks/1:41", "expected partition 2, which has the events of this user"),
        ("items/1:4", "expected partition 0"),
        ("other/2:41", "expected clicks or ratings or comments or items"),
        (",".join(["clicks/2:1"] * 17), "found 17 positions, expected at most 16"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as raised:
        parse(text, TOPICS, "items", 2)
    assert (raised.value.problem.status, raised.value.problem.field) == (400, "min_offset")


def test_an_answer_about_no_user_has_no_events() -> None:
    with pytest.raises(ProblemError, match="expected items"):
        parse("clicks/2:41", TOPICS, "items", None)


class Users:
    """States of users, as records."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def put(self, user: bytes, clicks: int, ratings: int = -1) -> None:
        state = interest.new(bytes(16), 4)
        state.h = state.c = np.zeros(4, np.float16)
        state.applied = [clicks, ratings, -1]
        self.records[user] = interest.encode(state)

    def read(self, user: bytes) -> Callable[[], bytes | None]:
        return lambda: self.records.get(user)


def run(check: Callable[[Positions, Users], Awaitable[None]]) -> None:
    async def started() -> None:
        await check(Positions(), Users())

    asyncio.run(started())


async def wait(positions: Positions, users: Users, wanted: Wanted, seconds: float, user: bytes = b"ann") -> str:
    until = asyncio.get_running_loop().time() + seconds
    return (await positions.wait(user, 2, users.read(user), wanted, until, TOPICS))[1]


def test_a_state_that_has_the_event_is_answered_at_once() -> None:
    async def check(positions: Positions, users: Users) -> None:
        users.put(b"ann", 41, 5)
        assert await wait(positions, users, Wanted({0: 41, 1: 5}), 0) == "applied"
        assert await wait(positions, users, NOTHING, 0) == ""
        assert positions.waiting == 0

    run(check)


def test_the_users_own_state_wakes_the_request_and_no_other_does() -> None:
    async def check(positions: Positions, users: Users) -> None:
        waiting = asyncio.ensure_future(wait(positions, users, Wanted({0: 3}), 5))
        await asyncio.sleep(0)
        users.put(b"bob", 9)
        positions.applied([b"bob"])
        users.put(b"ann", 2)
        positions.applied([b"ann"])
        await asyncio.sleep(0.01)
        assert not waiting.done()
        users.put(b"ann", 3)
        positions.applied([b"ann"])
        assert await waiting == "applied"
        assert positions.waiting == 0

    run(check)


def test_a_record_that_no_state_shows_is_covered_once_the_workers_have_finished_it() -> None:
    async def check(positions: Positions, users: Users) -> None:
        asked: list[int] = []
        positions.on_impatient = lambda: asked.append(len(positions.asked))
        waiting = asyncio.ensure_future(wait(positions, users, Wanted({0: 3}), 5))
        await asyncio.sleep(0.4)
        assert asked == [1]
        assert positions.asked == {2: 1}
        positions.finished(2, {0: 3})  # the offset after the last finished record: 3 itself is not
        await asyncio.sleep(0.01)
        assert not waiting.done()
        positions.finished(1, {0: 4})  # another partition
        positions.finished(2, {0: 4})
        assert await waiting == "finished"
        assert positions.asked == {}
        assert await wait(positions, users, Wanted({0: 3}), 0) == "finished"  # known from now on

    run(check)


def test_what_is_not_there_in_time_says_how_far_it_is() -> None:
    async def check(positions: Positions, users: Users) -> None:
        users.put(b"ann", 7)
        with pytest.raises(ProblemError, match=r"clicks/2:9 in time.*clicks/2 7") as raised:
            await wait(positions, users, Wanted({0: 9}), 0.02)
        found = raised.value.problem
        assert (found.status, found.field, found.applied) == (503, "min_offset", {"clicks/2": 7})
        assert raised.value.headers["Retry-After"] == "1"
        with pytest.raises(ProblemError, match="it is at -1"):
            await positions.wait_items(4, asyncio.get_running_loop().time() + 0.02)
        assert positions.waiting == 0
        assert positions.asked == {}

    run(check)


def test_the_catalogue_wakes_requests_too() -> None:
    async def check(positions: Positions, users: Users) -> None:
        waiting = asyncio.ensure_future(positions.wait_items(4, asyncio.get_running_loop().time() + 5))
        await asyncio.sleep(0)
        positions.catalogue(3)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        positions.catalogue(4)
        await waiting

    run(check)


def test_a_request_that_is_cancelled_leaves_nothing_behind() -> None:
    async def check(positions: Positions, users: Users) -> None:
        waiting = asyncio.ensure_future(wait(positions, users, Wanted({0: 3}), 5))
        await asyncio.sleep(0.3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert positions.waiting == 0
        assert positions.asked == {}

    run(check)


def test_a_partition_that_no_worker_has_ever_owned_is_named() -> None:
    async def check(positions: Positions, users: Users) -> None:
        positions.unowned = lambda partition: partition == 2
        with pytest.raises(ProblemError) as raised:
            await wait(positions, users, Wanted({0: 9}), 0.02)
        found = raised.value.problem
        assert (found.status, found.type, found.field) == (503, "urn:freshet:problem:late", "min_offset")
        assert found.applied == {"clicks/2": -1}
        assert "the changelog holds neither a claim nor a state of partition 2: start `freshet worker`" in found.detail
        positions.unowned = lambda partition: False
        with pytest.raises(ProblemError) as raised:
            await wait(positions, users, Wanted({0: 9}), 0.02)
        assert "freshet worker" not in raised.value.problem.detail

    run(check)
