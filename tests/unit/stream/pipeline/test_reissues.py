"""Standing slates that show a withdrawn item are replaced, whatever changes in between, and nothing else is sent."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from stream.catalogue.catalogue import Catalogue
from stream.core import state as interest
from stream.core.fencing_log import epoch_of
from stream.core.fold import PLAIN, UserBatch
from stream.core.messages import Recommendation, Scored
from stream.core.placements import Placement
from stream.core.recommendable import Recommendable
from stream.core.rules import RuleBook, RuleSet
from stream.kafka.producer import Outgoing
from stream.kafka.standing_slates import Shown, Slot, StandingSlates
from stream.pipeline import reissues
from stream.pipeline.reissues import ReissueParts, Reissues
from stream.settings import load
from tests.stores import plain_store
from tests.unit.stream.catalogue.test_catalogue import Tower, bundle, message, records

ITEMS = tuple(f"i{number}" for number in range(12))
SIZE = 3
PARTITIONS = (0, 1)
SETTINGS = load(reissue_rate=1_000_000)
PUBLISHED = tuple(Placement(name, SIZE, None, PLAIN, filter_seen=True) for name in ("", "home"))


class Topic:
    """`recommendations`: what was sent, by partition."""

    def __init__(self) -> None:
        self.sent: dict[int, list[Outgoing]] = {partition: [] for partition in PARTITIONS}

    async def send(self, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        ends = {}
        for (topic, partition), some in lists.items():
            assert topic == SETTINGS.recommendations_topic
            self.sent[partition] += some
            ends[topic, partition] = len(self.sent[partition]) - 1
        return ends

    def newest(self) -> dict[bytes, dict[str, Any]]:
        found: dict[bytes, Any] = {}
        for some in self.sent.values():
            for one in some:
                found[one.key or b""] = None if one.value is None else json.loads(one.value)
        return found


class Reader:
    """Reads the topic at once."""

    def __init__(self, standing: StandingSlates, topic: Topic) -> None:
        self.standing = standing
        self.topic = topic

    async def step(self, most: int) -> bool:
        for partition in self.standing.behind():
            sent = self.topic.sent[partition]
            first = self.standing.reached(partition) + 1
            slates = [
                (
                    Slot(one.key or b"", body.get("placement", "")),
                    None if one.value is None else Shown(body["seq"], [x["item"] for x in body["items"]]),
                )
                for one in sent[first:]
                if (body := json.loads(one.value or b"{}")) is not None
            ]
            self.standing.aim(partition, len(sent))
            self.standing.take(partition, slates, len(sent) - 1)
            assert self.standing.caught_up(partition)
        return False

    def forget(self) -> None:
        """Nothing is kept."""

    close = forget


class Worker:
    """A worker's re-issues with a pipeline that publishes a slate per event."""

    def __init__(self, folder: Path, topic: Topic | None = None, settings: Any = SETTINGS) -> None:
        self.topic = topic or Topic()
        self.store = plain_store(folder, "changelog")
        for partition in PARTITIONS:
            self.store.prepare(partition)
        self.catalogue = Catalogue(bundle(ITEMS), Tower())
        self.catalogue.apply(records(*(message(item) for item in ITEMS)))
        self.book = RuleBook("utf8")
        self.now = 1000
        self.woken = 0
        self.counted = 0
        self.observed = (0, 0.0)
        self.standing = StandingSlates(self.store)
        self.offsets = {"items": len(ITEMS), "rules": 0}

        async def rank(
            users: Sequence[UserBatch], placement: Placement, catalogue: Any, rules: RuleSet, now: int
        ) -> list[list[Scored]]:
            return [self.best(one.user, one.state.seq, catalogue, rules, now) for one in users]

        def slate(
            user: UserBatch,
            placement: Placement,
            items: list[Scored],
            catalogue: Any,
            rules: RuleSet,
            now: int,
            withdrawn: tuple[str, ...],
        ) -> Recommendation:
            return Recommendation(
                user.user.decode(), "s", user.state.seq, user.state.chain.hex(), items, now, -1, [], {}, catalogue.offset, "b",
                "interest", False, placement=placement.name or UNSET, withdrawn=withdrawn,
            )  # fmt: skip

        def resume(user: bytes, partition: int, record: bytes) -> UserBatch:
            return UserBatch(user, partition, interest.decode(record))

        def count(slates: int) -> None:
            self.counted += slates

        def observe(waiting: int, seconds: float) -> None:
            self.observed = waiting, seconds

        metrics: Any = SimpleNamespace(reissued=SimpleNamespace(inc=count), observe_reissues=observe)
        fence: Any = SimpleNamespace(owns=lambda partition: True, stamp=lambda partition: [("writer", b"7")])
        clock: Any = SimpleNamespace(now_ms=lambda: self.now)
        reader: Any = Reader(self.standing, self.topic)
        batches: Any = self.topic
        self.reissues = Reissues(
            ReissueParts(
                settings=settings, fence=fence, store=self.store, standing=self.standing, reader=reader,
                batches=lambda: batches, catalogue=lambda: self.catalogue.snapshot, rules=lambda: self.book.current,
                clock=clock, metrics=metrics, published=PUBLISHED, resume=resume, rank=rank, slate=slate, wake=self._wake,
            )
        )  # fmt: skip
        self._rank = rank

    def _wake(self) -> None:
        self.woken += 1

    def best(self, user: bytes, seq: int, catalogue: Any, rules: RuleSet, now: int) -> list[Scored]:
        """The user's first items of those that may be shown."""
        may = Recommendable(catalogue, rules, now)
        start = sum(user)
        order = [ITEMS[(start + number) % len(ITEMS)] for number in range(len(ITEMS))]
        left = [item for item in order if not may.withdrawn(user, seq, [item])]
        return [Scored(item, float(-rank)) for rank, item in enumerate(left[:SIZE])]

    @staticmethod
    def partition(user: bytes) -> int:
        return user[-1] % 2

    async def event(self, user: bytes, seq: int, forget: bool = False) -> None:
        """One micro-batch with one event."""
        partition = self.partition(user)
        state = interest.new(bytes(16), 4)
        state.seq = 0 if forget else seq
        self.store.write(partition, [(user, interest.encode(state))], -1)
        value, shown = None, None
        if not forget:
            items = self.best(user, seq, self.catalogue.snapshot, self.book.current, self.now)
            body = {"seq": seq, "items": [{"item": one.item} for one in items]}
            value, shown = json.dumps(body).encode(), Shown(seq, [one.item for one in items])
        topic = SETTINGS.recommendations_topic
        ends = await self.topic.send({(topic, partition): [Outgoing(user, value)]})
        self.reissues.note(partition, [(Slot(user), shown)], ends[topic, partition])
        await self.reissues.turn(True, lambda: False)

    async def drain(self) -> None:
        self.reissues.look()
        for _ in range(1000):
            self.woken = 0
            await self.reissues.turn(False, lambda: False)
            self.reissues.schedule()
            if not self.woken:
                return
        raise AssertionError("it does not end")

    def items(self, *changes: tuple[bytes, bytes | None]) -> None:
        self.catalogue.apply(records(*changes, start=self.offsets["items"]))
        self.offsets["items"] += len(changes)

    def rule(self, name: str, **fields: Any) -> None:
        value = json.dumps({"rule": name, **fields}).encode() if fields else None
        self.book.apply([(self.offsets["rules"], name.encode(), value)])
        assert not self.book.current.refused
        self.offsets["rules"] += 1

    def wrong(self) -> dict[bytes, list[str]]:
        """The users whose standing slates show what they may not."""
        may = Recommendable(self.catalogue.snapshot, self.book.current, self.now)
        found = {}
        for user, slate in self.topic.newest().items():
            if slate is not None:
                items = may.withdrawn(user, slate["seq"], [one["item"] for one in slate["items"]])
                if items:
                    found[user] = items
        return found


def users(count: int) -> list[bytes]:
    return [f"user{number:05d}".encode() for number in range(count)]


async def begun(worker: Worker, count: int) -> Worker:
    worker.reissues.begin(PARTITIONS)
    await worker.drain()
    for user in users(count):
        await worker.event(user, 2)
    return worker


def block(*items: str, **more: Any) -> dict[str, Any]:
    return {"kind": "block", "filter": {"item": list(items)}, **more}


def run(call: Coroutine[Any, Any, None]) -> None:
    asyncio.run(call)


def test_a_blocked_item_leaves_the_slates_that_show_it_and_no_other_slate_changes(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 60)
        before = worker.topic.newest()
        showing = {user for user, slate in before.items() if any(one["item"] == "i4" for one in slate["items"])}
        assert 0 < len(showing) < 60
        worker.rule("r", **block("i4"))
        await worker.drain()
        after = worker.topic.newest()
        assert {user for user in after if after[user] != before[user]} == showing
        assert worker.wrong() == {}
        assert worker.counted == len(showing)
        for user in showing:
            assert after[user]["withdrawn"] == ["i4"]
            assert (after[user]["seq"], after[user]["events"], after[user]["replay"]) == (2, [], False)
        headers = [
            one.headers for some in worker.topic.sent.values() for one in some if b"withdrawn" in (one.value or b"")
        ]
        assert {epoch_of(one) for one in headers} == {7}
        sent = sum(map(len, worker.topic.sent.values()))
        await worker.drain()
        assert sum(map(len, worker.topic.sent.values())) == sent
        assert worker.observed == (0, 0.0)

    run(body())


def test_removed_and_unavailable_items_and_a_rule_that_begins_later(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 40)
        worker.items((b"i1", None), message("i2", available=False))
        worker.rule("later", **block("i7", since=5000, until=9000))
        await worker.drain()
        assert worker.wrong() == {}
        assert any("i7" in json.dumps(slate["items"]) for slate in worker.topic.newest().values())
        worker.now = 5000
        assert worker.wrong()
        await worker.drain()
        assert worker.wrong() == {}

    run(body())


def test_the_metric_says_that_slates_are_looked_through_from_the_change_on(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 20)
        assert worker.observed == (0, 0.0)
        worker.rule("r", **block("i4"))
        worker.reissues.look()
        assert worker.observed[1] > 0
        await worker.drain()
        assert worker.observed == (0, 0.0)

    run(body())


def test_a_user_who_was_forgotten_gets_no_slate(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 20)
        ann, bob = users(2)
        await worker.event(ann, 3, forget=True)
        worker.standing._write(
            1, [(Slot(bob), Shown(2, ["i3"]))], -1
        )  # an entry without a state, as after a damaged folder
        worker.store.write(1, [(bob, None)], -1)
        worker.rule("all", **block(*ITEMS[:11]))
        await worker.drain()
        assert worker.topic.newest()[ann] is None
        assert all(one.key != bob or b"withdrawn" not in (one.value or b"") for one in worker.topic.sent[1])
        assert worker.standing.read(1, [Slot(bob)]) == [None]

    run(body())


def test_each_published_placement_has_a_standing_slate_of_its_own(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 1)
        (ann,) = users(1)
        partition = worker.partition(ann)
        shows = worker.standing.read(partition, [Slot(ann)])[0]
        assert shows is not None
        item = next(one for one in ITEMS if one not in shows.items)
        slots = [(Slot(ann, "home"), Shown(1, [item])), (Slot(ann, "cart"), Shown(1, [item]))]
        worker.standing._write(partition, slots, -1)
        before = len(worker.topic.sent[partition])
        worker.rule("one", **block(item))
        await worker.drain()
        (sent,) = worker.topic.sent[partition][before:]
        slate = json.loads(sent.value or b"")
        assert (slate["placement"], slate["withdrawn"]) == ("home", [item])
        found = worker.standing.read(partition, [Slot(ann), *(slot for slot, _ in slots)])
        assert found == [shows, Shown(2, [one["item"] for one in slate["items"]]), Shown(1, [item])]

    run(body())


def test_a_change_in_the_middle_of_a_pass_starts_over_without_starving_the_last_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reissues, "SCAN", 8)

    async def body() -> None:
        worker = await begun(Worker(tmp_path), 60)
        for number in range(4):
            worker.rule(f"r{number}", **block(f"i{number}"))
            worker.reissues.look()
            await worker.reissues.turn(True, lambda: True)  # only a part
        await worker.drain()
        assert worker.wrong() == {}

    run(body())


def test_another_worker_finishes_what_this_one_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reissues, "SCAN", 8)

    async def body() -> None:
        first = await begun(Worker(tmp_path / "a"), 60)
        first.rule("r", **block("i0", "i1", "i2"))
        first.reissues.look()
        await first.reissues.turn(True, lambda: True)
        assert first.wrong()
        second = Worker(tmp_path / "b", first.topic)
        second.rule("r", **block("i0", "i1", "i2"))
        for partition in PARTITIONS:  # what it has read back
            some = [user for user in users(60) if Worker.partition(user) == partition]
            states = first.store.read(partition, some)
            second.store.write(partition, list(zip(some, states, strict=True)), -1)
        second.reissues.begin(PARTITIONS)
        await second.drain()
        assert second.wrong() == {}
        first.reissues.forget()
        first.reissues.begin(PARTITIONS)
        await first.drain()
        assert sum(b"withdrawn" in (one.value or b"") for some in first.topic.sent.values() for one in some) == (
            first.counted + second.counted
        )
        assert len(
            {one.key for some in first.topic.sent.values() for one in some if b"withdrawn" in (one.value or b"")}
        ) == (first.counted + second.counted), "no slate is re-issued twice"

    run(body())


def test_any_order_of_changes_and_events_ends_well(tmp_path: Path) -> None:
    async def body(seed: int) -> None:
        draw = random.Random(seed)
        worker = await begun(Worker(tmp_path / str(seed)), 30)
        for number in range(60):
            match draw.randrange(6):
                case 0:
                    worker.items((f"i{draw.randrange(12)}".encode(), None))
                case 1:
                    worker.items(message(f"i{draw.randrange(12)}", available=draw.random() < 0.7))
                case 2:
                    segment: dict[str, Any] = draw.choice(
                        [{}, {"segment": {"share": [0, 50]}}, {"segment": {"min_seq": 3}}]
                    )
                    since: dict[str, Any] = draw.choice([{}, {"since": worker.now + 50}])
                    worker.rule(f"r{draw.randrange(3)}", **block(f"i{draw.randrange(12)}", **segment, **since))
                case 3:
                    worker.rule(f"r{draw.randrange(3)}")
                case 4:
                    await worker.event(draw.choice(users(30)), draw.randrange(2, 9), forget=draw.random() < 0.1)
                case 5:
                    worker.now += 20
                    worker.reissues.look()
                    await worker.reissues.turn(draw.random() < 0.5, lambda: draw.random() < 0.5)
            if number % 20 == 19:
                await worker.drain()
                assert worker.wrong() == {}
        assert worker.counted

    for seed in range(5):
        run(body(seed))


def test_the_rate_is_bounded_and_the_rest_follows(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path, settings=load(reissue_rate=200)), 100)
        worker.rule("r", **block("i0", "i1", "i2", "i3"))
        began = time.monotonic()
        await worker.drain()
        assert 0 < worker.counted <= 20 + 200 * (time.monotonic() - began)
        assert worker.observed[0] > 0
        worker.woken = 0
        await asyncio.sleep(0.05)
        assert worker.woken, "it is called again"
        await worker.reissues.turn(False, lambda: False)
        assert worker.counted > 20 or worker.wrong() == {}

    run(body())


def test_a_turn_is_short_while_events_wait(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 100)
        worker.rule("r", **block("i0", "i1", "i2", "i3"))
        worker.reissues.look()
        await worker.reissues.turn(False, lambda: True)
        assert worker.counted <= reissues.BUSY_CHUNK

    run(body())


def test_partitions_that_are_given_up_are_left_alone(tmp_path: Path) -> None:
    async def body() -> None:
        worker = await begun(Worker(tmp_path), 20)
        worker.rule("r", **block("i0", "i1", "i2"))
        worker.reissues.forget()
        await worker.drain()
        assert worker.counted == 0
        assert worker.observed == (0, 0.0)

    run(body())
