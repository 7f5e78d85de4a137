"""Every form is told from every other before it is read, and what is none is refused with what it looks like."""

from __future__ import annotations

import gzip
import json
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import zstandard

from models.data import forms, read
from models.data.dataset import Event
from models.data.forms.registry import FORMS
from models.data.source import source
from stream.core.errors import DataError
from stream.core.messages import CLICK, Item
from tests.unit.models.data.data_samples import SAMPLES, Sample, T, lines, objects, rated, shown

BY_NAME = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)


@BY_NAME
@pytest.mark.parametrize(("pack", "end"), [(bytes, ""), (gzip.compress, ".gz"), (zstandard.compress, ".zst")])
def test_every_form_reads_its_sample(tmp_path: Path, sample: Sample, pack: Callable[[bytes], bytes], end: str) -> None:
    packed = {name + end: pack(content) for name, content in sample.files.items()}
    data = read(sample._replace(files=packed, alone=sample.alone and sample.alone + end).write(tmp_path))
    assert data.form == sample.form
    assert shown([Event(*row) for row in data.events.iter_rows()]) == shown(sample.events)
    assert data.notes[0] == f"read as: {sample.form}"
    if sample.items is not None:
        assert list(data.items) == sample.items


@BY_NAME
def test_every_sample_fits_one_form_only(tmp_path: Path, sample: Sample) -> None:
    found = source(sample.write(tmp_path))
    assert [form.name for form in FORMS if form.fits(found)] == [sample.form]


def test_every_form_has_a_sample_and_every_module_is_in_the_registry() -> None:
    listed: list[Any] = []
    for module in pkgutil.iter_modules(forms.__path__):
        listed += (
            getattr(import_module(f"models.data.forms.{module.name}"), "FORMS", ()) if module.name != "registry" else ()
        )
    assert {form.name for form in listed} == {form.name for form in FORMS}
    assert len({form.name for form in FORMS}) == len(FORMS)
    assert all(form.expected and form.terms and form.origin for form in FORMS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "one.json",
            b'[{"user": 1, "item": 2}]\n',
            r"line 1: a JSON list; expected one object per line; it begins with \[\{",
        ),
        ("one.json", b'{"user": 1, "item": 2}\n', r"line 1: JSON lines with the fields user, item"),
        (
            "behaviours.tsv",
            b"1\tU1\tnoon\tN5 N4\tseen\n",
            r"text with 5 columns separated by tabs, no header",
        ),
        ("ml.txt", b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n", r"ml.txt, line 1: columns separated by tabs"),
        (
            "ml.txt",
            b"196 242 3 881250949\n187 302 3 891717742\n",
            r"line 1: 4 columns on every line, and column 4 looks like times",
        ),
        ("log.txt", b"user_id item_id\n7 30\n7 10\n", r"line 1: a header \('user_id item_id'\).*--user and --item"),
        ("log.txt", b"user_id:token item_id_list\n7 30\n", r"line 1: a header"),
        (
            "log.txt",
            b"1, 2, 3\n4, 5\n",
            r"text with 3 columns separated by commas, no header; it begins with 1, 2, 3; line 2 has 2 columns",
        ),
        ("log.txt", b"7 30 10\n8 ['10', '20']\n", r"log.txt, line 2: not numbers"),
        ("log.txt", b"7 30 10\n8 10,20\n", r"log.txt, line 2: not numbers.*found '8 10,20'"),
        ("log.txt", b'7 30 10\n8 {"a": 1}\n', r"log.txt, line 2: not numbers"),
        ("log.txt", b"7 30\n8 10\x07\n", r"log.txt, line 2: not numbers"),
        ("log.txt", b"7 30\n8 \xff\n", r"log.txt, line 2: not utf-8"),
        (
            "log.csv",
            b"visitor;page;when\n1;2;3\n1;2\n",
            r"text with 3 columns separated by semicolons, a header \(visitor, page, when\).*line 3 has 2",
        ),
        ("log.csv", b"", "empty"),
        ("x.bin", b"\x00\x01\x02\x03", "not text"),
        ("x.bin", b"PK\x03\x04xxxx", "a zip archive; unpack it first"),
        ("log.csv", b"\x1b[31mred,\x07bell\n", r"it begins with \\x1b\[31mred,\\x07bell"),
        ("ratings.csv", b"A39HTATAQ9V7YF,A39HTATAQ9V7YG,5.0,1369699200\n", "text with 4 columns separated by commas"),
        ("ratings.csv", b"B00004TMFE,B00004TMFF,5.0,1369699200\n", "text with 4 columns separated by commas"),
    ],
)
def test_what_is_no_known_form_is_refused_and_described(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as found:
        read(tmp_path / name)
    assert str(found.value).isprintable()
    if "no known form" in str(found.value):
        assert re.search(r"--user \S+ --item \S+", str(found.value))
        assert found.value.args[-1] == "all forms: docs/data.md"
        assert len(found.value.args) <= 7
        assert len(str(found.value)) < 1500


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("log.csv", "user,item,time\nann,a,2025-12-31T14:00:00Z\n", "--user user --item item --time time"),
        ("log.csv", "user,item,time\n", "--user user --item item --time time"),
        ("log.csv", ",visitor,page\n0,ann,a\n", "--user visitor --item page"),
        ("log.tsv", "Customer ID\tSKU\nann\ta\n", "--user 'Customer ID' --item SKU"),
        ("log.csv", "wer;was;wann\nann;a;31.12.2025 14:00\n", "--user COLUMN --item COLUMN"),
        ("log.csv", '"user","product_id","stars"\n"ann","a","4"\n', "--user user --item product_id --value stars"),
        ("log.jsonl", '{"visitor": "ann", "article": "a"}\n', "--user visitor --item article"),
    ],
)
def test_a_header_is_seen_and_its_columns_are_named_as_options(
    tmp_path: Path, name: str, content: str, options: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match="no known form fits") as raised:
        read(tmp_path / name)
    lines = raised.value.args
    assert any(f"name its columns: {options}" in line for line in lines)
    assert "no header" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        "ann,a,2025-12-31T14:00:00Z\nbob,b,2025-12-31T14:01:00Z\n",
        "user,user,9\nuser,item,8\n",
        "ann,page,page\nbob,b,c\n",
    ],
)
def test_a_line_of_data_is_no_header(tmp_path: Path, content: str) -> None:
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(DataError, match="no header"):
        read(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("header", "row", "name"),
    [
        ("user,item,time", "ann,a,1600000000000", "clicks.csv"),
        ("user;item;time;value", "ann;a;1600000000000;4.5", "ratings.csv"),
        ("user\titem\ttime\ttext", "ann\ta\t1600000000000\tGood", "comments.csv"),
    ],
)
def test_messages_under_another_name_are_read_once_renamed(tmp_path: Path, header: str, row: str, name: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n{row}\n")
    with pytest.raises(DataError) as raised:
        read(path)
    assert f"or rename log.csv to {name}" in raised.value.args
    data = read(path.rename(tmp_path / name))
    assert data.form == "freshet's messages"
    assert data.events.select("user", "item", "time").rows() == [("ann", "a", 1_600_000_000_000)]


def test_the_nearest_forms_are_named_first_the_one_that_shares_the_most_columns(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("userId,movieId,rating,when\n1,2,3.0,5\n")
    with pytest.raises(DataError) as raised:
        read(tmp_path / "log.csv")
    nearest = [line for line in raised.value.args if line.startswith("expected by")]
    assert nearest[0].startswith("expected by MovieLens CSV (found: its columns userId, movieId, rating)")
    assert 1 <= len(nearest) <= 3


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_called_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text(content)
    for given in (path, tmp_path):
        with pytest.raises(DataError, match=r"clicks\.csv: empty; expected events, for example clicks\.csv"):
            read(given)


def test_items_may_be_separated_otherwise_than_events(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user,item,time\nann,a,1600000000000\n")
    (tmp_path / "items.csv").write_text("item;title;categories\na;Watering can, 5 l;garden|zinc\n")
    assert list(read(tmp_path).items) == [Item("a", "Watering can, 5 l", None, ("garden", "zinc"))]


def test_a_decimal_comma_and_a_local_date_say_how_to_write_them(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user;item;time;value\nann;a;2025-12-31T14:00:00Z;4,5\n")
    with pytest.raises(DataError, match=r"ratings.csv, line 2: value '4,5': expected a number.*write 4\.5"):
        read(tmp_path / "ratings.csv")
    (tmp_path / "clicks.csv").write_text("user,item,time\nann,a,31.12.2025 14:00\n")
    with pytest.raises(DataError, match=r"line 2: time '31.12.2025 14:00': .*write 2025-12-31T14:00:00Z for it"):
        read(tmp_path / "clicks.csv")


def test_text_of_another_encoding_says_how_to_convert_it(tmp_path: Path) -> None:
    for name in ("clicks.csv", "log.csv"):
        (tmp_path / name).write_bytes("user,item,time\nmüller,a,2025-12-31T14:00:00Z\n".encode("latin-1"))
        with pytest.raises(DataError) as raised:
            read(tmp_path / name)
        message = str(raised.value)
        assert f"{name}, line 2: not utf-8 text: " in message
        assert "found the byte 0xfc" in message
        assert f"iconv -f LATIN1 -t UTF-8 {name}" in message
        assert "no known form" not in message


def test_a_byte_order_mark_is_no_part_of_the_first_user(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\xef\xbb\xbf7 30\n7 10\n8 10\n")
    assert set(read(tmp_path / "log.txt").events["user"]) == {"7", "8"}


def test_a_folder_is_described_by_its_first_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder without data files"):
        read(tmp_path)
    for name in ("a.txt", "b.txt", "c.csv", "d.csv", "e.csv"):
        (tmp_path / name).write_bytes(b"1 2\n")
    with pytest.raises(
        DataError, match=r"a folder of 5 files: .*a\.txt, line 1: text with 2 columns separated by blanks.*; and 1 more"
    ):
        read(tmp_path)


def test_two_forms_in_one_folder_are_named(tmp_path: Path) -> None:
    for sample in SAMPLES:
        if sample.name in ("movielens 100k", "movielens csv"):
            sample.write(tmp_path)
    with pytest.raises(DataError, match="fits several forms, MovieLens CSV and MovieLens 100K; name the one file"):
        read(tmp_path)


def test_a_form_by_looks_alone_gives_way(tmp_path: Path) -> None:
    movielens = next(sample for sample in SAMPLES if sample.name == "movielens csv")
    movielens.write(tmp_path)
    (tmp_path / "notes.txt").write_bytes(b"7 30\n7 10\n8 10\n")
    with pytest.raises(DataError, match=r"read as MovieLens CSV, but that form does not read notes\.txt"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "changed", "message"),
    [
        (
            "movielens 100k",
            "u.data",
            b"196\t242\t3\t881250949\n186\t302\t6\t891717742\n",
            r"u.data, line 2: rating: .*expected 1 to 5",
        ),
        (
            "movielens 100k",
            "u.data",
            b"196\t242\t3\t88125\n",
            r"u.data, line 1: timestamp: time 88125: expected 788918400 or later",
        ),
        (
            "movielens 100k",
            "u.data",
            b"196\t242\t3\t881250949\nx\t302\t3\t891717742\n",
            r"u.data, line 2: user: 'x': expected a whole",
        ),
        ("movielens 100k", "u.item", b"1|Toy|01-Jan-1995||http|0\n", r"u.item, line 1: expected 24 fields"),
        (
            "movielens 100k",
            "u.item",
            lines("1|Toy|1995||http" + "|0" * 18 + "|2"),
            r"u.item, line 1: genres: expected 19 flags",
        ),
        ("movielens 1m", "ratings.dat", b"1::2::5::978300760\n1::3::5\n", r"ratings.dat, line 2: expected 4 fields"),
        (
            "movielens csv",
            "ratings.csv",
            b"userId,movieId,rating,timestamp\n1,2,3,4,5\n",
            r"line 2: expected 4 fields .*found 5",
        ),
        ("movielens csv", "ratings.csv", b'userId,movieId,rating,timestamp\n1,2"x,3,4\n', r"line 2: a double quote"),
        (
            "movielens csv",
            "tags.csv",
            b'userId,movieId,tag,timestamp\n1,2,"x,4\n2,2,y,4\n',
            r"tags.csv, line 2: a double quote opens",
        ),
        (
            "movielens csv",
            "ratings.csv",
            b"userId,movieId,rating,timestamp,rating\n1,2,3,4,5\n",
            "the column 'rating' occurs twice",
        ),
        (
            "amazon 2014",
            "meta_Music.json",
            b"{'asin': '1', 'title': __import__('os').name}\n",
            r"meta_Music.json, line 1: ",
        ),
        ("amazon 2014", "meta_Music.json", b"{'asin': " + b"[" * 9999 + b"\n", r"meta_Music.json, line 1: "),
        (
            "amazon ratings 2014",
            "ratings_Beauty.csv",
            lines(*["A39HTATAQ9V7YF,0205616461,5.0,1369699200"] * 200, "0205616461,A39HTATAQ9V7YF,5.0,1369699200"),
            r"line 201: item: 'A39HTATAQ9V7YF': expected an ASIN",
        ),
        ("s3-rec", "Toys_item2attributes.json", b"[1, 2]", "Toys_item2attributes.json: expected an object"),
        (
            "messages",
            "ratings.csv",
            b"user,item,time,value\nann,b,5,x\n",
            r"ratings.csv, line 2: value 'x': expected a number",
        ),
        ("messages", "items.csv", b"item,title,available\na,A,maybe\n", r"items.csv, line 2: available 'maybe'"),
        (
            "amazon 2023",
            "All_Beauty.jsonl",
            objects({"user_id": "u", "rating": 5, "timestamp": 5, "asin": "a", "text": ["x"]}),
            r"All_Beauty.jsonl, line 1: text: expected a text",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, name: str, file: str, changed: bytes, message: str
) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == name)
    path = sample.write(tmp_path)
    (tmp_path / file).write_bytes(changed)
    with pytest.raises(DataError, match=message):
        read(path)


def test_latin_1_and_utf_8_are_told_apart(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "movielens 1m")
    path = sample.write(tmp_path)
    (tmp_path / "movies.dat").write_bytes(sample.files["movies.dat"].decode("latin-1").encode())
    assert list(read(path).items) == sample.items


def test_several_categories_are_scenes(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "amazon 2018")
    for name in ("Books_5.json.gz", "All_Beauty.json.gz"):
        (tmp_path / name).write_bytes(gzip.compress(sample.files["All_Beauty.json"]))
    data = read(tmp_path)
    assert data.scenes == ("All_Beauty", "Books")
    assert len(data.events) == 4


def test_one_file_of_messages_alone(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "messages")
    sample.write(tmp_path)
    data = read(tmp_path / "clicks.jsonl")
    assert (len(data.events), data.items) == (1, (Item("a", ""),))


def test_an_event_that_stands_there_twice_counts_once(tmp_path: Path) -> None:
    rows = (f"1,10,4.0,{T}", f"2,10,4.0,{T}", f"1,10,4.0,{T}", f"1,10,3.0,{T}", f"2,10,4.0,{T + 1}")
    (tmp_path / "ratings.csv").write_bytes(lines("userId,movieId,rating,timestamp", *rows))
    data = read(tmp_path / "ratings.csv")
    assert shown([Event(*row) for row in data.events.iter_rows()]) == shown(
        rated(
            ("1", "10", 4.0, T * 1000),
            ("1", "10", 3.0, T * 1000),
            ("2", "10", 4.0, T * 1000),
            ("2", "10", 4.0, T * 1000 + 1000),
        )
    )
    assert "1 events repeat an earlier one in every field that is read: each event counts once" in data.notes


def test_events_that_differ_in_their_own_id_are_different_events(tmp_path: Path) -> None:
    line = '{"user": "ann", "item": "a", "time": 1700000000000, "id": "%s"}\n'
    (tmp_path / "clicks.jsonl").write_text("".join(line % name for name in ("y", "x", "x")))
    data = read(tmp_path)
    assert data.events["id"].to_list() == ["x", "y"]
    assert "1 events repeat an earlier one in every field that is read: each event counts once" in data.notes


def test_the_same_item_twice_in_an_order_without_times_is_no_repeat(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"7 30 30\n8 10\n")
    assert (read(tmp_path / "a.txt").events["behaviour"] == CLICK).sum() == 3


def test_of_an_item_that_is_described_twice_the_later_description_counts(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "movielens csv")
    path = sample.write(tmp_path)
    with (tmp_path / "movies.csv").open("ab") as file:
        file.write(b"10,Heat,Crime\n20,,Drama\n")
    assert list(read(path).items) == [
        Item("10", "Heat", categories=("Crime",)),
        Item("20", "Mute (1990)", categories=()),
    ]


def test_a_file_without_events_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(b"userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError, match=r"ratings.csv: found no events"):
        read(tmp_path / "ratings.csv")


def test_a_last_line_without_an_end_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"7 30 10\n8 1")
    assert any("a.txt: its last line does not end with a line break" in note for note in read(tmp_path / "a.txt").notes)
    (tmp_path / "a.txt").write_bytes(b"7 30 10\n8 1\n")
    assert not any("line break" in note for note in read(tmp_path / "a.txt").notes)


def test_titles_and_categories_of_any_length_fit_a_message(tmp_path: Path) -> None:
    sample = next(sample for sample in SAMPLES if sample.name == "amazon 2018")
    path = sample.write(tmp_path)
    row = {"asin": "B00006L9LC", "title": "x" * 5000, "category": [f"{at}" + "y" * 500 for at in range(100)]}
    (tmp_path / "meta_All_Beauty.json").write_text(json.dumps(row) + "\n")
    (item,) = read(path).items
    assert (len(item.title), len(item.categories or ()), max(map(len, item.categories or ()))) == (1024, 64, 256)


@pytest.mark.parametrize("found", ["1_0", "\u0663", "\uff13", "nan", "inf", "0x4", "1,5", "4 stars"])
@pytest.mark.parametrize(("name", "head"), [("ratings", "user,item,time"), ("comments", "user,item,time,text")])
def test_a_value_of_a_csv_is_written_in_plain_digits(tmp_path: Path, name: str, head: str, found: str) -> None:
    """What Python reads as a number, no other program means by it."""
    review = "" if name == "ratings" else "fine,"
    (tmp_path / f"{name}.csv").write_text(f'{head},value\nann,a,1700000000000,{review}"{found}"\n')
    with pytest.raises(DataError, match=rf"{name}.csv, line 2: value '{found}': expected a number"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("found", "value"), [("4", 4.0), (" 3", 3.0), ("+4.5", 4.5), ("1e0", 1.0), (".5", 0.5), ("2.", 2.0)]
)
def test_plain_digits_of_a_csv_are_read(tmp_path: Path, found: str, value: float) -> None:
    (tmp_path / "ratings.csv").write_text(f"user,item,time,value\nann,a,1700000000000,{found}\n")
    assert read(tmp_path).events["value"].to_list() == [value]


@pytest.mark.parametrize("found", ["1_0", "\u0663", "soon"])
@pytest.mark.parametrize("field", ["time", "rank", "dwell_ms"])
def test_whole_numbers_of_a_csv_are_written_in_plain_digits(tmp_path: Path, field: str, found: str) -> None:
    row = {"user": "ann", "item": "a", "time": "1700000000000", "rank": "1", "dwell_ms": "2"} | {field: found}
    (tmp_path / "clicks.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    with pytest.raises(DataError, match=rf"clicks.csv, line 2: .*{found}.*expected"):
        read(tmp_path)
