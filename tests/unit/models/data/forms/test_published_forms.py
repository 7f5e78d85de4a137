"""Readers of published data sets, on made-up lines in the exact published form: what becomes what, which form a folder is, and
where a row is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from models.data import table
from models.data.catalogue import item
from models.data.choices import choices
from models.data.columns import Refused, times
from models.data.dataset import SCHEMA, DataSet
from models.data.form import Form
from models.data.forms import goodreads, kuairec, lastfm, lines, mind, recbole, shops, steam, yelp
from models.data.source import source
from stream.core.errors import DataError
from stream.core.messages import CLICK, COMMENT, MAX_TEXT, RATING, Item
from tests.unit.models.data.published_samples import SAMPLES

FORMS = {
    form.name: form
    for module in (yelp, steam, goodreads, mind, shops, lastfm, kuairec, recbole)
    for form in module.FORMS
}
FORM_OF = {
    "yelp": "Yelp",
    "steam reviews": "Steam reviews",
    "steam users": "Steam, Australian users",
    "steam owned": "Steam, Australian users",
    "goodreads": "Goodreads",
    "goodreads table": "Goodreads table",
    "mind": "MIND",
    "retailrocket": "RetailRocket",
    "yoochoose": "Yoochoose",
    "diginetica": "Diginetica",
    "lastfm": "Last.fm 1K",
    "kuairec": "KuaiRec",
    "recbole": "RecBole atomic files",
    "recbole sessions": "RecBole atomic files",
}
DAY = 86_400_000


def sample(folder: Path, name: str) -> Path:
    SAMPLES[name](folder)
    return folder


def read(path: Path, name: str) -> DataSet:
    return FORMS[FORM_OF[name]].read(source(path))


def rows(data: DataSet) -> list[tuple[Any, ...]]:
    """user, item, behaviour, time, value (None: none), text: in time order."""
    table = data.events.select("user", "item", "behaviour", "time", pl.col("value").fill_nan(None), "text")
    return table.rows()


@pytest.mark.parametrize("name", SAMPLES)
def test_exactly_one_form_fits_a_folder(tmp_path: Path, name: str) -> None:
    found = source(sample(tmp_path, name))
    assert [form.name for form in FORMS.values() if form.fits(found)] == [FORM_OF[name]]


@pytest.mark.parametrize("name", SAMPLES)
def test_at_most_one_form_fits_a_file_alone(tmp_path: Path, name: str) -> None:
    fitting = {
        path.name: [form.name for form in FORMS.values() if form.fits(source(path))]
        for path in sorted(sample(tmp_path, name).iterdir())
    }
    assert all(len(names) <= 1 for names in fitting.values()), fitting
    assert [FORM_OF[name]] in fitting.values()
    for path in tmp_path.iterdir():
        if fitting[path.name]:
            assert len(FORMS[fitting[path.name][0]].read(source(path)).events)


@pytest.mark.parametrize(
    "text", [b"", b"\n\n", b"{", b"[" * 100_000, b"\x00\xff\xfe", b"\xff\xfea\x00", b"a,b\n1,2\n", b"\x1f\x8bx"]
)
@pytest.mark.parametrize("name", ["x", "a.inter", "goodreads_reviews_x.json", *yelp.REVIEWS, *steam.REVIEWS, steam.USER_ITEMS,
    "events.csv", mind.BEHAVIORS, shops.CLICKS, shops.VIEWS, lastfm.PLAYS, *kuairec.MATRICES])  # fmt: skip
def test_fits_never_raises(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    for form in FORMS.values():
        assert not form.fits(source(tmp_path))
        assert not form.fits(source(tmp_path / name))


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_every_form_tells_its_terms_and_origin(form: Form, tmp_path: Path) -> None:
    assert "http" in form.terms
    assert form.origin
    assert "\n" not in form.expected + form.terms + form.origin
    with pytest.raises(DataError):
        form.read(source(tmp_path))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("pack", ["plain", "zst", "crlf", "mark"])
def test_every_packing_gives_the_same(tmp_path: Path, name: str, pack: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    for path in sample(one, name).iterdir():
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        plain = path.name.removesuffix(".gz")
        if pack == "zst":
            (two / f"{plain}.zst").write_bytes(zstandard.compress(text))
        else:
            text = text.replace(b"\n", b"\r\n") if pack == "crlf" else text
            (two / plain).write_bytes(b"\xef\xbb\xbf" + text if pack == "mark" else text)
    assert FORMS[FORM_OF[name]].fits(source(two))
    first, second = read(one, name), read(two, name)
    assert second.events.equals(first.events, null_equal=True)
    assert (second.items, second.rating_scale, second.timed) == (first.items, first.rating_scale, first.timed)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_event_names_an_item_and_some_count_as_choices(tmp_path: Path, name: str) -> None:
    data = read(sample(tmp_path, name), name)
    assert dict(data.events.schema) == SCHEMA
    assert set(data.events["item"].to_list()) <= {one.item for one in data.items}
    assert choices(data.events).any()
    assert not data.events.null_count().sum_horizontal()[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_blocks_of_any_size_give_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(sample(tmp_path, name), name)
    monkeypatch.setattr(table, "BLOCK", 7)
    second = read(tmp_path, name)
    assert second.events.equals(first.events, null_equal=True)
    assert second.items == first.items


def test_yelp(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "yelp"), "yelp")
    assert rows(data) == [
        ("OyoGAe7OKpv6Sy", "7ATYjTIgM3jUlt", COMMENT, 1_325_604_498_000, 5.0, "Spin class 🚴"),
        ("OyoGAe7OKpv6Sy", "XQfwVwDr-v0ZS3", COMMENT, 1_337_307_441_000, None, "Avengers time."),
        (
            "mh_-eMZ6K5RLWh",
            "XQfwVwDr-v0ZS3",
            COMMENT,
            1_531_001_351_000,
            3.0,
            "If you decide to eat here, wait.\n\nLong.",
        ),
    ]
    assert data.items == (
        Item("XQfwVwDr-v0ZS3", "Turning Point", categories=("Restaurants", "Breakfast & Brunch")),
        Item("7ATYjTIgM3jUlt", "Body Cycle", categories=()),
    )
    assert choices(data.events).to_list() == [True, False, True]


def test_steam_reviews(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam reviews"), "steam reviews")
    assert rows(data) == [
        ("Chaos S", "725280", COMMENT, 1_513_468_800_000, 1.0, 'Not "new" ♥ 😀'),
        ("Ha'rat", "328100", COMMENT, 1_515_110_400_000, 1.0, "looks like facebook"),
        ("steam:*", "328100", COMMENT, 1_515_196_800_000, 1.0, ""),
    ]
    assert data.items == (
        Item("725280", "Lost Summoner Kitty", categories=("Action", "Indie", "Strategy")),
        Item("200260", "Arkham City", categories=()),
        Item("328100", ""),
    )
    assert data.rating_scale == (0.0, 1.0)


def test_steam_users(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam users"), "steam users")
    assert rows(data) == [
        ("76561197970982479", "1250", COMMENT, 1_320_451_200_000, 1.0, "Simple yet 'great'"),
        ("76561197970982479", "22200", COMMENT, 1_466_726_400_000, 0.0, "no"),
    ]
    assert [(one.item, one.title) for one in data.items] == [
        ("10", "Counter-Strike"),
        ("1250", "Killing Floor"),
        ("22200", ""),
    ]
    assert data.timed


def test_steam_owned_games_without_reviews(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "steam owned"), "steam owned")
    assert [(row[1], row[2]) for row in rows(data)] == [("10", CLICK), ("1250", CLICK)]
    assert not data.timed


def test_goodreads(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "goodreads"), "goodreads")
    assert rows(data) == [
        ("8842281e", "402128", RATING, 1_366_384_515_000, 4.0, ""),
        ("3ca7375d", "402128", COMMENT, 1_420_070_401_000, 5.0, "I have three siblings."),
        ("8842281e", "92270", CLICK, 1_476_642_600_000, None, ""),
    ]
    assert data.items == (
        Item("402128", "Old Possum's Book", "Practical cats.", ("poetry", "cats")),
        Item("92270", ""),
    )


def test_goodreads_genres_stand_before_shelves(tmp_path: Path) -> None:
    SAMPLES["goodreads"](tmp_path)
    genres = '{"book_id": "402128", "genres": {"children": 2, "poetry, verse": 20}}\n'
    (tmp_path / "goodreads_book_genres_initial.json").write_text(genres)
    assert read(tmp_path, "goodreads").items[0].categories == ("poetry", "verse", "children")


@pytest.mark.parametrize("count", ['"1_0"', "null", "NaN", "true"])
def test_goodreads_genres_are_counted_by_numbers(tmp_path: Path, count: str) -> None:
    SAMPLES["goodreads"](tmp_path)
    genres = f'{{"book_id": "402128", "genres": {{"children": 2, "poetry": {count}}}}}\n'
    (tmp_path / "goodreads_book_genres_initial.json").write_text(genres)
    with pytest.raises(DataError, match=r"genres_initial.json, line 1: genres: found .*, expected a number of readers"):
        read(tmp_path, "goodreads")


def test_goodreads_table(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "goodreads table"), "goodreads table")
    assert not data.timed
    zero = data.events.filter(pl.col("user") == "0")
    assert zero["item"].to_list() == ["402128", "92270"]
    assert zero["behaviour"].to_list() == [RATING, CLICK]
    assert data.events.filter(pl.col("user") == "1")["value"].to_list() == [3.0]
    assert data.items[0].title == "Old Possum's Book"
    (tmp_path / "book_id_map.csv").unlink()
    assert read(tmp_path, "goodreads table").events["item"].unique().sort().to_list() == ["947", "948"]


def test_mind(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "mind"), "mind")
    first, later, other = 1_573_344_000_000, 1_573_463_158_000, 1_573_582_290_000
    found = [row[:4] for row in rows(data)]
    assert found[:3] == [
        ("U13740", "N55189", CLICK, first - 120_000),
        ("U13740", "N42782", CLICK, first - 60_000),
        ("U13740", "N55689", CLICK, later),
    ]
    assert sorted(found[3:]) == [("U91836", "N39317", CLICK, other), ("U91836", "N58114", CLICK, other)]
    assert data.items[0] == Item("N55689", 'Charles "Chuck" Rogers', "A fired fan.", ("sports", "football_nfl"))
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\tN1 N2\tN3 N4\n")
    assert [row[1] for row in rows(read(tmp_path, "mind"))] == ["N1", "N2"]


def test_retailrocket(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "retailrocket"), "retailrocket")
    assert [row[:4] for row in rows(data)] == [
        ("257597", "355908", CLICK, 1_433_221_332_117),
        ("599528", "356475", CLICK, 1_433_222_276_276),
        ("257597", "355908", CLICK, 1_433_224_214_164),
    ]
    assert data.items == (Item("355908", "", categories=("1016", "213")), Item("356475", ""))
    assert shops.ACTIONS == {"view": "view", "addtocart": "cart", "transaction": "purchase"}


def test_yoochoose(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "yoochoose"), "yoochoose")
    assert [row[:4] for row in rows(data)] == [
        ("1", "214536502", CLICK, 1_396_867_869_277),
        ("1", "214536500", CLICK, 1_396_868_049_868),
        ("2", "214536502", CLICK, 1_396_878_997_614),
        ("2", "214536502", CLICK, 1_396_879_200_000),
    ]
    assert data.items == (Item("214536502", "", categories=("11",)), Item("214536500", ""))
    folder = tmp_path / "purchases"
    folder.mkdir()
    (tmp_path / "yoochoose-buys.dat").rename(folder / "yoochoose-buys.dat")
    assert rows(read(folder, "yoochoose"))[0][:2] == ("2", "214536502")
    (folder / "yoochoose-buys.dat").rename(tmp_path / "mine.dat")
    assert len(read(tmp_path / "mine.dat", "yoochoose").events) == 1


def test_diginetica(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "diginetica"), "diginetica")
    at = 1_462_752_000_000
    assert [row[:4] for row in rows(data)] == [
        ("1", "81766", CLICK, at + 526_309),
        ("1", "31331", CLICK, at + 1_031_018),
        ("7", "32118", CLICK, at + DAY + 244_541),
        ("7", "32118", CLICK, at + DAY + 300_000),
    ]
    assert data.items[:2] == (Item("81766", "", categories=("1096",)), Item("32118", "", categories=("330",)))


def test_lastfm_items_are_artists(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "lastfm"), "lastfm")
    dish = "f1b1cf71-bd35-4e99-8624-24a6e15f133a"
    assert [row[:4] for row in rows(data)] == [
        ("user_000002", dish, CLICK, 1_158_161_525_000),
        ("user_000001", '坂本 "龍一"', CLICK, 1_241_445_250_000),
        ("user_000001", dish, CLICK, 1_241_478_537_000),
    ]
    assert {one.item: one.title for one in data.items} == {dish: "Deep Dish", '坂本 "龍一"': '坂本 "龍一"'}


def test_kuairec(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = read(sample(tmp_path, "kuairec"), "kuairec")
    assert rows(data) == [
        ("0", "3649", RATING, 1_593_878_903_438, 1.273396521579093, ""),
        ("0", "9598", RATING, 1_593_879_221_297, 2.0, ""),
        ("14", "148", RATING, 1_593_898_068_378, 0.722, ""),
    ]
    assert "small_matrix.csv: 1 rows without a time are left out" in caplog.text
    items = {one.item: one for one in data.items}
    assert items["0"] == Item("0", "first line second line", categories=("喜剧", "搞笑互动"))
    assert items["148"].title == "精神小伙路难走 , 程哥你狗粮慢点撒"
    assert items["3649"] == Item("3649", "封面", categories=("高新数码",))
    (tmp_path / "kuairec_caption_category.csv").unlink()
    assert {one.item: one.categories for one in read(tmp_path, "kuairec").items}["148"] == ("27", "9")


def test_recbole(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "recbole"), "recbole")
    assert rows(data) == [
        ("196", "242", RATING, 881_250_949_000, 3.0, ""),
        ("196", "302", RATING, 881_250_950_000, 1.0, ""),
        ("186", "302", RATING, 891_717_742_000, 4.5, ""),
    ]
    assert data.rating_scale == (1.0, 4.5)
    assert data.items == (
        Item("242", "Kolya", categories=("Comedy",)),
        Item("302", "L.A. Confidential", categories=("Crime", "Film-Noir")),
    )


def test_recbole_without_ratings_or_times(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "recbole sessions"), "recbole sessions")
    assert [row[:4] for row in rows(data)] == [
        ("1", "9654", CLICK, 1_462_752_000_000),
        ("1", "33043", CLICK, 1_462_752_001_500),
    ]
    (tmp_path / "diginetica.inter").write_text("user_id:token\titem_id:token\trating:float\n2\t9\t1.0\n2\t8\t1.0\n")
    data = read(tmp_path, "recbole")
    assert [row[1:3] for row in rows(data)] == [("9", CLICK), ("8", CLICK)]
    assert not data.timed


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (("881250949", "1700000000000"), r"line 3: timestamp: a time in milliseconds, but line 2 has one in seconds"),
        (
            ("1700000000000.0", "1700000000001", "99999999999"),
            r"line 4: timestamp: a time in seconds, but line 2 has one",
        ),
    ],
)
def test_recbole_takes_one_unit_of_times_in_a_file(tmp_path: Path, times: tuple[str, ...], told: str) -> None:
    rows = "".join(f"1\t{item}\t{time}\n" for item, time in enumerate(times))
    (tmp_path / "x.inter").write_text(f"user_id:token\titem_id:token\ttimestamp:float\n{rows}")
    with pytest.raises(DataError, match=rf"x\.inter, {told}.*expected one unit"):
        read(tmp_path, "recbole")


def test_recbole_kinds_of_several_words() -> None:
    assert recbole._kinds("'Books', 'New, Used & Rental'") == ["Books", "New, Used & Rental"]
    assert recbole._kinds("Food, Coffee & Tea") == ["Food", "Coffee & Tea"]
    assert recbole._kinds("Animation Children's Comedy") == ["Animation", "Children's", "Comedy"]


REVIEW = "yelp_academic_dataset_review.json"
STEAM = "steam_reviews.json.gz"
USERS = "australian_user_reviews.json.gz"
OWNED = "australian_users_items.json.gz"
POETRY = "goodreads_interactions_poetry.json.gz"
INTERACTIONS = "goodreads_interactions.csv"
PLAYS = lastfm.PLAYS
CAPTIONS = "kuairec_caption_category.csv"


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "told"),
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
        ("yelp", REVIEW, "\\ude", "", r"line 2: .*surrogates"),
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
def test_what_is_wrong_names_file_and_line(tmp_path: Path, name: str, file: str, old: str, new: str, told: str) -> None:
    path = sample(tmp_path, name) / file
    packed = file.endswith(".gz")
    text = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    assert text.count(old) == 1
    changed = text.replace(old, new).encode()
    path.write_bytes(gzip.compress(changed) if packed else changed)
    place = f"{file}, " if told.startswith("line") else ""
    with pytest.raises(DataError, match=place + told):
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


def test_a_field_may_stand_in_quotes(tmp_path: Path) -> None:
    path = sample(tmp_path, "retailrocket") / "events.csv"
    plain = read(tmp_path, "retailrocket").events
    path.write_text(path.read_text().replace("257597,view", '"257597",view'))
    assert '"' in path.read_text()
    assert read(tmp_path, "retailrocket").events.equals(plain, null_equal=True)


def test_times_with_a_fraction_are_exact(tmp_path: Path) -> None:
    """One of a column that is all numbers, and one beside a time of another look: the same milliseconds."""
    texts = ["1593878903.438", "1593878903.4389", "1593878903", "1593878903.", "1593878903.07", "2009"]
    made = times(1000)(pl.Series(texts)).to_list()
    assert made == [
        1_593_878_903_438,
        1_593_878_903_438,
        1_593_878_903_000,
        1_593_878_903_000,
        1_593_878_903_070,
        2_009_000,
    ]
    assert times(1000)(pl.Series([*texts, "1970-01-02"])).to_list() == [*made, 86_400_000]
    assert times(1)(pl.Series(["5", "6.0"])).to_list() == [5, 6]
    with pytest.raises(Refused, match="expected whole milliseconds"):
        times(1)(pl.Series(["5", "6.5"]))


@pytest.mark.parametrize("name", ["retailrocket", "mind", "yelp"])
def test_what_is_no_text_names_the_line(tmp_path: Path, name: str) -> None:
    file = {"retailrocket": "events.csv", "mind": mind.BEHAVIORS, "yelp": REVIEW}[name]
    path = sample(tmp_path, name) / file
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(DataError, match=rf"{file}, line \d: not utf-8 text"):
        read(tmp_path, name)


def test_texts_are_cut_to_what_a_message_may_carry(tmp_path: Path) -> None:
    path = sample(tmp_path, "yelp") / REVIEW
    path.write_text(path.read_text().replace("Spin class", "x" * 20_000))
    assert read(tmp_path, "yelp").events["text"].str.len_chars().max() == MAX_TEXT
    made = item("1", "t" * 2_000, "x" * 20_000, [str(number) + "c" * 300 for number in range(100)])
    assert (len(made.title), len(made.text or ""), len(made.categories or ())) == (1024, MAX_TEXT, 64)
    assert {len(name) for name in made.categories or ()} == {256}


TWICE = {
    "yelp": (
        "yelp_academic_dataset_business.json",
        '{"business_id":"b9","name":"Corner"}\n{"business_id":"b9","name":"","categories":"Food"}\n',
        Item("b9", "Corner", categories=()),
    ),
    "steam reviews": (
        "steam_games.json.gz",
        "{u'id': u'9', u'title': u'Doom'}\n{u'id': u'9', u'genres': [u'Action']}\n",
        Item("9", "Doom", categories=()),
    ),
    "goodreads": (
        "goodreads_books_poetry.json.gz",
        '{"book_id":"9","title":"Odes"}\n{"book_id":"9","title":"Odes, again"}\n{"book_id":"9","title":""}\n',
        Item("9", "Odes, again", categories=()),
    ),
    "mind": (
        "news.tsv",
        "N9\tsports\tgolf\tA swing\t\t\t[]\t[]\nN9\tnews\tworld\t\t\t\t[]\t[]\n",
        Item("N9", "A swing", categories=("sports", "golf")),
    ),
    "recbole": ("ml-100k.item", "9\tHeat\t1995\tCrime\n9\t\t1995\tDrama\n", Item("9", "Heat", categories=("Crime",))),
}
"""Form -> (its file of items, lines at its end that describe one item more than once, what becomes of it)."""


@pytest.mark.parametrize("name", TWICE)
def test_of_an_item_that_is_described_twice_the_title_that_is_there_is_kept(tmp_path: Path, name: str) -> None:
    file, more, expected = TWICE[name]
    path = sample(tmp_path, name) / file
    packed, added = file.endswith(".gz"), more.encode()
    path.write_bytes(path.read_bytes() + (gzip.compress(added) if packed else added))
    (found,) = (one for one in read(tmp_path, name).items if one.item == expected.item)
    assert found == expected


def test_no_events_are_told(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(",".join(shops.RETAIL) + "\n")
    with pytest.raises(DataError, match="found no events"):
        read(tmp_path, "retailrocket")


def test_a_click_keeps_its_action() -> None:
    made = lines.click("u", "i", 1, lines.CART, "home")
    assert made[:4] == ("u", "i", CLICK, 1)
    assert (made.scene, made.action) == ("home", "cart")


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("retailrocket", ["view", "purchase", "cart"]),
        ("yoochoose", ["view", "view", "view", "purchase"]),
        ("diginetica", ["view", "view", "view", "purchase"]),
    ],
)
def test_tables_keep_actions(tmp_path: Path, name: str, actions: list[str]) -> None:
    assert read(sample(tmp_path, name), name).events["action"].to_list() == actions
