"""A capture holds each record exactly once, wherever it was killed, and nothing of a user who was forgotten."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.clients.log_reader import Span, TopicPartition
from deploy.clients.murmur2 import murmur2
from deploy.learning import capture as module
from deploy.learning.capture import Capture, Captured
from models.data import read as load_data
from models.data.capture import REFUSED, ranges, table
from stream.core.errors import DataError, DiskError, LossError
from stream.core.forgetting import control
from stream.settings import Settings, load
from tests.unit.synthetic import Lists

DAY = 86_400_000
NOW = 1_700_000_000_000
PARTITIONS = 2
TOPICS = ("clicks", "ratings", "comments", "items")


@pytest.fixture(autouse=True)
def _nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def settings() -> Settings:
    return load(partitions=PARTITIONS)


class Topics:
    """The source topics and the items as lists."""

    def __init__(self) -> None:
        self.log = Lists(TOPICS, PARTITIONS)
        self.sent: list[tuple[str, str, str]] = []  # topic, user, item

    def event(self, topic: str, user: str, item: str, time: int = NOW, **more: Any) -> None:
        body = {"user": user, "item": item, "time": time}
        body |= {"value": 4.0} if topic == "ratings" else {"text": "good"} if topic == "comments" else {}
        self.raw(topic, user, json.dumps(body | more).encode())
        self.sent.append((topic, user, item))

    def raw(self, topic: str, user: str, value: bytes | None, headers: Any = ()) -> None:
        key = user.encode()
        self.log.append(topic, murmur2(key) % PARTITIONS, key, value, headers, NOW)

    def item(self, item: str, **fields: Any) -> None:
        self.log.append("items", 0, item.encode(), json.dumps({"item": item, **fields}).encode())

    def forget(self, user: str) -> None:
        for topic in TOPICS[:3]:
            self.raw(topic, user, None, tuple(control()))
        self.sent = [one for one in self.sent if one[1] != user]


@pytest.fixture
def topics() -> Topics:
    return Topics()


def held(folder: Path) -> list[tuple[str, str, str]]:
    """Topic, user and item of every event in the folder."""
    return [
        (kind, *row)
        for kind in TOPICS[:3]
        for partition in range(PARTITIONS)
        for one in ranges(folder, kind, partition)
        for path in one.files()
        for row in table(path).select("user", "item").iter_rows()
    ]


def run(settings: Settings, folder: Path, topics: Topics, **more: Any) -> Captured:
    return Capture(settings, folder, topics.log, **more).run()


def test_events_are_kept_by_day_with_all_their_fields(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topics.event("clicks", "ann", "a", scene="home", action="cart", id="1", slate="s-1", rank=3, dwell_ms=1200)
    topics.event("ratings", "ann", "b", NOW - DAY)
    topics.event("comments", "bob", "c", value=2.5)
    done = run(settings, tmp_path / "kept", topics)
    assert dict(done.records) == {"clicks": 1, "ratings": 1, "comments": 1}
    (path,) = (tmp_path / "kept" / "clicks").rglob("day=2023-11-14.parquet")
    (row,) = table(path).iter_rows(named=True)
    assert row == {
        "user": "ann", "item": "a", "time": NOW, "value": None, "text": None, "scene": "home", "action": "cart", "id": "1",
        "slate": "s-1", "rank": 3, "dwell_ms": 1200, "partition": murmur2(b"ann") % PARTITIONS, "offset": 0, "appended": NOW,
    }  # fmt: skip
    about = pl.read_parquet_metadata(path)
    assert (about["topic"], about["first"], about["next"]) == ("clicks", "0", "1")
    assert list((tmp_path / "kept" / "ratings").rglob("day=2023-11-13.parquet"))
    (comment,) = (tmp_path / "kept" / "comments").rglob("day=*.parquet")
    assert table(comment)["value"].to_list() == [2.5]


def test_training_reads_the_folder_as_data(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topics.item("a", title="old")
    topics.item("a", title="Alpha", categories=["x"])
    topics.item("b", title="Beta")
    topics.log.append("items", 0, b"b", None)
    topics.event("clicks", "ann", "a", action="view")
    topics.event("ratings", "ann", "b")
    run(settings, tmp_path / "kept", topics)
    found = load_data(tmp_path / "kept")
    assert found.form == "freshet's capture"
    assert found.rating_scale == settings.rating_scale
    assert sorted(found.events.select("user", "item", "behaviour", "action").rows()) == [
        ("ann", "a", 0, "view"),
        ("ann", "b", 1, ""),
    ]
    assert [(one.item, one.title, one.categories) for one in found.items] == [("a", "Alpha", ("x",))]


def test_an_empty_capture_is_no_data(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    run(settings, tmp_path / "kept", topics)
    with pytest.raises(DataError, match="no event is captured yet"):
        load_data(tmp_path / "kept")


def test_a_second_run_adds_what_is_new_and_nothing_twice(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    for number in range(5):
        topics.event("clicks", f"u{number}", "a")
    run(settings, tmp_path, topics)
    topics.event("clicks", "u9", "b")
    assert run(settings, tmp_path, topics).records["clicks"] == 1
    assert run(settings, tmp_path, topics).ranges == 0
    assert sorted(held(tmp_path)) == sorted(topics.sent)


def test_what_a_worker_would_refuse_is_kept_and_counted(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topics.event("clicks", "ann", "a")
    topics.raw("clicks", "ann", b"{nonsense")
    topics.raw("ratings", "ann", b'{"user": "ann", "item": "a", "time": 1700000000000, "value": 77}')
    done = run(settings, tmp_path, topics)
    assert dict(done.refused) == {"malformed_json": 1, "rating_out_of_scale": 1}
    kept = pl.concat(table(path) for path in tmp_path.rglob(REFUSED))
    assert sorted(kept["value"].to_list())[0].startswith(b'{"user": "ann"')
    assert b"{nonsense" in kept["value"].to_list()
    assert held(tmp_path) == topics.sent


class Killed(BaseException):
    """Takes the place of SIGKILL: nothing of ours handles it."""


STEPS = ("mkdir", "replace", "rename", "unlink")


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the process end before its next change of the disk, once it has made so many."""
    left = [steps]

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def step(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*given, **named)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, counted(name))


def test_killed_at_any_step_it_goes_on_without_loss_or_double(
    settings: Settings, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        for topic in TOPICS[:3]:
            topics.event(topic, f"u{number % 3}", f"i{number}", NOW - number * DAY // 2)
    topics.forget("u1")
    topics.event("clicks", "u1", "new")
    for steps in range(200):
        folder = tmp_path / str(steps)
        with monkeypatch.context() as patch:
            kill_after(patch, steps)
            try:
                run(settings, folder, topics, rows=3)
                ended = True
            except Killed:
                ended = False
        run(settings, folder, topics, rows=3)
        assert sorted(held(folder)) == sorted(topics.sent)
        assert b"u1" not in b"".join(path.read_bytes() for path in folder.rglob("range.json"))
        assert not list(folder.rglob(f"{module.HALF}*"))
        shutil.rmtree(folder)
        if ended:
            break
    else:
        raise AssertionError("it never ended")
    assert steps > 50


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(TOPICS[:3]), st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)),
            st.just("run"),
            st.integers(0, 3),  # a user who is forgotten
        ),
        max_size=40,
    ),
    st.integers(1, 5),
)
def test_any_sequence_of_events_runs_and_forgetting(tmp_path_factory: Any, plan: list[Any], rows: int) -> None:
    settings, topics, folder = load(partitions=PARTITIONS), Topics(), tmp_path_factory.mktemp("kept")
    for one in [*plan, "run"]:
        if one == "run":
            run(settings, folder, topics, rows=rows)
            assert sorted(held(folder)) == sorted(topics.sent)
        elif isinstance(one, int):
            topics.forget(f"u{one}")
        else:
            topic, user, item, day = one
            topics.event(topic, f"u{user}", f"i{item}", NOW - day * DAY)


def test_nothing_of_a_forgotten_user_is_left(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topics.event("clicks", "secret-ann", "a")
    topics.raw("clicks", "secret-ann", b"not json of secret-ann")
    topics.event("clicks", "bob", "a")
    run(settings, tmp_path, topics)
    topics.forget("secret-ann")
    assert run(settings, tmp_path, topics).forgotten == 2
    for path in tmp_path.rglob("*.parquet"):
        assert "secret-ann" not in str(table(path).to_dicts())
    assert held(tmp_path) == [("clicks", "bob", "a")]
    topics.event("clicks", "secret-ann", "b")  # who comes back is a new user
    run(settings, tmp_path, topics)
    assert ("clicks", "secret-ann", "b") in held(tmp_path)


def test_deleted_records_are_a_loss_that_must_be_accepted(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    for number in range(4):
        topics.event("clicks", "ann", f"i{number}")
    run(settings, tmp_path, topics)
    where = ("clicks", murmur2(b"ann") % PARTITIONS)
    for number in range(4):
        topics.event("clicks", "ann", f"j{number}")
    topics.log.topics["clicks"][where[1]] = topics.log.topics["clicks"][where[1]][6:]
    topics.log.first[where] = 6
    with pytest.raises(LossError, match=r"begins at offset 6, .* up to 4 only: 2 offsets .*--accept-loss"):
        run(settings, tmp_path, topics)
    assert run(settings, tmp_path, topics, accept_loss=True).missing == 2
    topics.event("clicks", "ann", "k")
    run(settings, tmp_path, topics)  # the gap is explained
    assert [item for _, _, item in held(tmp_path)] == ["i0", "i1", "i2", "i3", "j2", "j3", "k"]


def test_a_topic_that_was_made_again_is_named(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    for number in range(4):
        topics.event("clicks", "ann", f"i{number}")
    run(settings, tmp_path, topics)
    fresh = Topics()
    fresh.event("clicks", "ann", "x")
    with pytest.raises(LossError, match=r"ends at offset 1, .* up to 4: the topic was deleted and made again"):
        run(settings, tmp_path, fresh)


@pytest.mark.parametrize("newest", ["an event", "a refused record", "a control record"])
def test_a_topic_that_was_made_again_and_has_grown_longer_is_named(
    settings: Settings, topics: Topics, tmp_path: Path, newest: str
) -> None:
    """Its first records would be missing, and nothing else would show it."""
    topics.event("clicks", "ann", "a")
    if newest == "a refused record":
        topics.raw("clicks", "ann", b"{")
    run(settings, tmp_path, topics)
    if newest == "a control record":
        topics.event("clicks", "ann", "b")
        run(settings, tmp_path, topics)
        topics.forget("ann")
        topics.event("clicks", "bob" if murmur2(b"bob") % 2 == murmur2(b"ann") % 2 else "ann", "b")
        run(settings, tmp_path, topics)
    again = Topics()
    for number in range(9):
        body = json.dumps({"user": "ann", "item": "a", "time": NOW}).encode()
        again.log.append("clicks", murmur2(b"ann") % PARTITIONS, b"ann", body, (), NOW + 7 + number)
    before = held(tmp_path)
    with pytest.raises(LossError, match=r"clicks/\d.*was appended.*made again, or the brokers are of another cluster"):
        run(settings, tmp_path, again)
    assert held(tmp_path) == before


@pytest.mark.parametrize("moment", [-1, 10**17, -(10**17), 2**63 - 1])
def test_a_record_with_an_impossible_time_is_captured(
    settings: Settings, topics: Topics, tmp_path: Path, moment: int
) -> None:
    """Producers may write any time."""
    topics.log.append("items", 0, b"a", b'{"item": "a", "title": "A"}', (), moment)
    topics.log.append("items", 0, b"b", b"{", (), moment)
    topics.log.append("clicks", 0, b"ann", b"{", (), moment)
    assert run(settings, tmp_path, topics).records["items"] == 1
    topics.item("c", title="C")
    assert run(settings, tmp_path, topics).records["items"] == 1
    again = Topics()
    again.log.append("clicks", 0, b"ann", b"{", (), moment)
    for _ in range(9):
        again.log.append("items", 0, b"a", b'{"item": "a", "title": "A"}', (), moment - 1 if moment > 0 else moment + 1)
    with pytest.raises(LossError, match="was appended"):
        run(settings, tmp_path, again)


def test_a_newest_record_that_is_deleted_says_nothing(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    topics.event("clicks", "ann", "a")
    topics.event("clicks", "ann", "b")
    run(settings, tmp_path, topics)
    place = murmur2(b"ann") % PARTITIONS
    topics.event("clicks", "ann", "c")
    del topics.log.topics["clicks"][place][:2]
    topics.log.first["clicks", place] = 2
    assert run(settings, tmp_path, topics).records["clicks"] == 1
    topics.item("a")
    run(settings, tmp_path, topics)
    topics.item("a", title="new")
    del topics.log.topics["items"][0][0]  # compacted
    assert run(settings, tmp_path, topics).records["items"] == 1


def test_a_folder_of_something_else_is_refused(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(DataError, match=r"holds 'thesis.doc' and no capture.json"):
        run(settings, tmp_path, topics)


def test_other_topics_are_refused(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    run(settings, tmp_path, topics)
    with pytest.raises(DataError, match="partitions is 2, the settings say 3"):
        run(load(partitions=3), tmp_path, topics)


def test_a_range_that_is_missing_is_named(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    for number in range(6):
        topics.event("clicks", "ann", f"i{number}")
    run(settings, tmp_path, topics, rows=2)
    (home,) = {path.parent.parent for path in tmp_path.rglob("day=*.parquet")}
    shutil.rmtree(sorted(home.iterdir())[1])
    with pytest.raises(DataError, match="begins at offset 4, expected 2"):
        run(settings, tmp_path, topics)


def test_two_processes_do_not_capture_into_one_folder(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    class Meanwhile(Lists):
        def spans(self, names: Any) -> dict[TopicPartition, Span]:
            with pytest.raises(DataError, match="another process captures into it"):
                run(settings, tmp_path, topics)
            return super().spans(names)

    other = Topics()
    other.log = Meanwhile(TOPICS, PARTITIONS)
    run(settings, tmp_path, other)


def test_a_full_disk_is_named(
    settings: Settings, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.event("clicks", "ann", "a")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    run(settings, tmp_path, Topics())
    monkeypatch.setattr(module, "sync", full)
    with pytest.raises(DiskError, match=r"cannot be written: .*No space left on device"):
        run(settings, tmp_path, topics)
