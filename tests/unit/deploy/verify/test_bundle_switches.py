"""Slates of another bundle than the topic `bundles` names, and activations that nobody followed, are named, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy.verify import Report, Scope
from stream.core import bundle_log
from tests.unit.deploy.verify.worlds import ALICE, change_slate, slates, verify
from tests.unit.synthetic import NOW, World, partition_of

PARTITION = partition_of(ALICE)
OLD, NEW, THIRD = "a" * 64, "b" * 64, "c" * 64
WORKER = "0" * 32  # the name in the claims of a World
LIMIT = 300
LATER = (LIMIT + 60) * 1000


class Fleet(World):
    """Alice's partition, its owners one after the other, and the bundle that each serves."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = self.settings.bundles_topic
        self.log.topics[self.topic] = [[]]
        self.serving = OLD
        self.claim(PARTITION, 1)

    def activate(self, bundle: str) -> int:
        return self._write(bundle_log.Activate(bundle, self.now))

    def refuse(self, number: int, bundle: str, worker: str = WORKER) -> None:
        self._write(bundle_log.Refused(number, bundle, worker, "worker", self.now, "it is damaged"))

    def switch(self, bundle: str, number: int = 0, epoch: int = 0, slates: int = -1) -> None:
        """The owner (or the worker of an epoch) goes on with a bundle."""
        epoch = epoch or self._epochs[PARTITION]
        if slates < 0:
            slates = len(self.log.topics[self.settings.recommendations_topic][PARTITION])
        self._write(bundle_log.Switched(number, bundle, PARTITION, slates, WORKER, epoch, self.now))
        self.serving = bundle

    def alice(self, times: int = 1) -> None:
        """Events, one micro-batch each."""
        for _ in range(times):
            self.send(0, ALICE, "i1")
            self.work()

    def slate(self, user: bytes, partition: int, replay: bool, **other: Any) -> None:
        super().slate(user, partition, replay, **({"bundle": self.serving} | other))

    def later(self, ms: int = LATER) -> None:
        self.now += ms

    def _write(self, record: bundle_log.Record) -> int:
        key, value = bundle_log.key_of(record), bundle_log.encode(record)
        return self.log.append(self.topic, 0, key, value, timestamp=self.now)


def judged(fleet: Fleet) -> Report:
    return verify(fleet, scope=Scope(swap_limit=LIMIT))


def swapped() -> Fleet:
    """Two slates of the old bundle, two of the new one, all as it should be."""
    fleet = Fleet()
    fleet.switch(OLD, -1)
    fleet.alice(2)
    fleet.switch(NEW, fleet.activate(NEW))
    fleet.alice(2)
    return fleet


def test_a_swap_and_a_rollback_are_green() -> None:
    fleet = swapped()
    fleet.later()
    fleet.alice()
    fleet.switch(OLD, fleet.activate(OLD))
    fleet.alice(2)
    fleet.later()
    fleet.alice()
    assert judged(fleet).violations == []


def test_without_the_topic_nothing_was_activated() -> None:
    fleet = Fleet()
    fleet.alice(2)
    del fleet.log.topics[fleet.topic]
    assert judged(fleet).exit_code == 0


def one_slate_names_the_old_bundle(fleet: Fleet) -> None:
    change_slate(fleet, 3, bundle=OLD)


def one_slate_names_the_new_bundle(fleet: Fleet) -> None:
    change_slate(fleet, 1, bundle=NEW)


def one_slate_names_another_bundle(fleet: Fleet) -> None:
    change_slate(fleet, 2, bundle=THIRD)


def the_switch_is_missing(fleet: Fleet) -> None:
    rows = fleet.log.topics[fleet.topic][0]
    rows[:] = [row for row in rows if not (b"switched" in (row.value or b"") and NEW.encode() in (row.value or b""))]
    change_slate(fleet, 2, bundle=OLD)  # so that one slate only is wrong


def the_switch_is_late(fleet: Fleet) -> None:
    rows = fleet.log.topics[fleet.topic][0]
    body = json.loads(rows[-1].value or b"") | {"slates": slates(fleet)[1][3]}
    rows[-1] = rows[-1]._replace(value=json.dumps(body).encode())


def there_is_no_switch(fleet: Fleet) -> None:
    """Nothing says which bundle it is, but one worker cannot change it silently."""
    rows = fleet.log.topics[fleet.topic][0]
    rows[:] = [row for row in rows if b"switched" not in (row.value or b"")]
    change_slate(fleet, 2, bundle=OLD)


@pytest.mark.parametrize(
    "alter",
    [
        one_slate_names_the_old_bundle, one_slate_names_the_new_bundle, one_slate_names_another_bundle,
        the_switch_is_missing, the_switch_is_late, there_is_no_switch,
    ],
)  # fmt: skip
def test_one_slate_of_another_bundle_is_named(alter: Callable[[Fleet], None]) -> None:
    fleet = swapped()
    alter(fleet)
    report = judged(fleet)
    assert report.kinds == {"slate-bundle": 1}, report.violations
    (found,) = report.violations
    assert (found.user, found.topic, found.partition) == (ALICE, fleet.settings.recommendations_topic, PARTITION)


def first_swap() -> Fleet:
    """As `swapped`, but the topic has the old bundle only since the swap, as a worker writes it (docs/swap.md)."""
    fleet = Fleet()
    fleet.alice(2)
    number = fleet.activate(NEW)
    fleet.switch(OLD, -1)
    fleet.switch(NEW, number)
    fleet.alice(2)
    return fleet


@pytest.mark.parametrize(("slate", "bundle"), [(0, NEW), (1, NEW), (1, THIRD), (2, OLD), (2, THIRD), (3, OLD)])
def test_the_first_switch_of_a_partition_with_what_was_served_before_it(slate: int, bundle: str) -> None:
    fleet = first_swap()
    assert judged(fleet).violations == []
    change_slate(fleet, slate, bundle=bundle)
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_the_next_owner_follows_the_first_switch_and_not_what_was_before_it() -> None:
    fleet = first_swap()
    fleet.later(60_000)
    fleet.claim(PARTITION, 2)
    fleet.alice()
    assert judged(fleet).violations == []
    fleet.serving = OLD
    fleet.alice()
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_a_slate_of_the_next_owner_follows_the_switch_of_the_one_before() -> None:
    fleet = swapped()
    fleet.later(60_000)
    fleet.claim(PARTITION, 2)
    fleet.alice(2)
    assert judged(fleet).violations == []
    fleet.serving = OLD
    fleet.alice()
    assert judged(fleet).kinds == {"slate-bundle": 1}
    fleet.switch(OLD, epoch=2, slates=slates(fleet)[1][-1])
    assert judged(fleet).violations == []


def test_what_a_fenced_worker_still_writes_is_no_false_alarm() -> None:
    fleet = swapped()
    fleet.later(60_000)
    fleet.send(0, ALICE, "i1")
    held = fleet.log.topics[fleet.settings.recommendations_topic][PARTITION]
    fleet.work()
    late = held.pop()  # its state is durable, its slate not yet there
    fleet.claim(PARTITION, 2)
    fleet.switch(THIRD, fleet.activate(THIRD))
    fleet.slate(ALICE.encode(), PARTITION, True, events=[])  # the new owner reads the event again
    fleet.log.append(fleet.settings.recommendations_topic, PARTITION, late.key, late.value, timestamp=fleet.now)
    fleet.switch(OLD, epoch=1)  # the fenced worker follows an order that is long over
    fleet.serving = THIRD
    fleet.alice(2)
    report = judged(fleet)
    assert report.violations == []
    change_slate(fleet, -1, bundle=OLD)
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_a_switch_that_a_fenced_worker_writes_late_changes_nothing_for_the_owner() -> None:
    fleet = swapped()
    fleet.later(60_000)
    fleet.claim(PARTITION, 2)
    fleet.switch(OLD, epoch=1)
    fleet.serving = NEW
    fleet.alice(2)
    fleet.later(60_000)
    fleet.claim(PARTITION, 3)
    fleet.switch(NEW)
    fleet.alice()
    assert judged(fleet).violations == []
    change_slate(fleet, -1, bundle=OLD)
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_a_replay_of_the_new_owner_may_be_of_either_worker_and_of_no_third_bundle() -> None:
    fleet = swapped()
    fleet.later(60_000)
    fleet.claim(PARTITION, 2)
    fleet.switch(OLD, fleet.activate(OLD))
    fleet.slate(ALICE.encode(), PARTITION, True, events=[])
    assert judged(fleet).violations == []
    change_slate(fleet, -1, bundle=THIRD)
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_slates_without_events_are_judged_by_the_epoch_that_they_name() -> None:
    fleet = Fleet()
    home = partition_of("*")
    if home != PARTITION:
        fleet.claim(home, 1)
    record = bundle_log.Switched(-1, NEW, home, 0, WORKER, 1, NOW)
    fleet.log.append(fleet.topic, 0, bundle_log.key_of(record), bundle_log.encode(record), timestamp=fleet.now)
    fleet.anyone(1, bundle=NEW)
    assert judged(fleet).violations == []
    fleet.anyone(1, bundle=OLD)
    assert judged(fleet).kinds == {"slate-bundle": 1}


def test_an_activation_that_nobody_follows_is_stale_after_the_limit() -> None:
    fleet = swapped()
    fleet.activate(THIRD)
    fleet.later(LIMIT * 1000)
    fleet.alice()
    assert judged(fleet).violations == []
    fleet.later(60_000)
    fleet.alice(3)
    report = judged(fleet)
    assert report.kinds == {"bundle-stale": 1}, report.violations
    assert f"{THIRD[:12]} was activated more than {LIMIT} s before, at offset" in report.violations[0].message
    assert verify(fleet, scope=Scope(swap_limit=10 * LIMIT)).violations == []


def test_an_activation_that_the_owner_refuses_is_not_stale_and_one_that_another_refuses_is() -> None:
    fleet = swapped()
    number = fleet.activate(THIRD)
    fleet.refuse(number, THIRD, "9" * 32)
    fleet.later()
    fleet.alice()
    assert judged(fleet).kinds == {"bundle-stale": 1}
    fleet.refuse(number, THIRD)
    assert judged(fleet).violations == []


def test_an_activation_that_another_replaces_in_time_is_not_stale() -> None:
    fleet = swapped()
    fleet.activate(THIRD)
    fleet.later(100_000)
    fleet.switch(OLD, fleet.activate(OLD))
    fleet.later()
    fleet.alice()
    assert judged(fleet).violations == []


def test_a_worker_that_was_fenced_meanwhile_need_not_follow() -> None:
    fleet = swapped()
    fleet.activate(THIRD)
    fleet.send(0, ALICE, "i1")
    held = fleet.log.topics[fleet.settings.recommendations_topic][PARTITION]
    fleet.work()
    late = held.pop()
    fleet.claim(PARTITION, 2)
    fleet.switch(THIRD)
    fleet.slate(ALICE.encode(), PARTITION, True, events=[])
    fleet.later()
    fleet.log.append(fleet.settings.recommendations_topic, PARTITION, late.key, late.value, timestamp=fleet.now)
    assert judged(fleet).violations == []


def test_forged_records_count_for_nothing() -> None:
    fleet = swapped()
    for key, value in (
        (b"activate", b"{"),
        (b"activate", b'{"kind": "activate", "bundle": 7}'),
        (b"activate", json.dumps({"kind": "activate", "bundle": THIRD}).encode()),  # workers need its time
        *(
            (b"activate", json.dumps({"kind": "activate", "bundle": THIRD, "time": fleet.now} | wrong).encode())
            for wrong in (
                {"time": -1},
                {"time": 1.5},
                {"time": True},
                {"time": 10**15},
                {"reason": 1},
                {"reason": "x" * 1025},
            )
        ),
        (b"x", b"[]"),
        (None, None),
    ):
        fleet.log.append(fleet.topic, 0, key, value, timestamp=fleet.now)
    fleet.later()
    fleet.alice()
    assert judged(fleet).violations == []
