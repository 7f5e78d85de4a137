"""Readers of published data sets: exactly one form fits a folder, however it is packed, and what holds for all of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from models.data import table
from models.data.choices import choices
from models.data.dataset import SCHEMA
from models.data.form import Form
from models.data.forms import kuairec, lastfm, lines, mind, shops, steam, yelp
from models.data.source import source
from stream.core.errors import DataError
from stream.core.messages import CLICK, Item
from tests.unit.models.data.forms.published import FORM_OF, FORMS, read, sample
from tests.unit.models.data.published_samples import SAMPLES


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


def test_a_click_keeps_its_action() -> None:
    made = lines.click("u", "i", 1, lines.CART, "home")
    assert made[:4] == ("u", "i", CLICK, 1)
    assert (made.scene, made.action) == ("home", "cart")
