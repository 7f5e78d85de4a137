"""Damaged files of published data sets: what is said names the file, the line and what was expected."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.data.forms import lastfm, mind
from stream.core.errors import DataError
from tests.unit.models.data.forms.published import CAPTIONS, REVIEW, read, sample

STEAM = "steam_reviews.json.gz"

USERS = "australian_user_reviews.json.gz"

OWNED = "australian_users_items.json.gz"

POETRY = "goodreads_interactions_poetry.json.gz"

INTERACTIONS = "goodreads_interactions.csv"

PLAYS = lastfm.PLAYS


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("yelp", REVIEW, "2018-07-07 22:09:11", "07/07/2018", r"line 1: date '07/07/2018': expected a time such as"),
        ("yelp", REVIEW, "2018-07-07 22", "2018-02-30 22", r"line 1: date '2018-02-30 22:09:11': day"),
        ("yelp", REVIEW, '"stars":5.0', '"stars":6', r"line 2: stars 6: .*expected 1 to 5"),
        (
            "yelp",
            REVIEW,
            '"user_id":"OyoGAe7OKpv6Sy"',
            '"user_id":null',
            r"line 2: user_id None: id null: expected a text",
        ),
        ("yelp", REVIEW, '"stars":5.0,', "", r"line 2: missing field 'stars'"),
        ("yelp", REVIEW, "\\ude", "", r"line 2: .*: found half of a pair of surrogates in .*, expected a text"),
        (
            "yelp",
            "yelp_academic_dataset_business.json",
            '"Body Cycle"',
            "7",
            r"business.json, line 2: name 7: expected text",
        ),
        ("steam reviews", STEAM, "u'2018-01-05'", "__import__('os')", r"line 2: .*malformed node"),
        ("steam reviews", STEAM, "2018-01-05", "Jan 2018", r"line 2: date 'Jan 2018': expected a time such as"),
        (
            "steam reviews",
            STEAM,
            "u'compensation'",
            "u'compensation",
            r"line 2: expected an object as Python prints it",
        ),
        ("steam reviews", STEAM, "u'product_id': u'725280', ", "", r"line 1: missing field 'product_id'; found"),
        (
            "steam reviews",
            "steam_games.json.gz",
            "app/200260",
            "x",
            r"steam_games.json.gz, line 2: .*expected id, or a url",
        ),
        (
            "steam users",
            USERS,
            "Posted June 24.",
            "Posted on 24/6",
            r"line 1: posted 'Posted on 24/6': expected a date",
        ),
        ("steam users", USERS, "True", "'yes'", r"line 1: recommend 'yes': expected True or False"),
        ("steam users", USERS, "'reviews': []", "'reviews': 3", r"line 2: reviews 3: expected a list of objects"),
        (
            "steam owned",
            OWNED,
            "'item_id': '10'",
            "'item_id': 1.5",
            r"line 1: item_id 1.5: id 1.5: expected a text",
        ),
        ("goodreads", POETRY, "Mon Oct 17", "Mon Okt 17", r"line 2: date_added 'Mon Okt 17.*expected a time such as"),
        ("goodreads", POETRY, '"rating": 4', '"rating": 44', r"line 1: rating 44: .*expected 1 to 5, or 0 for none"),
        ("goodreads", POETRY, '{"user_id": "3ca7375d"', '[{"user_id": "3ca7375d"', r"line 3: "),
        (
            "goodreads table",
            INTERACTIONS,
            "0,947,0,0,0",
            "0,947,0,0",
            r"line 3: expected 5 fields .*found 4: '0,947,0,0'",
        ),
        (
            "goodreads table",
            INTERACTIONS,
            "1,948,1,3,1",
            "1,948,1,7,1",
            r"line 4: rating '7': expected 0 \(none\) or 1 to 5",
        ),
        ("goodreads table", INTERACTIONS, "0,948", ",948", r"line 2: user_id: id ''"),
        (
            "goodreads table",
            INTERACTIONS,
            "book_id,is",
            "book,is",
            r"line 1: missing columns book_id; found 'user_id,book",
        ),
        (
            "goodreads table",
            "book_id_map.csv",
            "947,",
            "946,",
            r"interactions.csv, line 3: book_id '947': expected a number that book_id_map",
        ),
        (
            "mind",
            "behaviors.tsv",
            "11/12/2019",
            "12.11.2019",
            r"line 2: time '12.11.2019 6:11:30 PM': expected a time such as",
        ),
        ("mind", "behaviors.tsv", "N20678-0 N39317-1", "N20678-0 N39317-2", r"line 2: impressions 'N20678-0 N39317-2"),
        ("mind", "behaviors.tsv", "U13740\t11/10", "U13740 11/10", r"line 3: .*expected 5 fields separated by '\\t'"),
        ("mind", "news.tsv", "\tThe Cost", "", r"news.tsv, line 2: .*expected 8 fields"),
        (
            "retailrocket",
            "events.csv",
            "addtocart",
            "like",
            r"line 3: event 'like': expected view, addtocart or transaction",
        ),
        (
            "retailrocket",
            "events.csv",
            "1433222276276",
            "soon",
            r"line 4: timestamp: time 'soon': expected 0 to \d+ milliseconds since 1970",
        ),
        (
            "retailrocket",
            "events.csv",
            "257597,view",
            '2575""97,view',
            r"line 2: a double quote in the wrong place",
        ),
        ("retailrocket", "events.csv", "257597,add", ",add", r"line 3: visitorid: id ''"),
        (
            "retailrocket",
            "item_properties_part2.csv",
            "1436065200000",
            "-1",
            r"part2.csv, line 2: timestamp: time '-1': ",
        ),
        (
            "yoochoose",
            "yoochoose-clicks.dat",
            "T10:54:09.868Z",
            " 10:54",
            r"line 2: time '2014-04-07 10:54': expected a time",
        ),
        (
            "yoochoose",
            "yoochoose-clicks.dat",
            ",214536502,11",
            ",214536502",
            r"line 3: .*expected 4 fields separated by ','",
        ),
        ("yoochoose", "yoochoose-buys.dat", "2014-04-07T14", "2014-04-07T25", r"buys.dat, line 1: time '2014-04-07T25"),
        (
            "diginetica",
            "train-item-views.csv",
            "1031018",
            "NA",
            r"line 3: timeframe: time 'NA': expected 0 to \d+ milliseconds",
        ),
        (
            "diginetica",
            "train-item-views.csv",
            "2016-05-10",
            "10.5.2016",
            r"line 4: eventdate '10.5.2016': expected a time",
        ),
        (
            "diginetica",
            "train-purchases.csv",
            ";16421",
            "",
            r"purchases.csv, line 2: .*expected 6 fields separated by ';'",
        ),
        (
            "lastfm",
            PLAYS,
            "2006-09-13T",
            "2006-09-31T",
            r"line 3: time '2006-09-31T15:32:05Z': expected a time such as",
        ),
        ("lastfm", PLAYS, '坂本 "龍一"', "", r"line 2: artist '': expected an artist's id, or a name"),
        ("lastfm", PLAYS, "\tFlashdance", "", r"line 3: .*expected 6 fields"),
        (
            "kuairec",
            "big_matrix.csv",
            "1593879221.297",
            "x",
            r"line 3: timestamp: time 'x': expected 0 to \d+ seconds",
        ),
        ("kuairec", "big_matrix.csv", ",3.5", ",nan", r"line 3: watch_ratio 'nan': expected a number from 0"),
        ("kuairec", "small_matrix.csv", ",0.722", "", r"small_matrix.csv, line 2: .*expected 8 fields"),
        (
            "kuairec",
            "item_categories.csv",
            "[27, 9]",
            "27;9",
            r"item_categories.csv, line 3: feat '27;9': expected a list",
        ),
        ("kuairec", CAPTIONS, ",727,", ",", r"caption_category.csv, line 4: found 9 fields, expected 10"),
        ("recbole", "ml-100k.inter", "891717742.0", "today", r"line 3: timestamp 'today': expected a number"),
        ("recbole", "ml-100k.inter", "302\t1\t", "302\tinf\t", r"line 4: rating 'inf': expected a number"),
        ("recbole", "ml-100k.inter", "196\t242", "196 242", r"line 2: .*expected 4 fields separated by '\\t'"),
        ("recbole", "ml-100k.item", "\tCrime Film-Noir", "", r"ml-100k.item, line 3: .*expected 4 fields"),
    ],
)
def test_what_is_wrong_names_file_and_line(
    tmp_path: Path, name: str, file: str, old: str, new: str, message: str
) -> None:
    path = sample(tmp_path, name) / file
    packed = file.endswith(".gz")
    text = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    assert text.count(old) == 1
    changed = text.replace(old, new).encode()
    path.write_bytes(gzip.compress(changed) if packed else changed)
    where = f"{file}, " if message.startswith("line") else ""
    with pytest.raises(DataError, match=where + message):
        read(tmp_path, name)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (name, file)
        for name, files in {
            "goodreads table": ("goodreads_interactions.csv", "book_id_map.csv"),
            "retailrocket": ("events.csv", "item_properties_part2.csv", "category_tree.csv"),
            "diginetica": ("train-item-views.csv", "train-purchases.csv", "product-categories.csv"),
            "kuairec": ("big_matrix.csv", "item_categories.csv", CAPTIONS),
            "recbole": ("ml-100k.inter", "ml-100k.item"),
        }.items()
        for file in files
    ],
)
def test_a_header_in_the_middle_of_a_file_is_refused(tmp_path: Path, name: str, file: str) -> None:
    path = sample(tmp_path, name) / file
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows, rows[0], *rows[1:]]) + "\n")
    with pytest.raises(DataError, match=rf"{file}, line {len(rows) + 1}: the header again"):
        read(tmp_path, name)


@pytest.mark.parametrize("name", ["retailrocket", "mind", "yelp"])
def test_what_is_no_text_names_the_line(tmp_path: Path, name: str) -> None:
    file = {"retailrocket": "events.csv", "mind": mind.BEHAVIORS, "yelp": REVIEW}[name]
    path = sample(tmp_path, name) / file
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(DataError, match=rf"{file}, line \d: not utf-8 text"):
        read(tmp_path, name)
