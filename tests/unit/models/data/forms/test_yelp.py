"""Yelp: what becomes what."""

from __future__ import annotations

from pathlib import Path

from models.data.catalogue import item
from models.data.choices import choices
from stream.core.messages import COMMENT, MAX_TEXT, Item
from tests.unit.models.data.forms.published import REVIEW, read, rows, sample


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


def test_texts_are_cut_to_what_a_message_may_carry(tmp_path: Path) -> None:
    path = sample(tmp_path, "yelp") / REVIEW
    path.write_text(path.read_text().replace("Spin class", "x" * 20_000))
    assert read(tmp_path, "yelp").events["text"].str.len_chars().max() == MAX_TEXT
    made = item("1", "t" * 2_000, "x" * 20_000, [str(number) + "c" * 300 for number in range(100)])
    assert (len(made.title), len(made.text or ""), len(made.categories or ())) == (1024, MAX_TEXT, 64)
    assert {len(name) for name in made.categories or ()} == {256}
