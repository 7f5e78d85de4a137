"""Read the Yelp open data set.

A review is a comment with its stars as value, a tip is a comment without a value, and a business is an item.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from models.data.catalogue import collected, item
from models.data.dataset import NAN, DataSet, Event
from models.data.form import Form
from models.data.forms.lines import chosen, first_lines, first_of, has_fields
from models.data.forms.times import plain
from models.data.rows import field, identity, json_rows, rating, words
from models.data.source import Scale, Source
from stream.core.messages import COMMENT, Item

SCALE: Final = (1.0, 5.0)
REVIEWS: Final = ("yelp_academic_dataset_review.json", "review.json")
BUSINESSES: Final = ("yelp_academic_dataset_business.json", "business.json")
BESIDE: Final = (
    "yelp_academic_dataset_checkin.json", "yelp_academic_dataset_user.json", "checkin.json", "user.json", "photo.json",
    "photos.json",
)  # fmt: skip
TIPS: Final = ("yelp_academic_dataset_tip.json", "tip.json")


def read(source: Source) -> DataSet:
    """Stream JSON lines, about 30,000 reviews per second. Times are read as UTC (the files name no zone)."""
    path = chosen(source, *REVIEWS) or source.need(REVIEWS[0])
    scale = source.scale(SCALE)
    events = list(json_rows(path, lambda row: _review(row, scale)))
    if tips := source.find(*TIPS):
        events += json_rows(tips, _tip)
    businesses = source.find(*BUSINESSES)
    return collected(source, events, _businesses(businesses), SCALE)


def fits(source: Source) -> bool:
    return has_fields(first_lines(source, *REVIEWS), ("review_id", "user_id", "business_id", "stars", "date"))


def _review(row: dict[str, Any], scale: Scale) -> Event:
    value = field(row, "stars", lambda stars: rating(stars, scale))
    return _comment(row, value)


def _tip(row: dict[str, Any]) -> Event:
    return _comment(row, NAN)


def _comment(row: dict[str, Any], value: float) -> Event:
    user, business = field(row, "user_id", identity), field(row, "business_id", identity)
    return Event(user, business, COMMENT, field(row, "date", plain), value, field(row, "text", words))


def _businesses(path: Path | None) -> list[Item]:
    return [] if path is None else list(json_rows(path, _business))


def _business(row: dict[str, Any]) -> Item:
    return item(
        field(row, "business_id", identity),
        field(row, "name", words),
        categories=field(row, "categories", _categories) if "categories" in row else (),
    )


def _categories(value: Any) -> list[str]:
    """Return the categories: one text separated by commas, or a list in older editions."""
    if isinstance(value, list):
        return [words(one) for one in value]
    return words(value).split(",")


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="Yelp",
        expected="yelp_academic_dataset_review.json (user_id, business_id, stars, date, text), optionally with "
        "yelp_academic_dataset_business.json and yelp_academic_dataset_tip.json in the same folder",
        terms="Yelp Dataset Terms of Use: academic and non-commercial use, no redistribution (https://business.yelp.com/data/resources/open-dataset/)",
        origin="https://business.yelp.com/data/resources/open-dataset/",
        fits=fits,
        read=read,
        columns=("user_id", "business_id", "stars", "date", "text"),
        files=lambda source: [
            *(one for names in (REVIEWS, BUSINESSES, TIPS) for one in first_of(source, *names)),
            *BESIDE,
        ],
    ),
)
