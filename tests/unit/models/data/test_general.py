"""One file of one's own, by the names of its columns: events as they stand there, or an error with the line."""

from __future__ import annotations

import datetime
import io
import json
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from deploy.cli.data_options import load
from deploy.cli.main import app
from models.data import read
from models.data.checked import require_accepted
from models.data.choices import parse_weights
from models.data.dataset import NAN, Event
from models.data.general import Columns, read_columns
from stream.core.errors import DataError
from stream.core.messages import CLICK, COMMENT, RATING
from stream.core.validation import Rules
from tests.conftest import ROOT
from tests.unit.models.data.data_samples import lines, rated, shown

ALL = Columns("who", "what", "when", "stars", "kind", "said", "where")
T = 1_445_981_651
EVENTS = [
    Event("ann", "a", CLICK, T * 1000, NAN, "", "home"),
    Event("ann", "b", RATING, (T + 1) * 1000, 4.5, "", ""),
    Event("bob", "a", COMMENT, (T + 2) * 1000, 1.0, 'so; "so", and so', "home"),
    Event("bob", "b", COMMENT, (T + 3) * 1000, NAN, "two\nlines", ""),
]
ROWS = [
    {"what": event.item, "kind": ("click", "rating", "comment")[event.behaviour], "who": event.user, "when": event.time // 1000,
     "stars": None if event.value != event.value else event.value, "said": event.text, "where": event.scene or None, "more": 1}
    for event in EVENTS
]  # fmt: skip


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv(separator: str) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(ROWS).write_csv(buffer, separator=separator)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [csv(","), csv(";"), csv("\t"), csv("|"), lines(*(json.dumps(row) for row in ROWS)), parquet()]
)
def test_every_kind_of_file_gives_the_same_events(tmp_path: Path, content: bytes) -> None:
    data = read_columns(written(tmp_path / "log.of.mine", content), ALL)
    assert shown([Event(*row) for row in data.events.iter_rows()]) == shown(EVENTS)
    assert data.rating_scale == (1.0, 4.5)
    assert data.notes == (
        "read as: columns by name",
        "times of when read as s",
        "rating scale 1 to 4.5: the smallest and the largest value of stars",
    )
    assert read_columns(tmp_path / "log.of.mine", ALL, (0.5, 5.0)).rating_scale == (0.5, 5.0)


@pytest.mark.parametrize(
    ("written_as", "unit"),
    [
        (str(T), "s"), (f"{T}.0", "s"), (f"{T / 1e9}e9", "s"), (f"{T}000", "ms"), (f"{T}000000", "us"), (f"{T}000000000", "ns"),
        ("2015-10-27T21:34:11", "ISO 8601"), ("2015-10-27 21:34:11Z", "ISO 8601"), ("2015-10-27T23:34:11.000+02:00", "ISO 8601"),
    ],
)  # fmt: skip
def test_the_unit_of_times_is_found(tmp_path: Path, written_as: str, unit: str) -> None:
    data = read_columns(written(tmp_path / "x.csv", f"u,i,t\na,b,{written_as}\n"), Columns("u", "i", "t"))
    assert data.events["time"].to_list() == [T * 1000]
    assert data.notes[1] == f"times of t read as {unit}"


def test_times_of_parquet(tmp_path: Path) -> None:
    at = datetime.datetime(2015, 10, 27, 21, 34, 11, tzinfo=datetime.UTC)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    for time in (at, at.replace(tzinfo=None), at.astimezone(zone)):
        pl.DataFrame({"u": [7], "i": [2.0], "t": [time]}).write_parquet(tmp_path / "x.parquet")
        data = read_columns(tmp_path / "x.parquet", Columns("u", "i", "t"))
        assert data.events.rows()[0][:4] == ("7", "2", CLICK, T * 1000)


def test_without_times_lines_are_in_order(tmp_path: Path) -> None:
    data = read_columns(written(tmp_path / "x.csv", "u,i\n1,9\n2,5\n1,3\n1,9\n"), Columns("u", "i"))
    assert data.events.filter(pl.col("user") == "1")["item"].to_list() == ["9", "3", "9"]
    assert not data.timed
    assert "no time column" in data.notes[1]


def test_numbers_that_became_floats_are_the_same_names(tmp_path: Path) -> None:
    data = read_columns(written(tmp_path / "x.csv", "u,i\n12.0,9\n12,5\n"), Columns("u", "i"))
    assert set(data.events["user"]) == {"12"}


def test_what_an_event_is_by_its_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"u,i,t,v,s\na,b,{T},4,hm\na,c,{T},5,\n")
    assert shown([Event(*row) for row in read_columns(path, Columns("u", "i", "t", "v")).events.iter_rows()]) == shown(
        rated(("a", "b", 4.0, T * 1000), ("a", "c", 5.0, T * 1000))
    )
    comments = read_columns(path, Columns("u", "i", "t", "v", text="s")).events
    assert comments["behaviour"].to_list() == [COMMENT] * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("who,what,when\na,b,5\n",
         r"x, line 1: no column kind, no column said, no column stars, no column where; columns found: who, what, when"),
        ("who,what,when,stars,kind,said,where\na,b,5,,click,\n", "x, line 2: expected 7 fields"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,click,,\na,b,{T},x,rating,,\n", "x, line 3: stars: "),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,rating,,\n", "x, line 2: stars: empty; a rating needs a value"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},4,click,,\n", "x, line 2: stars: a click has no value"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,click,hm,\n", "x, line 2: said: only a comment has a text"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,view,,\n",
         "x, line 2: kind: found 'view', expected click, rating, comment"),
        (f"who,what,when,stars,kind,said,where\n,b,{T},,click,,\n", "x, line 2: who: "),
        ("who,what,when,stars,kind,said,where\na,b,soon,,click,,\n",
         "x, line 2: when: time 'soon': expected a whole number"),
        ("who,what,when,stars,kind,said,where\na,b,12345,,click,,\n",
         "x, line 2: when: 12345 is not between 1990 and 2100 in any unit"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,click,,\na,c,{T}000,,click,,\n",
         "x, line 3: when: a time in ms, but line 2 has s; expected one unit"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},,click,,\na,c,2015-10-27,,click,,\n",
         "x, line 3: when: a time in ISO 8601, but line 2 has s"),
        (f"who,what,when,stars,kind,said,where\na,b,{T},3,rating,,\n", "every value is 3, so the values say nothing; leave"),
        ('{"who": 1}\n', "x, line 1: missing field 'what'"),
        ('{"who": 1, "what": true, "when": 1}\n', "x, line 1: what: found True, expected a text or a whole number"),
        ('{"who": 1, "what": 1.5e400, "when": 1}\n', "x, line 1: "),
        ('{"who": 1, "what": 2}\n', "x, line 1: kind: found 'None', expected click"),
        ("", "x, line 1: no column"),
        ("who,what,when,stars,kind,said,where\n", "x: found no rows"),
        ('who,what,when,stars,kind,said,where\na,b,5,,comment,"open,\n', "x, line 2: a double quote opens a field here"),
    ],
)  # fmt: skip
def test_what_is_wrong_names_the_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_columns(written(tmp_path / "x", content), ALL)


def test_a_folder_or_a_missing_column_of_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; if you name columns, name one file"):
        read_columns(tmp_path, ALL)
    with pytest.raises(DataError, match="no column nobody; columns found: what, kind"):
        read_columns(written(tmp_path / "x", parquet()), Columns("nobody", "what"))


def test_options_that_lack_another_say_which(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "u,i\n1,9\n")
    assert len(load(path, {"user": "u", "item": "i"}).events) == 1
    for given, message in (
        ({"user": "u"}, "--user names a column, so --item must name one too"),
        ({"item": "i"}, "--item names a column, so --user must name one too"),
        ({"time": "t"}, "--time names a column, so --user and --item must name one too"),
        ({"action": "a"}, "--action-column names a column, so --user and --item must name one too"),
    ):
        with pytest.raises(DataError, match=message):
            load(path, given)
    with pytest.raises(DataError, match="the data are `generated`"):
        load(Path("generated"), {"user": "u", "item": "i"})


def test_a_command_reads_by_the_names_of_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"u,i,t,v\n1,9,{T},4\n1,9,{T},high\n")
    named = ["--user", "u", "--item", "i", "--time", "t", "--value", "v"]
    result = CliRunner().invoke(app, ["replay", str(path), *named])
    assert "x.csv, line 3: v: " in f"{result.output} {result.exception}"


READERS = ("train", "evaluate", "replay", "read-ratings")


def test_every_command_that_reads_data_has_the_same_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    wanted = {"--user", "--item", "--time", "--value", "--behaviour", "--text", "--scene", "--action-column"}
    wanted |= {f"--{column.name}-column" for column in fields(Columns)}
    for name in READERS:
        assert wanted <= {option for parameter in commands[name].params for option in parameter.opts}, name


def test_the_weights_of_actions_and_their_column_name_each_other() -> None:
    for name in READERS:
        command: Any = get_command(app)
        helps = {option: parameter.help for parameter in command.commands[name].params for option in parameter.opts}
        assert "weight" in helps["--action-column"], name
        if name in ("train", "evaluate"):
            assert "--action-column" in helps["--action"], name
            assert "--action " in helps["--action-column"], name
    with pytest.raises(DataError, match="to name a column of actions, use --action-column"):
        parse_weights(["verb"])


def test_a_column_of_actions_says_what_clicks_did(tmp_path: Path) -> None:
    rows = [{"u": "a", "i": "x", "t": T, "did": "view"}, {"u": "a", "i": "y", "t": T + 1, "did": None}]
    pl.DataFrame(rows).write_csv(tmp_path / "x.csv")
    pl.DataFrame(rows).write_parquet(tmp_path / "x.parquet")
    written(tmp_path / "x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for name in ("x.csv", "x.parquet", "x.jsonl"):
        events = read_columns(tmp_path / name, Columns("u", "i", "t", action="did")).events
        assert events.select("behaviour", "action").rows() == [(CLICK, "view"), (CLICK, "")], name
    by_option = load(tmp_path / "x.csv", {"user": "u", "item": "i", "time": "t", "action": "did"})
    assert by_option.events["action"].to_list() == ["view", ""]


def test_an_action_of_what_is_no_click_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"u,i,t,v,kind,did\na,b,{T},,click,view\na,c,{T},4,rating,view\n")
    named = Columns("u", "i", "t", "v", "kind", action="did")
    with pytest.raises(DataError, match=r"x.csv, line 3: did: found 'view' with a rating; only a click has an action"):
        read_columns(path, named)
    rated = written(tmp_path / "y.csv", f"u,i,t,v,did\na,b,{T},3,view\na,c,{T},4,\n")
    with pytest.raises(DataError, match=r"line 2: did: found 'view' with a rating; .* --behaviour"):
        read_columns(rated, Columns("u", "i", "t", "v", action="did"))
    long = written(tmp_path / "x.csv", f"u,i,t,did\na,b,{T},{'x' * 257}\n")
    with pytest.raises(DataError, match=r"x.csv, line 2: did: "):
        read_columns(long, Columns("u", "i", "t", action="did"))


def test_a_behaviour_that_is_an_action_is_told_of_the_column_of_actions(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", f"u,i,t,kind\na,b,{T},view\n")
    with pytest.raises(
        DataError, match=r"line 2: kind: found 'view', expected click, rating, comment; .* --action-column"
    ):
        read_columns(path, Columns("u", "i", "t", behaviour="kind"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_may_have_any_name(tmp_path: Path, form: str) -> None:
    rows = [{"line": "a", "raw": "x", "iso": "view", "": "home"}]
    path = tmp_path / f"x.{form}"
    if form == "jsonl":
        written(path, json.dumps(rows[0]) + "\n")
    else:
        getattr(pl.DataFrame(rows), f"write_{form}")(path)
    events = read_columns(path, Columns("line", "raw", action="iso")).events
    assert events.select("user", "item", "action").rows() == [("a", "x", "view")]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_time_that_is_too_old_is_shown_as_it_stands_with_its_line(tmp_path: Path, form: str) -> None:
    times = ("2026-08-01T16:24:47Z", "1970-01-19T15:00:00Z", "2026-08-01T17:07:06Z")
    content = "u,i,t\n" + "".join(f"a,b{at},{time}\n" for at, time in enumerate(times))
    if form == "json":
        content = lines(*(json.dumps({"u": "a", "i": f"b{at}", "t": time}) for at, time in enumerate(times))).decode()
    data = read_columns(written(tmp_path / "log.csv", content), Columns("u", "i", "t"))
    with pytest.raises(DataError) as raised:
        require_accepted(data.name, data.events, Rules((1, 5), 946_684_800_000), data.oldest)
    message = str(raised.value)
    line = 3 if form == "csv" else 2
    assert f"log.csv, line {line}: t: found '1970-01-19T15:00:00Z', expected 2000-01-01 or later" in message
    assert "multiply" not in message
    assert "1609200000" not in message
    assert "seconds for milliseconds" in message


def test_a_time_without_a_known_line_keeps_its_advice() -> None:
    events = pl.DataFrame({"user": ["a"], "item": ["b"], "time": [1_609_200_000], "value": [NAN], "behaviour": [CLICK]})
    with pytest.raises(DataError, match=r"x: time: found 1609200000, expected 2000-01-01.*looks like seconds"):
        require_accepted("x", events, Rules((1, 5), 946_684_800_000))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("custommer", "no column custommer; columns found: customer, sku, what, when; is customer meant?"),
        ("kunde", "no column kunde; columns found: customer, sku, what, when$"),
    ],
)
def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path, named: str, message: str) -> None:
    content = "customer,sku,what,when\nkunde-142,SKU-00007,view,2026-08-01T16:24:47Z\n"
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        read_columns(written(tmp_path / "log.csv", content), Columns(named, "sku"))
    pl.read_csv(tmp_path / "log.csv").write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message.replace("?", r"\?")):
        read_columns(tmp_path / "log.parquet", Columns(named, "sku"))


def test_the_web_shop_of_the_docs_reads_as_it_says(tmp_path: Path) -> None:
    section = ROOT.joinpath("docs/data.md").read_text().partition("### A web shop\n")[2]
    log, clicks, items = (
        textwrap.dedent(block) + "\n" for block in re.findall(r"(?:^    [^\n ]+,.*$\n?)+", section, re.MULTILINE)[:3]
    )
    folder = tmp_path / "shop"
    folder.mkdir()
    written(folder / "clicks.csv", clicks)
    written(folder / "items.csv", items)
    named = read_columns(written(tmp_path / "log.csv", log), Columns("visitor", "article", "when", action="what"))
    data = read(folder)
    assert named.events.equals(data.events)
    assert named.events["action"].to_list() == ["view", "cart", "purchase"]
    assert [(one.item, one.title, one.categories) for one in data.items] == [
        ("A-100", "Watering can 5 l", ("garden",)),
        ("A-205", "Wooden spoon", ("kitchen", "wood")),
    ]


def test_all_wrong_lines_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    bad = {3: "soon", 5: "gestern", 9: "soon"} | {20 + n: f"t{n}" for n in range(12)}
    rows = "".join(f"a,{'' if at == 7 else at},{bad.get(at, '2026-08-01T16:24:47Z')}\n" for at in range(2, 40))
    with pytest.raises(DataError) as raised:
        read_columns(written(tmp_path / "log.csv", "u,i,t\n" + rows), Columns("u", "i", "t"))
    message = str(raised.value)
    assert "log.csv, line 3: t: time 'soon'" in message
    assert "16 wrong values in all" in message
    assert all(f"line {line}: t: " in message for line in (5, 9, 20, 25))
    assert "line 7: i: " in message
    assert "line 26: " not in message
    assert "and 6 more" in message


def test_one_wrong_line_is_just_that(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: i: id '': expected a text of 1 to 256 characters or a whole number$"):
        read_columns(written(tmp_path / "log.csv", "u,i\na,\nb,c\n"), Columns("u", "i"))


def test_wrong_lines_of_several_blocks_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.table.BLOCK", 64)
    content = "u,i,t\n" + "".join(f"a,b{at},{'soon' if at % 10 == 5 else 2_000_000_000}\n" for at in range(2, 50))
    with pytest.raises(DataError, match=r"line 5: t: .*5 wrong values in all.*line 15: .*line 45: "):
        read_columns(written(tmp_path / "log.csv", content), Columns("u", "i", "t"))


def test_items_that_the_file_of_items_lacks_are_noted_with_the_number_of_their_events(tmp_path: Path) -> None:
    events = [("A", 3), ("19.99", 2), ("5.49\x1b", 1)]
    rows = [f"u{at},{item},{T}000" for item, count in events for at in range(count)]
    written(tmp_path / "clicks.csv", "user,item,time\n" + "\n".join(rows) + "\n")
    assert not any("lack" in note for note in read(tmp_path).notes)
    written(tmp_path / "items.csv", "item,title\nA,Spoon\nB,Can\n")
    (note,) = [note for note in read(tmp_path).notes if "lack" in note]
    assert note == r"3 of 6 events name items that the file of items lacks, 2 items in all: '19.99', '5.49\x1b'"
    written(tmp_path / "items.csv", "item,title\nA,Spoon\n19.99,x\n5.49\x1b,y\n")
    assert not any("lack" in note for note in read(tmp_path).notes)


def test_a_time_in_a_csv_of_messages_says_what_was_found_and_expected(tmp_path: Path) -> None:
    written(tmp_path / "clicks.csv", "user,item,time\na,b,2026-08-01T16:24:47Z\na,b,gestern\n")
    with pytest.raises(
        DataError, match=r'line 3: time: found "gestern" \(a text\), expected epoch milliseconds or ISO 8601'
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("user,item\nann,a\nuser,item\nbob,b\n", 3),
        ("user;item\nann;a\n\nbob;b\nuser;item\n", 5),
        ('user,item\nann,a\n"user","item"\nbob,b\n', 3),
        ('"user","item"\nann,"a\nb"\nuser,item\n', 4),
        ("user\titem\nann\ta\nitem\tuser\nb\tbob\n", 3),  # the columns of the second file stand in another order
        ("user|item\nann|a\nUser|Item\nbob|b\n", 3),
        ("user,item\nuser,item\n", 2),
        ("user,item\nann,a\n user, item\n", 3),
        ("user,item\nann,a\n\ufeffuser,item\n", 3),
    ],
)
def test_a_header_in_the_middle_of_a_file_is_refused(tmp_path: Path, content: str, line: int) -> None:
    path = written(tmp_path / "both.csv", content)
    with pytest.raises(DataError, match=rf"both\.csv, line {line}: the header again, .*remove this line"):
        read_columns(path, Columns("user", "item"))


def test_a_name_that_is_also_a_columns_is_no_header(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "user,item\nuser,a\nitem,b\nann,user\n")
    assert set(read_columns(path, Columns("user", "item")).events["user"]) == {"user", "item", "ann"}


def test_a_header_in_the_middle_of_freshets_messages_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "clicks.csv", "user,item,time\nann,a,1700000000000\n")
    written(tmp_path / "items.csv", "item,title\na,A\nitem,title\nb,B\n")
    with pytest.raises(DataError, match=r"items\.csv, line 3: the header again"):
        read(tmp_path)


def test_items_with_an_empty_title_are_noted(tmp_path: Path) -> None:
    written(tmp_path / "clicks.csv", f"user,item,time\nu,A,{T}000\n")
    assert not any("title" in note for note in read(tmp_path).notes)
    written(tmp_path / "items.csv", "item,title\nA,\nB,Can\nC, \n")
    assert "2 of 3 items have an empty title: 'A', 'C'" in read(tmp_path).notes


def test_columns_and_fields_that_a_message_does_not_have_are_named(tmp_path: Path) -> None:
    (tmp_path / "clicks.jsonl").write_text(
        '{"user": "u", "item": "A", "time": 1600000000000}\n'
        '{"user": "u", "item": "B", "time": 1600000000001, "page": "home", "zone": 1}\n'
    )
    (tmp_path / "items.csv").write_text('item,title,price,attributes\nA,Pan,5,"{""price"": 5}"\nB,Pot,6,\n')
    data = read(tmp_path)
    assert [item.attributes for item in data.items] == [{"price": 5}, None]
    assert [note for note in data.notes if "not read" in note] == [
        "clicks.jsonl: not read, because a message has no such field: 'page', 'zone'",
        "items.csv: not read, because a message has no such field: 'price'; what filters ask for belongs in `attributes`, "
        "one JSON object per item",
    ]
    (tmp_path / "clicks.jsonl").write_text('{"user": "u", "item": "A", "time": 1600000000000}\n')
    (tmp_path / "items.csv").unlink()
    pl.DataFrame({"item": ["A"], "title": ["Pan"], "colour": ["red"]}).write_parquet(tmp_path / "items.parquet")
    (note,) = [note for note in read(tmp_path).notes if "not read" in note]
    assert note.startswith("items.parquet: not read, because a message has no such field: 'colour';")
