"""`freshet verify --tables`: an epoch of the tally is what the events give, and each mistake is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as runs
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.clients.murmur2 import murmur2
from deploy.verify import Report, Scope, check
from stream.core import tables
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError, RecordError
from stream.core.tables import TableRow
from stream.core.tally import ForwardDecay, PairShape
from stream.settings import Settings
from stream.tally.counting import ItemSums, Sums, TableShape, count
from stream.tally.epoch import Epoch, TableSettings, close
from tests.unit.synthetic import NOW, PARTITIONS, World

DAY = 86_400_000
WEIGHTS = {"view": 0.5, "like": 2.0, "skip": -1.0}


class Counted(World):
    """Sources, a right worker, and a right tally. bundles: where the manifest is written."""

    def __init__(self, bundles: Path, **values: Any) -> None:
        super().__init__(Settings(app_id="t", bundles=bundles, **values))
        self.log.topics[self.settings.tables_topic] = [[]]
        manifest = json.dumps({"inputs": {"choices": ["clicks", "ratings", "comments"], "weights": WEIGHTS}}).encode()
        self.bundle = sha256(manifest).hexdigest()
        folder = bundles / self.bundle
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_bytes(manifest)
        shape = TableShape(
            ForwardDecay(NOW - 900 * DAY, 90 * DAY), ForwardDecay(NOW - 900 * DAY, 0), PairShape(4, 0.7, 2),
            frozenset((0, 1, 2)), WEIGHTS,
        )  # fmt: skip
        self.tables = TableSettings(shape, 0.5, 3.0, 6, self.bundle)
        self.sums = Sums()
        self.users: dict[bytes, bytes | None] = {}
        self.counted: dict[str, int] = {}
        self.number = 0
        self.written: dict[str, TableRow] = {}

    def count(self) -> None:
        decoder = EventDecoder(murmur2, PARTITIONS, self.settings.rating_scale, self.settings.sources)
        events = []
        for behaviour, topic in enumerate(self.settings.sources):
            for partition, rows in enumerate(self.log.topics[topic]):
                for row in rows[self.counted.get(f"{topic}/{partition}", 0) :]:
                    try:
                        events.append(
                            decoder.decode(
                                behaviour, partition, row.offset, row.timestamp, row.key, row.value, row.headers
                            )
                        )
                    except RecordError:
                        pass
                if rows:
                    self.counted[f"{topic}/{partition}"] = rows[-1].offset + 1
        changed = count(self.sums, self.tables.shape, events, lambda users: [self.users.get(user) for user in users])
        self.users.update(changed.users)

    def epoch(self) -> Epoch:
        self.number += 1
        return close(self.sums, self.tables, self.counted, self.number, NOW)

    def publish(self, epoch: Epoch | None = None, without: Iterable[str] = ()) -> None:
        """Write an epoch, but not the rows `without`."""
        epoch = epoch or self.epoch()
        topic = self.settings.tables_topic
        for item, row in epoch.rows.items():
            if item not in without and self.written.get(item) != replace(row, epoch=1):
                self.log.append(topic, 0, tables.row_key(item), tables.encode_row(row))
                self.written[item] = replace(row, epoch=1)
        for item in self.written.keys() - epoch.rows.keys():
            self.log.append(topic, 0, tables.row_key(item), None)
            del self.written[item]
        self.log.append(topic, 0, tables.CLOSED_KEY, tables.encode_closed(epoch.closed))

    def events(self, seed: int = 1, number: int = 300, users: str = "uvwxy") -> None:
        """Events of all kinds, some malformed, misplaced, repeated, sent back, or a control record."""
        draw = random.Random(seed)
        for at in range(number):
            user, behaviour, place = draw.choice(users), draw.choice((0, 0, 0, 1, 2)), draw.random()
            fields: dict[str, Any] = {"item": f"i{draw.randrange(12)}", "time": NOW - draw.randrange(800 * DAY)}
            if behaviour == 0:
                fields["action"] = draw.choice(("view", "like", "skip", "other", ""))
            elif behaviour == 2 and draw.random() < 0.5:
                fields["value"] = 3.0
            topic = self.settings.sources[behaviour]
            headers: tuple[tuple[str, bytes], ...] = ()
            if place < 0.02:
                self.send_raw(behaviour, user.encode(), b"{", murmur2(user.encode()) % PARTITIONS)
                continue
            if place < 0.04:
                body = json.dumps({"user": user, "text": "t", "value": 3.0} | fields).encode()
                self.send_raw(behaviour, user.encode(), body, 1 - murmur2(user.encode()) % PARTITIONS)
                continue
            if place < 0.06:
                self.forget(user)
                continue
            if place < 0.2:
                fields["id"] = draw.choice(("a", "b", f"{topic}/0/3", str(at)))
            elif place < 0.3:
                headers = (("original-record", draw.choice((f"{topic}/0/3", f"{topic}/1/4", "no/0/1", "x")).encode()),)
            self.send(behaviour, user, headers=headers, **fields)

    def check(self, **scope: Any) -> Report:
        return check(self.log, self.settings, scope=Scope(tables=True, **scope))


@pytest.fixture
def world(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "bundles")


def of_tables(report: Report) -> set[str]:
    return {kind for kind in report.kinds if kind.startswith("table-")}


@runs(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9), number=st.integers(1, 250), users=st.sampled_from(["u", "uvwxy"]))
def test_what_the_tally_publishes_is_right(tmp_path: Path, seed: int, number: int, users: str) -> None:
    world = Counted(tmp_path / "bundles")
    world.events(seed, number, users)
    world.count()
    world.publish()
    world.events(seed + 1, number // 3, users)
    world.count()
    world.publish()
    world.events(seed + 2, 20)  # after the epoch
    report = world.check()
    assert of_tables(report) == set(), [str(one) for one in report.violations]
    assert report.table_epoch == 2
    assert report.table_rows == len(world.sums.items)
    assert not report.notes


def test_a_whole_check_is_green(world: Counted) -> None:
    for number in range(60):
        world.send(0, "uvw"[number % 3], f"i{number % 7}")
    world.work()
    world.count()
    world.publish()
    report = world.check()
    assert (report.exit_code, report.table_rows) == (0, 7)


def altered_count(world: Counted, name: str) -> None:
    one = world.sums.items["i1"]
    world.sums.items["i1"] = ItemSums(*(value + (field == name) for field, value in zip(one._fields, one, strict=True)))


def dropped_pair(world: Counted) -> None:
    first = max(world.sums.ahead, key=lambda item: sum(world.sums.ahead[item].values()))
    second = max(world.sums.ahead[first], key=lambda item: world.sums.ahead[first][item])
    world.sums.set_pair(first, second, 0)


def altered_pair(world: Counted) -> None:
    first = max(world.sums.ahead, key=lambda item: sum(world.sums.ahead[item].values()))
    second = max(world.sums.ahead[first], key=lambda item: world.sums.ahead[first][item])
    world.sums.add_pair(first, second, 1)


@pytest.mark.parametrize(
    ("mutate", "kind"),
    [
        (lambda world: altered_count(world, "amount"), "table-count"),
        (lambda world: altered_count(world, "popular"), "table-count"),
        (lambda world: altered_count(world, "touched"), "table-count"),
        (dropped_pair, "table-pair"),
        (altered_pair, "table-pair"),
        (lambda world: setattr(world.sums, "now", world.sums.now - 1), "table-stale"),
    ],
    ids=["count", "popular", "touched", "dropped pair", "pair", "now"],
)
def test_a_tally_that_counts_wrong_is_red(world: Counted, mutate: Callable[[Counted], None], kind: str) -> None:
    world.events()
    world.count()
    mutate(world)
    world.publish()
    assert of_tables(world.check()) == {kind}


def test_a_count_of_an_item_that_nobody_has_chosen_is_red(world: Counted) -> None:
    world.events()
    world.count()
    world.sums.items["made-up"] = ItemSums(5, 5, 1)
    world.publish()
    report = world.check()
    assert of_tables(report) == {"table-count", "table-stale"}
    assert "'made-up'" in str(report.violations)


def test_rows_of_an_older_epoch_are_red(world: Counted) -> None:
    world.events()
    world.count()
    world.publish()
    world.events(2)
    world.count()
    epoch = world.epoch()
    world.publish(epoch, without=["i1"])
    report = world.check()
    assert "table-stale" in of_tables(report)
    assert {"the rows are not those of the newest closing record: the hash differs"} <= {
        one.message for one in report.violations if one.kind == "table-stale"
    }
    assert any("'i1'" in one.message for one in report.violations if one.kind in ("table-count", "table-pair"))


def test_offsets_that_were_not_counted_are_red(world: Counted) -> None:
    world.events()
    world.count()
    epoch = world.epoch()
    world.events(2)
    closed = replace(epoch.closed, offsets={name: offset + 1 for name, offset in epoch.closed.offsets.items()})
    closed = replace(closed, hash=tables.hash_of(epoch.rows.values(), closed))
    world.publish(Epoch(epoch.rows, epoch.lines, closed))
    assert of_tables(world.check()) & {"table-count", "table-pair"}


def test_an_epoch_that_goes_back_is_red(world: Counted) -> None:
    world.events()
    world.count()
    first = world.epoch()
    world.publish(first)
    world.publish(first)
    report = world.check()
    assert of_tables(report) == {"table-stale"}
    assert "epoch 1 after 1" in str(report.violations[-1])


BAD_RECORDS: list[tuple[bytes, bytes | None, str]] = [
    (b"i:i1", b"x", "Expecting value"),
    (b"i:i1", b"", "Expecting value"),
    (b"i:i1", b"[" * 100_000, ""),
    (b"i:i1", b'{"item": "i1"}', "epoch: expected a whole number"),
    (b"i:i1", b'{"item": "i2", "epoch": 1, "count": 1, "popular": 1, "touched": 1, "near": []}', "not that of the key"),
    (
        b"i:i1",
        b'{"item": "i1", "epoch": 1, "count": 1, "popular": true, "touched": 1, "near": []}',
        "popular: expected",
    ),
    (
        b"i:i1",
        b'{"item": "i1", "epoch": 1, "count": 1, "popular": 1, "touched": 1, "near": [["i2"]]}',
        "near: expected",
    ),
    (b"i:\xff", b"{}", "utf-8"),
    (b"e", b"{", "key 'e'"),
    (b"e", None, "no value"),
    (b"e", b"[]", "expected a JSON object"),
    (b"e", b'{"hash": 1}', "hash: expected a text"),
    (b"e", b'{"hash": "h", "bundle": "b", "epoch": -1}', "epoch: expected a whole number"),
]


@pytest.mark.parametrize(("key", "value", "text"), BAD_RECORDS)
def test_a_record_of_another_form_is_red_until_a_good_one_follows(
    world: Counted, key: bytes, value: bytes | None, text: str
) -> None:
    world.events()
    world.send(0, "u", item="e", time=NOW)
    world.count()
    world.publish()
    world.log.append(world.settings.tables_topic, 0, b"foreign", b"x")
    assert of_tables(world.check()) == set()
    world.log.append(world.settings.tables_topic, 0, key, value)
    report = world.check()
    assert "table-stale" in of_tables(report)
    assert key != b"e" or of_tables(report) == {"table-stale"}  # an item of this name keeps its row
    assert any("is not acceptable" in str(one) and text in str(one) for one in report.violations)
    if key == b"i:\xff":
        return
    world.written.clear()
    world.publish()
    assert of_tables(world.check()) == set()


def test_a_closing_record_with_numbers_that_are_none_is_red(world: Counted) -> None:
    world.events()
    world.count()
    world.publish()
    closed = json.loads(tables.encode_closed(world.epoch().closed))
    for changed in ({"back": "x"}, {"shrink": -1}, {"decay": None}, {"offsets": [1]}, {"offsets": {"clicks/0": "1"}}):
        world.log.append(world.settings.tables_topic, 0, tables.CLOSED_KEY, json.dumps(closed | changed).encode())
        assert "table-stale" in of_tables(world.check())


def test_offsets_beyond_the_log_are_red(world: Counted) -> None:
    world.events()
    world.count()
    world.counted = {name: offset + 99 for name, offset in world.counted.items()}
    world.publish()
    assert of_tables(world.check()) == {"table-stale"}


def test_what_is_deleted_cannot_be_counted_again(world: Counted) -> None:
    world.events()
    world.count()
    world.publish()
    topic = world.settings.sources[0]
    del world.log.topics[topic][0][:5]
    world.log.first[topic, 0] = 5
    report = world.check()
    assert of_tables(report) == set()
    assert report.unverifiable
    assert "deleted" in {one.kind for one in report.notes}


def test_no_epoch_is_said(world: Counted) -> None:
    report = world.check()
    assert ([one.kind for one in report.notes], report.exit_code) == (["no-epoch"], 0)


def test_a_bundle_that_is_not_there_is_named(world: Counted) -> None:
    world.events()
    world.count()
    world.tables = TableSettings(world.tables.shape, 0.5, 3.0, 6, "f" * 64)
    world.publish()
    with pytest.raises(DataError, match="ffffffffffff"):
        world.check()
