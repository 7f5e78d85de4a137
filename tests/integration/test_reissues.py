"""Standing slates on a real Kafka: an item that is withdrawn leaves them, also if the owner is killed on the way.

The API never answers with it from that offset on, and `freshet verify` knows a slate that was re-issued with a reason from one
that was not.
"""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import Report, Scope, run
from stream.core.forgetting import control
from stream.settings import Settings
from tests.gateway_process import GatewayProcess
from tests.integration.test_gateway import next_slate
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, until

pytestmark = pytest.mark.integration

USERS = 40
ITEMS = 50


class Shop:
    """Events of some users, and changes of items and rules."""

    def __init__(self, settings: Settings, users: int = USERS) -> None:
        self.settings = settings
        self.users = [f"user{number}" for number in range(users)]
        self.events = Events(settings, seed=5, users=users, items=ITEMS)
        self.events.send_items()

    def live(self, worker: WorkerProcess, seconds: float = 60) -> None:
        """One click of each user, finished."""
        for user in self.users:
            self.events.put(*self.events.one(user=user, kind="click"))
        self.events.producer.flush()
        all_committed(self.settings, worker, seconds)

    def rule(self, rule: str, **fields: Any) -> int:
        """Put a rule, or delete it -> its offset."""
        value = json.dumps({"rule": rule, **fields}).encode() if fields else None
        return self._send(self.settings.rules_topic, rule, value)

    def item(self, item: str, **fields: Any) -> int:
        """Put an item, or remove it -> its offset."""
        value = json.dumps({"item": item, "title": item, **fields}).encode() if fields else None
        return self._send(self.settings.items_topic, item, value)

    def _send(self, topic: str, key: str, value: bytes | None) -> int:
        offset: int = self.events.producer.send(topic, key=key.encode(), value=value).get(30).offset
        return offset

    def forget(self, user: str) -> None:
        for topic in self.settings.sources:
            self.events.producer.send(topic, key=user.encode(), value=None, headers=control("test")).get(30)

    def standing(self) -> dict[str, dict[str, Any] | None]:
        """User -> the newest slate; None for a tombstone."""
        found: dict[str, dict[str, Any] | None] = {}
        for record in read_all(self.settings, self.settings.recommendations_topic):
            if record.key != b"*":
                found[record.key.decode()] = None if record.value is None else json.loads(record.value)
        return found

    def showing(self, *items: str) -> list[str]:
        """The users whose standing slates show one of these items."""
        return [user for user, slate in self.standing().items() if slate is not None and set(names(slate)) & {*items}]

    def gone(self, *items: str, seconds: float = 30) -> None:
        until(lambda: not self.showing(*items), seconds, lambda: f"shown by {len(self.showing(*items))}: {items}")

    def favourites(self, count: int) -> list[str]:
        """The items that most standing slates show."""
        shown = Counter(item for slate in self.standing().values() if slate is not None for item in names(slate))
        return [item for item, _ in shown.most_common(count)]

    def verify(self, bundles: Path, worker: WorkerProcess | None = None) -> Report:
        folders = () if worker is None else (worker.data_dir,)
        return run(self.settings, wait=30, scope=Scope(bundle=bundles, users=0, data_dirs=folders))


def names(slate: dict[str, Any]) -> list[str]:
    return [one["item"] for one in slate["items"]]


def block(*items: str, **more: Any) -> dict[str, Any]:
    return {"kind": "block", "filter": {"item": list(items)}, **more}


@pytest.fixture
def shop(world: Callable[..., Settings]) -> Iterator[Shop]:
    found = Shop(world(**QUICK))
    yield found
    found.events.close()


def test_a_placement_with_a_filter_is_reissued_within_it(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    odd = [f"item-{number}" for number in range(1, ITEMS, 2)]
    cart = {"size": 4, "filter": {"item": odd}}
    shop = Shop(world(**QUICK, placements={"cart": cart}, published=("default", "cart")))
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles).start().wait_ready()
    try:
        shop.live(worker)
        shop.rule("recall", **block(*odd[:6]))
        until(lambda: worker.metric("freshet_reissued_slates_total") > 0, 30, "slates are re-issued")
        until(lambda: worker.metric("freshet_reissue_seconds") == 0, 30, "all slates are re-issued")
        newest = {}
        for record in read_all(shop.settings, shop.settings.recommendations_topic):
            if record.key != b"*":
                slate = json.loads(record.value)
                newest[record.key, slate.get("placement")] = set(names(slate))
        assert len(newest) == 2 * USERS
        for (_, placement), shown in newest.items():
            assert not shown & {*odd[:6]}
            assert placement is None or shown <= {*odd}
        report = shop.verify(bundles)
        assert (report.exit_code, report.violations) == (0, [])
        assert report.ranked >= report.reissued > 0
    finally:
        worker.close()
        shop.events.close()


def test_withdrawn_items_leave_slates_that_stand(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    """By a rule, by a rule that begins later, by removal, by unavailability; and a user who was forgotten gets nothing."""
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles).start().wait_ready()
    try:
        shop.live(worker)
        shop.live(worker)
        forgotten = shop.users[0]
        shop.forget(forgotten)
        all_committed(shop.settings, worker)
        until(lambda: shop.standing()[forgotten] is None, 30, "the tombstone")
        before = shop.standing()
        first, second, third, fourth = shop.favourites(4)
        showing = set(shop.showing(first))
        offset = shop.rule("recall", **block(first))
        shop.gone(first)
        after = shop.standing()
        assert {user for user in after if after[user] != before[user]} == showing, "nobody else has a new slate"
        for user in showing:
            old, new = before[user], after[user]
            assert old is not None
            assert new is not None
            assert (new["withdrawn"], new["rules"], new["events"], new["replay"]) == ([first], offset, [], False)
            assert (new["seq"], new["chain"], new["applied"]) == (old["seq"], old["chain"], old["applied"])
            assert len(names(new)) == shop.settings.slate_size
        assert worker.metric("freshet_reissued_slates_total") == len(showing)
        shop.item(second)
        shop.gone(second)
        shop.item(third, available=False, text="a thing")
        shop.gone(third)
        shop.rule("later", **block(fourth, since=int(time.time() * 1000) + 3000))
        assert shop.showing(fourth)
        shop.gone(fourth)
        until(lambda: worker.metric("freshet_reissue_seconds") == 0, 10, "nothing is left to do")
        assert worker.metric("freshet_reissue_waiting_users") == 0
        assert shop.standing()[forgotten] is None
        shop.live(worker)  # events go on as ever
        assert worker.terminate() == 0
        worker.start().wait_ready()
        shop.item(shop.favourites(1)[0])
        until(
            lambda: worker.metric("freshet_reissued_slates_total") > 0, 30, "it knows the slates after a restart, too"
        )
        until(lambda: worker.metric("freshet_reissue_seconds") == 0, 10, "nothing is left to do")
        assert worker.terminate() == 0
        report = shop.verify(bundles, worker)
        assert (report.exit_code, report.violations) == (0, []), report.notes
        assert report.reissued > len(showing)
        assert (report.uncovered, report.double, report.replays, report.conserved) == (0, 0, 0, True)
    finally:
        worker.close()


def test_the_api_never_answers_with_a_withdrawn_item(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles).start().wait_ready()
    gateway = GatewayProcess(shop.settings, tmp_path, bundles=bundles).start().wait_ready()
    try:
        shop.live(worker)
        (item,) = shop.favourites(1)
        user, other = shop.showing(item)[:2]
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port(), timeout=30)
        connection.request("GET", f"/v1/users/{user}/stream")
        stream = connection.getresponse()
        assert item in names(next_slate(stream))
        old = next(
            one for one in read_all(shop.settings, shop.settings.recommendations_topic) if one.key == user.encode()
        )
        at = shop.rule("recall", **block(item))
        place = f"min_offset={shop.settings.rules_topic}/0:{at}"
        for path in (f"/v1/users/{user}/recommendations?{place}", f"/v1/users/nobody/recommendations?{place}"):
            answer = gateway.ask("GET", path)
            assert answer.status == 200
            assert item not in names(answer.body), path
        near = next(one for one in names(gateway.slate(other).body) if one != item)
        for path in ("/v1/popular?n=50", "/v1/trending?n=50", f"/v1/items/{near}/similar?n=50"):
            assert item not in names(gateway.ask("GET", path).body), path
        click = {"type": "click", "item": near, "time": int(time.time() * 1000)}
        visit = gateway.ask("POST", "/v1/sessions/recommendations", {"events": [click], "n": 50})
        assert visit.status == 200, visit.body
        assert item not in names(visit.body)
        ranked = gateway.ask("POST", "/v1/rerank", {"user": user, "candidates": [item, near]}).body
        assert (names(ranked), ranked["left_out"]) == ([near], [item])
        shop.gone(item)
        # a slate of before, sent again after a crash, shows the item: the stream has the slate as it is now in its place
        shop.events.producer.send(old.topic, key=old.key, value=old.value, partition=old.partition).get(30)
        shop.events.put(*shop.events.one(user=user, kind="click"))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["seq"] < 2:
            seen.append(next_slate(stream))
            assert item not in names(seen[-1])
        connection.close()
    finally:
        gateway.close()
        worker.close()


@pytest.mark.faults
def test_a_killed_owner_leaves_the_rest_to_the_next(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    """Once it is the same worker, with and without its folder, once another one."""
    settings = world(**QUICK)
    shop = Shop(settings, 600)
    slow: dict[str, Any] = {"bundles": bundles, "reissue_rate": 60}
    first = WorkerProcess(settings, tmp_path, "w1", **slow).start().wait_ready()
    second = WorkerProcess(settings, tmp_path, "w2", bundles=bundles)
    try:
        shop.live(first)
        items = shop.favourites(3)
        for number, item in enumerate(items):
            shop.rule(f"recall-{number}", **block(item))
            until(lambda: first.metric("freshet_reissued_slates_total") > 10, 30, "it has begun")
            assert first.kill() == -signal.SIGKILL
            assert shop.showing(item), "it was killed in the middle"
            if number == 2:
                second.start().wait_ready()
            else:
                for file in first.data_dir.rglob("*.db") if number == 1 else ():
                    _remove(file)
                shop.events.send(20)
                first.start().wait_ready()
            shop.gone(*items[: number + 1], seconds=90)
        all_committed(settings, second)
        assert second.terminate() == 0
        report = shop.verify(bundles, second)
        assert (report.kinds, report.lost, report.double, report.uncovered) == ({}, 0, 0, 0), report.violations[:5]
        assert report.exit_code == 0, report.notes
        assert report.reissued
    finally:
        first.close()
        second.close()
        shop.events.close()


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mutant", "kind", "says"),
    [
        ("reissues_without_reason", "reissue", "the slate before it does not show"),
        ("reissues_under_an_old_epoch", "reissue", "by a fenced writer"),
        ("reissues_too_little", "ranking", "expected"),
    ],
)
def test_a_wrong_one_is_red(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, mutant: str, kind: str, says: str
) -> None:
    shop = Shop(world(**QUICK))
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles, mutant=mutant)
    try:
        worker.start().wait_ready()
        shop.live(worker)
        assert worker.terminate() == 0
        worker.start().wait_ready()  # so that there is an epoch before this one
        shop.live(worker)
        (item,) = shop.favourites(1)
        shop.rule("recall", **block(item))
        until(lambda: worker.metric("freshet_reissued_slates_total") > 0, 30, "slates are re-issued")
        shop.gone(item)
        all_committed(shop.settings, worker)
        assert worker.terminate() == 0
        report = shop.verify(bundles)
        assert _red(report.violations, kind, says), report.violations
    finally:
        worker.close()
        shop.events.close()


@pytest.mark.faults
@pytest.mark.parametrize("mutant", ["unmutated", "lets_withdrawn_items_stand"])
def test_slates_that_are_left_standing_are_red(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, mutant: str
) -> None:
    """A few seconds after the owner has published a slate under the rule, no standing one may show the item."""
    shop = Shop(world(**QUICK))
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles, mutant=mutant)
    try:
        worker.start().wait_ready()
        shop.live(worker)
        (item,) = shop.favourites(1)
        shop.rule("recall", **block(item))
        time.sleep(1.5)  # a worker looks twice a second at what has changed
        for _ in range(8):
            for user in shop.users[: len(shop.users) // 4]:
                shop.events.put(*shop.events.one(user=user, kind="click"))
            shop.events.producer.flush()
            time.sleep(0.5)
        all_committed(shop.settings, worker)
        assert worker.terminate() == 0
        scope = Scope(bundle=bundles, users=0, reissue_limit=2)
        report = run(shop.settings, wait=30, scope=scope)
        assert set(report.kinds) == ({"slate-withdrawn"} if mutant != "unmutated" else set()), report.violations
        left = len(shop.showing(item))
        assert report.kinds["slate-withdrawn"] == left > 0 or mutant == "unmutated"
        assert mutant != "unmutated" or not left
    finally:
        worker.close()
        shop.events.close()


def _red(violations: Sequence[Any], kind: str, says: str) -> bool:
    return any(one.kind == kind and says in one.message for one in violations)
