"""One set of events and one of items: what a reader of data lets through is what the wire takes, and nothing else."""

from __future__ import annotations

import json
import math
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.cli.commands.send import _checked
from deploy.cli.main import app
from models.data import event_messages, item_messages, read
from models.data.dataset import SCHEMA, Event, dataset
from models.data.rows import cut, identity, moment, rating
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError, RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import CLICK, COMMENT, FUTURE_MS, MAX_ID, MAX_TEXT, MAX_TIME, RATING, SOURCE_TOPICS, Item
from stream.settings import Settings

SCALE = (0.5, 5.0)
NOW = 1_750_000_000_000
DECODER = EventDecoder(kafka_hash, 4, SCALE)
GOOD = Event("u", "i", CLICK, NOW)


def good(**fields: Any) -> Event:
    """A good event with these values, of whatever type, in place of its own."""
    return GOOD._replace(**fields)


def wire_takes(event: Event) -> bool:
    """By the decoder of a worker, of a record that is appended at NOW; a producer that writes Infinity writes no JSON."""
    body: dict[str, Any] = {"user": event.user, "item": event.item, "time": event.time, "scene": event.scene}
    if event.behaviour == COMMENT:
        body["text"] = event.text
    if event.behaviour == RATING or (event.behaviour == COMMENT and not math.isnan(event.value)):
        body["value"] = event.value
    if event.behaviour == CLICK:
        body["action"] = event.action
    key = event.user.encode()
    try:
        DECODER.decode(event.behaviour, DECODER.partition(key), 0, NOW, key, json.dumps(body).encode())
    except RecordError:
        return False
    return True


def reader_takes(events: Any, items: Any = ()) -> bool:
    try:
        dataset("x", events, items, SCALE, now_ms=NOW)
    except DataError:
        return False
    return True


LONGEST = (MAX_ID, MAX_ID + 1)
TEXTS = st.one_of(
    st.sampled_from(["", "*", "**", "*\0", "\0", "a\0b", "a\n", "\r*", "None", " ", "\ufeff", "\u2028"]),
    st.sampled_from([char * count for char in ("x", "\U0001f600") for count in LONGEST]),
    st.text(max_size=8),
)
TIMES = st.one_of(
    st.sampled_from([-(2**63), -1, 0, 1, NOW, NOW + FUTURE_MS, NOW + FUTURE_MS + 1, MAX_TIME, MAX_TIME + 1, 2**63 - 1]),
    st.integers(-(2**63), 2**63 - 1),
)
RATINGS = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 0.5, 5.0, 0.4999999, 5.0000001, -0.0, 1e300]), st.floats()
)
PROSE = st.one_of(TEXTS, st.sampled_from(["x" * MAX_TEXT, "x" * (MAX_TEXT + 1), "\U0001f600" * MAX_TEXT]))


@st.composite
def events(draw: st.DrawFn) -> Event:
    """A good event, spoilt in up to two fields."""
    behaviour = draw(st.sampled_from([CLICK, RATING, COMMENT]))
    made = Event("u", "i", behaviour, NOW, math.nan if behaviour == CLICK else 3.0, "t" if behaviour == COMMENT else "")
    fields = {"user": TEXTS, "item": TEXTS, "time": TIMES, "scene": TEXTS}
    fields |= {"value": RATINGS} if behaviour != CLICK else {"action": TEXTS}
    fields |= {"text": PROSE} if behaviour == COMMENT else {}
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=2))
    spoilt: dict[str, Any] = {name: draw(fields[name]) for name in names}
    return made._replace(**spoilt)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events())
@example(Event("*", "i", CLICK, NOW))
@example(Event("a\0", "i", CLICK, NOW))
@example(Event("u", "*", CLICK, NOW))
@example(Event("u", "i", RATING, NOW))
@example(Event("u", "i", COMMENT, NOW, text="x" * (MAX_TEXT + 1)))
@example(Event("u", "i", CLICK, NOW + FUTURE_MS + 1))
@example(Event("u", "i", CLICK, NOW, scene="x" * 257))
@example(Event("u", "i", CLICK, NOW, action="x" * 256))
@example(Event("u", "i", CLICK, NOW, action="x" * 257))
def test_a_reader_takes_an_event_where_the_wire_takes_it_and_nowhere_else(event: Event) -> None:
    assert reader_takes([event]) == wire_takes(event)


@settings(max_examples=100, deadline=None)
@given(st.lists(events(), max_size=4))
def test_what_a_data_set_holds_is_taken_by_the_wire_as_it_is(made: list[Event]) -> None:
    try:
        data = dataset("x", made, [], SCALE, now_ms=NOW)
    except DataError:
        assert not all(wire_takes(event) for event in made)
        return
    for message, row in zip(event_messages(data.events), data.events.iter_rows(named=True), strict=True):
        behaviour = SOURCE_TOPICS.index(message.topic)
        partition = DECODER.partition(message.key)
        found = DECODER.decode(behaviour, partition, 0, NOW, message.key, message.value)
        fields = (found.user.decode(), found.item, found.time, found.scene, found.text, found.action)
        assert fields == (row["user"], row["item"], row["time"], row["scene"], row["text"], row["action"])


LABELS = st.one_of(st.none(), st.lists(TEXTS, max_size=2), st.sampled_from([["a"] * 64, ["a"] * 65]))
TITLES = st.one_of(TEXTS, st.sampled_from(["x" * 1024, "x" * 1025, "\ud800"]))


@settings(max_examples=150, deadline=None)
@given(TEXTS, TITLES, st.one_of(st.none(), PROSE), LABELS, LABELS, st.booleans())
@example("i", "x" * 1025, None, None, None, True)
@example("i", "t", None, ["x" * 257], None, True)
@example("i", "t", None, ["x"] * 65, None, True)
def test_a_reader_takes_an_item_where_the_wire_takes_it(
    name: str, title: str, text: str | None, categories: list[str] | None, scenes: list[str] | None, there: bool
) -> None:
    labels = [None if one is None else tuple(one) for one in (categories, scenes)]
    item = Item(name, title, text, labels[0], labels[1], available=there)
    try:
        JsonDecoder(Item).decode(msgspec.json.encode(item))
        taken = True
    except (RecordError, UnicodeEncodeError):
        taken = False
    assert reader_takes([GOOD], [item]) == taken
    if taken:
        (message,) = item_messages([item])
        again = JsonDecoder(Item).decode(message.value)
        assert (again.item, again.title, again.text or "") == (name, title, text or "")
        assert (again.categories or (), again.scenes or ()) == (labels[0] or (), labels[1] or ())


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (good(user="*"), r"user: found '\*', expected a user id other than `\*`"),
        (good(user="a\0"), r"user: found 'a\\x00', expected a user id"),
        (good(user=None), "user: found null, expected a text of 1 to 256"),
        (good(user=True), "user: found True, expected a text of 1 to 256"),
        (good(user=5.0), r"user: found 5\.0, expected a text of 1 to 256"),
        (good(user=["x"]), r"user: found \['x'\], expected a text"),
        (good(user={"a": 1}), r"user: found \{'a': 1\}, expected a text"),
        (good(user="a\ud800"), "user: found .*expected a text"),
        (good(item=""), "item: found '', expected a text of 1 to 256"),
        (good(item="x" * 257), r"item: found 'x+\.\.\.' \(257 characters\), expected a text of 1 to 256"),
        (good(scene="x" * 257), "scene: found .*expected a text of at most 256"),
        (good(text="x" * 20_000), r"text: found .*\(20000 characters\), expected a text of at most 16384"),
        (good(action="x" * 257), "action: found .*expected a text of at most 256"),
        (good(action=None), "action: found null, expected a text"),
        (Event("u", "i", RATING, NOW, 3.0, action="like"), "action: found 'like', expected none, because only clicks"),
        (Event("u", "i", COMMENT, NOW, action="like"), "action: found 'like', expected none, because only clicks"),
        (good(behaviour=3), "behaviour: found 3, expected 0 to 2"),
        (good(behaviour=-1), "behaviour: found -1, expected 0 to 2"),
        (good(time=1.5), r"time: found 1\.5, expected whole milliseconds"),
        (good(time=True), "time: found True, expected whole milliseconds"),
        (good(time="5"), "time: found '5', expected whole milliseconds"),
        (good(time=2**70), "time: found 1180591620717411303424, expected whole milliseconds"),
        (good(time=-1), "time: found -1, expected 0 to "),
        (good(time=NOW + FUTURE_MS + 1), "time: found 1750003600001, expected at most one hour after now"),
        (good(time=NOW * 1000), "looks like microseconds; times are milliseconds: divide by 1000"),
        (good(time=NOW * 1_000_000), "looks like nanoseconds; times are milliseconds: divide by 1000000"),
        (Event("u", "i", RATING, NOW), "value: found none, expected 0.5 to 5"),
        (Event("u", "i", RATING, NOW, 7), r"value: found 7\.0, expected 0.5 to 5"),
        (Event("u", "i", RATING, NOW, True), "value: found True, expected a number"),
        (Event("u", "i", RATING, NOW, None), "value: found null, expected a number"),  # type: ignore[arg-type]
        (Event("u", "i", COMMENT, NOW, math.inf), "value: found inf, expected 0.5 to 5"),
    ],
)
def test_what_is_refused_names_field_value_and_expected(event: Event, message: str) -> None:
    with pytest.raises(DataError, match=rf"^mine: .*{message}"):
        dataset("mine", [GOOD, event], [], SCALE, now_ms=NOW)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"user": [1.0]}, "user: found a column of Float64, expected String"),
        ({"time": [1.0]}, "time: found a column of Float64, expected whole numbers"),
        ({"value": ["4"]}, "value: found a column of String, expected numbers"),
        ({"item": [None]}, "item: found a column of Null, expected String"),
        ({"user": [["x"]]}, "user: found a column of List"),
        ({"behaviour": [True]}, "behaviour: found a column of Boolean, expected whole numbers"),
        ({"value": pl.Series([None], dtype=pl.Float64)}, "value: found null"),
        ({"user": pl.Series([None], dtype=pl.String)}, "user: found null"),
        ({"text": pl.Series([None], dtype=pl.String)}, "text: found null"),
        ({"action": [1]}, "action: found a column of Int64, expected String"),
    ],
)
def test_a_table_of_other_columns_is_refused(column: dict[str, Any], message: str) -> None:
    good = pl.DataFrame([GOOD], schema=SCHEMA, orient="row")
    with pytest.raises(DataError, match=rf"^mine: {message}"):
        dataset("mine", good.with_columns(**{name: pl.Series(values) for name, values in column.items()}), [], SCALE)
    with pytest.raises(DataError, match="mine: scene: missing"):
        dataset("mine", good.drop("scene"), [], SCALE)


def test_numbers_of_other_widths_and_columns_in_another_order_are_read() -> None:
    table = pl.DataFrame([good(time=7, value=3.0)], schema=SCHEMA, orient="row")
    other = table.with_columns(pl.col("time").cast(pl.UInt32), pl.col("value").cast(pl.Float32)).select(
        "value", "time", "scene", "text", "behaviour", "item", "user"
    )
    data = dataset("x", other, [], SCALE)
    assert dict(data.events.schema) == SCHEMA
    assert data.events.rows() == [("u", "i", CLICK, 7, 3.0, "", "", "", "")], (
        "and without the columns no action and no id"
    )


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item("i", "again"), "item: found 'i' twice, expected each item once"),
        (Item("", "t"), "item ''.*item: "),
        (Item("j", "x" * 1025), r"item 'j': title: .*1024"),
        (Item("j", "t", categories=("x" * 257,)), r"item 'j': categories.*256"),
        (Item("j", "t", categories=("x",) * 65), r"item 'j': categories.*64"),
        (Item("j", "t", text="x" * 20_000), r"item 'j': text: .*16384"),
        (Item("j", "\ud800"), r"item 'j': .*surrogate"),
        (Item("j", None), r"item 'j': title: "),  # type: ignore[arg-type]
        (Item(7, "t"), r"item 7: item: "),  # type: ignore[arg-type]
    ],
)
def test_an_item_that_is_refused_is_named(item: Item, message: str) -> None:
    with pytest.raises(DataError, match=f"^mine: {message}"):
        dataset("mine", [GOOD], [Item("i", "t"), item], SCALE, now_ms=NOW)


@pytest.mark.parametrize(
    ("movies", "ratings", "message"),
    [
        ("1,A,x\n", "*,1,4,1000000000\n", r"user: found '\*'"),
        ("1,A,x\n", "a\0,1,4,1000000000\n", r"user: found 'a\\x00'"),
        (
            "1,A,x\n",
            "1,1,4,4102444800\n",
            "ratings.csv, line 2: timestamp: time '4102444800': expected at most one hour after now",
        ),
    ],
)
def test_a_folder_that_replay_could_not_send_is_not_read(
    tmp_path: Path, movies: str, ratings: str, message: str
) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + movies)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("movies", "item"),
    [
        ("1,A,x\n1,B,y\n", Item("1", "B", categories=("y",))),
        ("1," + "t" * 1025 + ",x\n", Item("1", "t" * 1024, categories=("x",))),
        ("1,A," + "x" * 257 + "\n", Item("1", "A", categories=("x" * 256,))),
        ("1,A," + "|".join(map(str, range(65))) + "\n", Item("1", "A", categories=tuple(map(str, range(64))))),
    ],
)
def test_what_a_reader_of_published_files_makes_fit(tmp_path: Path, movies: str, item: Item) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + movies)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,1000000000\n")
    assert read(tmp_path).items == (item,)


# the readers' entrances


@pytest.mark.parametrize("value", [None, True, 1.0, 12.5, math.nan, [], ["a"], {}, b"a", "", "x" * 257, "a\ud800"])
def test_what_is_no_id(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^id .*: expected a text of 1 to 256 characters or a whole number"):
        identity(value)


def test_ids_are_texts_and_whole_numbers() -> None:
    assert [identity(value) for value in ("a", 12, "12.0", "x" * 256)] == ["a", "12", "12.0", "x" * 256]
    assert [identity(value, whole_floats=True) for value in (12.0, "12.0", "12.00", "a.0", 12, "1.5")] == [
        "12", "12", "12", "a.0", "12", "1.5",
    ]  # fmt: skip
    assert [identity(Decimal(text), whole_floats=True) for text in ("12.00", "9007199254740993")] == [
        "12",
        "9007199254740993",
    ]
    for value in (
        12.5,
        math.nan,
        math.inf,
        2.0**60,
        "9007199254740993.0",
        f"{9:0>400}.0",
        Decimal("1.5"),
        Decimal("NaN"),
    ):
        with pytest.raises(ValueError, match=r"^id "):
            identity(value, whole_floats=True)


@pytest.mark.parametrize(
    ("value", "unit", "found"),
    [
        (NOW, 1, NOW), (str(NOW), 1, NOW), (float(NOW), 1, NOW), (f"{NOW}.0", 1, NOW), ("1.7e12", 1, 1_700_000_000_000),
        (1_700_000_000.123, 1000, 1_700_000_000_123), ("1700000000.123456", 1000, 1_700_000_000_123), ("-0", 1, 0),
    ],
)  # fmt: skip
def test_times_are_exact(value: Any, unit: int, found: int) -> None:
    assert moment(value, unit) == found


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        "1.5",
        "soon",
        "1_000",
        "",
        "nan",
        "inf",
        math.nan,
        math.inf,
        "1e999999999",
        "9" * 5000,
        [],
        {},
        -1,
    ],
)
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^time .*: expected "):
        moment(value)


def test_a_time_that_has_not_come_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most one hour after now"):
        moment(int(time.time()) + 7200, 1000)
    with pytest.raises(ValueError, match="looks like microseconds; times are milliseconds: divide by 1000"):
        moment(NOW * 1000)
    assert moment(int(time.time()) + 1800, 1000)


@pytest.mark.parametrize("value", [None, True, "4_0", "", "x", "nan", math.nan, [4], {}, 0.4, "5.1", "inf", b"4"])
def test_what_is_no_rating(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^rating .*: expected 0\.5 to 5$"):
        rating(value, SCALE)
    assert [rating(one, SCALE) for one in (4, "4.0", 0.5, " 5 ")] == [4.0, 4.0, 0.5, 5.0]


def test_prose_is_cut_and_nothing_else_is_prose() -> None:
    assert cut("x" * 20_000) == "x" * MAX_TEXT
    assert cut("x" * 2000, 1024) == "x" * 1024
    with pytest.raises(ValueError, match=r"^text null: expected a text"):
        cut(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^text .*: expected a text"):
        cut("\ud800")


def test_a_scene_is_never_cut(tmp_path: Path) -> None:
    review = {
        "user_id": "U",
        "item_id": "I",
        "rating": 2.0,
        "timestamp_ms": NOW,
        "category": "x" * 257,
        "title": "y" * 2000,
    }
    (tmp_path / "reviews.jsonl").write_text(json.dumps(review))
    with pytest.raises(DataError, match=r"scene: found .*\(257 characters\)"):
        read(tmp_path)
    (tmp_path / "reviews.jsonl").write_text(json.dumps(review | {"category": "x"}))
    assert read(tmp_path).items[0].title == "y" * 1024


# `freshet send` and `freshet replay`


@pytest.mark.parametrize(
    ("kind", "line", "message"),
    [
        ("click", {"user": "*", "item": "i", "time": NOW}, "line 1: user: found .*expected a user id other than"),
        (
            "click",
            {"user": "u", "item": "i", "time": 7_000_000_000_000},
            "line 1: time: expected at most one hour after now",
        ),
        (
            "click",
            {"user": "u", "item": "i", "time": NOW * 1000},
            "looks like microseconds; times are milliseconds: divide",
        ),
        ("rating", {"user": "u", "item": "i", "time": NOW, "value": 7}, "line 1: value: expected 0.5 to 5, got 7.0"),
        ("item", {"item": "i", "title": "x" * 1025}, "line 1: title: .*1024"),
    ],
)
def test_send_refuses_what_a_worker_would(kind: str, line: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        list(_checked(kind, Settings(), iter([("line 1: ", json.dumps(line).encode())])))


def test_replay_refuses_what_a_worker_of_the_settings_would_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"user": "u", "item": "i", "time": NOW, "value": 7}
    (tmp_path / "ratings.jsonl").write_text(json.dumps(line))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is sent before all is looked at")

    monkeypatch.setattr("deploy.clients.producer.Producer", never)
    error = CliRunner().invoke(app, ["replay", str(tmp_path)]).exception
    assert isinstance(error, DataError)
    assert "value: found 7.0, expected 0.5 to 5 (event 1 of 1: user 'u', item 'i'" in str(error)


def test_a_log_of_messages_is_read_as_the_wire_reads_it(tmp_path: Path) -> None:
    good = {"user": "u", "item": "i", "time": float(NOW)}
    (tmp_path / "clicks.jsonl").write_text(json.dumps(good))
    assert read(tmp_path).events["time"].to_list() == [NOW]
    (tmp_path / "clicks.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | {"time": NOW * 1000}))
    with pytest.raises(DataError, match=r"clicks\.jsonl, line 2: time: .*looks like microseconds"):
        read(tmp_path)
