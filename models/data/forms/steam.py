"""Read Steam, two crawls by one laboratory. Both consist of Python objects, one per line.

Reviews (steam_reviews.json, called steam_new.json inside the packed file): a review is a comment whose value is 1. The
file does not say whether the reviewer likes the game. As in the papers, every review counts as a choice.

Australian users (australian_user_reviews.json): a review is a comment whose value is 1 if the game is recommended, else
0. If the folder has only australian_users_items.json, every game that a user owns is a click, without times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from models.data.catalogue import collected, item
from models.data.dataset import DataSet, Event
from models.data.form import Form
from models.data.forms.lines import (
    ORDER_START,
    ORDER_STEP,
    chosen,
    click,
    first_lines,
    first_of,
    has_fields,
)
from models.data.forms.times import day, month_number, plain
from models.data.rows import field, identity, object_rows, python_object, words
from models.data.source import Source
from models.data.table import shown
from stream.core.messages import COMMENT, Item

SCALE: Final = (0.0, 1.0)
REVIEWS: Final = ("steam_reviews.json", "steam_new.json")
USER_REVIEWS: Final = "australian_user_reviews.json"
USER_ITEMS: Final = "australian_users_items.json"
GAMES: Final = ("steam_games.json", "output_steam_games.json")
BUNDLES: Final = "bundle_data.json"
CRAWL_YEAR: Final = 2016
"""The year of dates without one: Steam leaves out the current year. Such reviews end in September, and 2015 is
complete."""
APP: Final = re.compile(r"/app/(\d+)", re.ASCII)
POSTED: Final = re.compile(r"Posted ([A-Z][a-z]+) (\d{1,2})(?:, (\d{4}))?\.?", re.ASCII)


def read_reviews(source: Source) -> DataSet:
    """Read the reviews. Slow: about 10,000 reviews per second. A date has no time of day and means its start, UTC."""
    path = chosen(source, *REVIEWS) or source.need(REVIEWS[0])
    return collected(source, list(object_rows(path, python_object, _review)), _games(source), SCALE)


def fits_reviews(source: Source) -> bool:
    return has_fields(first_lines(source, *REVIEWS), ("username", "product_id", "date", "text"), python_object)


def read_users(source: Source) -> DataSet:
    """Read the reviews of every user, or without a file of reviews the games that every user owns, in file order."""
    owned = source.find(USER_ITEMS)
    reviews = source.find(USER_REVIEWS) or (chosen(source) if owned is None else None)
    if reviews is not None and _first(source, ("reviews",)):
        events = list(chain.from_iterable(object_rows(reviews, python_object, _user_reviews)))
        owned_items = {} if owned is None else dict(chain.from_iterable(object_rows(owned, python_object, _titles)))
        items = [item(name, title) for name, title in owned_items.items()]
        return collected(source, events, [*items, *_games(source)], SCALE)
    path = owned or chosen(source) or source.need(USER_ITEMS)
    pairs = list(chain.from_iterable(object_rows(path, python_object, _owned)))
    items = [item(event.item, title) for event, title in pairs]
    return collected(source, [event for event, _ in pairs], [*items, *_games(source)], timed=False)


def fits_users(source: Source) -> bool:
    return _first(source, ("reviews",)) or _first(source, ("items",))


def _first(source: Source, fields: tuple[str, ...]) -> bool:
    name = USER_REVIEWS if fields == ("reviews",) else USER_ITEMS
    return has_fields(first_lines(source, name), ("user_id", "user_url", *fields), python_object)


def _review(row: dict[str, Any]) -> Event:
    return Event(
        _user(row),
        field(row, "product_id", identity),
        COMMENT,
        field(row, "date", plain),
        1.0,
        field(row, "text", words),
    )


def _user(row: dict[str, Any]) -> str:
    """Return the user: the name, as in the papers. An empty name and `*` (unknown users in freshet) are not ids."""
    name = row["username"]
    if name in ("", "*"):
        return field(row, "user_id", identity) if row.get("user_id") else f"steam:{name}"
    return field(row, "username", identity)


def _user_reviews(row: dict[str, Any]) -> Iterator[Event]:
    user = field(row, "user_id", identity)
    # The whole list is made before the first event is returned, so that an error is reported with its own line.
    return iter([_user_review(user, review) for review in field(row, "reviews", _objects)])


def _user_review(user: str, row: dict[str, Any]) -> Event:
    return Event(
        user,
        field(row, "item_id", identity),
        COMMENT,
        field(row, "posted", _posted),
        field(row, "recommend", _recommended),
        field(row, "review", words),
    )


def _owned(row: dict[str, Any]) -> Iterator[tuple[Event, str]]:
    user = field(row, "user_id", identity)
    return iter(
        [(click(user, game, ORDER_START + at * ORDER_STEP), title) for at, (game, title) in enumerate(_titles(row))]
    )


def _titles(row: dict[str, Any]) -> list[tuple[str, str]]:
    games = field(row, "items", _objects)
    return [(field(game, "item_id", identity), field(game, "item_name", words)) for game in games]


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("expected a list of objects")
    return value


def _posted(value: Any) -> int:
    found = POSTED.fullmatch(str(value).strip())
    if not found or (month := month_number(found[1])) is None:
        raise ValueError("expected a date such as Posted November 5, 2011.")
    return day(int(found[3] or CRAWL_YEAR), month, int(found[2]))


def _recommended(value: Any) -> float:
    if not isinstance(value, bool):
        raise ValueError("expected True or False")
    return float(value)


def _games(source: Source) -> list[Item]:
    path: Path | None = source.find(*GAMES)
    return [] if path is None else [game for game in object_rows(path, python_object, _game) if game is not None]


def _game(row: dict[str, Any]) -> Item | None:
    """Return the game.

    Returns None for the published row with neither an id nor a url that contains it: no event can name it.
    """
    if "id" in row:
        name = field(row, "id", identity)
    elif found := APP.search(str(row.get("url", ""))):
        name = found[1]
    elif row.get("title") or row.get("app_name"):
        raise ValueError(f"found {shown(list(row))}; expected id, or a url with /app/ and the id in it")
    else:
        return None
    title = words(row.get("title")) or words(row.get("app_name"))
    return item(name, title, categories=[*_names(row.get("genres")), *_names(row.get("tags"))])


def _names(value: Any) -> list[str]:
    """Return a list of texts, or [] if there is none. Raises ValueError for anything else."""
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("expected a list of texts")
    return value


TERMS: Final = (
    "no licence is given; research use, cite the papers (https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data)"
)
FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="Steam reviews",
        expected="steam_reviews.json(.gz) of Python objects (username, product_id, date, text), optionally with "
        "steam_games.json(.gz) in the same folder",
        terms=TERMS,
        origin="W.-C. Kang and J. McAuley, Self-Attentive Sequential Recommendation, ICDM 2018",
        fits=fits_reviews,
        read=read_reviews,
        columns=("username", "product_id", "date", "text"),
        files=lambda source: [*first_of(source, *REVIEWS), *first_of(source, *GAMES), BUNDLES],
    ),
    Form(
        name="Steam, Australian users",
        expected="australian_user_reviews.json(.gz) (user_id, reviews) or australian_users_items.json(.gz) (user_id, items) of "
        "Python objects, optionally with steam_games.json(.gz) in the same folder",
        terms=TERMS,
        origin="A. Pathak, K. Gupta and J. McAuley, Generating and Personalizing Bundle Recommendations on Steam, SIGIR 2017",
        fits=fits_users,
        read=read_users,
        columns=("user_id", "reviews", "items"),
        files=lambda source: [USER_REVIEWS, USER_ITEMS, *first_of(source, *GAMES), BUNDLES],
    ),
)
