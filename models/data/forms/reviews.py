"""Read Amazon reviews as lines of JSON.

A review is a comment with a value and a text. Metadata give titles and categories.

2014: J. McAuley et al., Image-based Recommendations on Styles and Substitutes, SIGIR 2015. 2018: J. Ni et al.,
Justifying Recommendations, EMNLP 2019. 2023: Y. Hou et al., Bridging Language and Items for Retrieval and
Recommendation, arXiv 2403.03952.

Some files of 2014 hold Python dicts in place of JSON. They are parsed as plain values and never executed. If a folder
holds reviews of several categories, the category (the file's name) is the scene.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from models.data.catalogue import collected, item
from models.data.columns import instant
from models.data.dataset import DataSet, Event
from models.data.form import Form, named
from models.data.rows import cut, identity, json_object, object_rows, python_object, rating
from models.data.source import Scale, Source, plain_name
from stream.core.errors import DataError
from stream.core.messages import COMMENT, Item

SCALE: Final = (1.0, 5.0)
SUFFIXES: Final = (".json", ".jsonl")
TERMS: Final = "research use; the reviews belong to their authors and to Amazon (McAuley Lab, UC San Diego)"
Row = dict[str, Any]
Parse = Callable[[str], Row]


def first_row(source: Source, path: Path) -> Row:
    """Return the object in the first non-blank line, or {} if there is none."""
    line = next((line for line in source.head(path) if line.strip()), "")
    try:
        return _parser(line)(line)
    except (ValueError, RecursionError, MemoryError):
        return {}


def _parser(line: str) -> Parse:
    """Return the parser for a whole file, by its first line."""
    try:
        json_object(line)
    except (ValueError, RecursionError):
        return python_object if re.match(r"\s*\{\s*u?'", line) else json_object
    return json_object


def _files(source: Source) -> tuple[list[Path], list[Path]]:
    """Return (reviews, metadata), by file name."""
    found = [path for path in source.listed if plain_name(path).lower().endswith(SUFFIXES)]
    meta = [path for path in found if plain_name(path).lower().startswith("meta_")]
    return [path for path in found if path not in meta], meta


def _fits(source: Source, fields: set[str]) -> bool:
    """Check whether every file of reviews has these fields in its first line."""
    reviews, _ = _files(source)
    return bool(reviews) and all(fields <= set(first_row(source, path)) for path in reviews)


def _rows(source: Source, path: Path, make: Callable[[Row], Any]) -> Iterable[Any]:
    first = next((line for line in source.head(path) if line.strip()), "")
    return object_rows(path, _parser(first), make)


def _read(source: Source, review: Callable[[Row, str, Scale], Event], meta: Callable[[Row], Item]) -> DataSet:
    """Read reviews and metadata.

    Items without metadata have no title. Items with metadata but without reviews are included.
    """
    reviews, described_by = _files(source)
    found: list[Event] = []
    scale = source.scale(SCALE)
    for path in reviews:
        scene = _category(path) if len(reviews) > 1 else ""
        found += _rows(source, path, lambda row, scene=scene: review(row, scene, scale))  # type: ignore[misc]
    if not found:
        raise DataError(f"{source.path}: found no reviews; expected at least one")
    return collected(source, found, (one for path in described_by for one in _rows(source, path, meta)), SCALE)


def _category(path: Path) -> str:
    """Return the category in a file name: reviews_Books_5.json.gz -> Books."""
    return re.sub(r"^reviews_|_5$", "", plain_name(path).rsplit(".", 1)[0])[:256]


def _text(row: Row, *names: str) -> str:
    """Return title and body as one text."""
    parts = [row.get(name) or "" for name in names]
    if wrong := [name for name, part in zip(names, parts, strict=True) if not isinstance(part, str)]:
        raise ValueError(f"{wrong[0]}: expected a text")
    return cut(". ".join(part for part in (part.strip() for part in parts) if part))


def _old(row: Row, scene: str, scale: Scale) -> Event:
    user, name = identity(row["reviewerID"]), identity(row["asin"])
    time = instant(str(row["unixReviewTime"]), 1000)
    return Event(user, name, COMMENT, time, rating(row["overall"], scale), _text(row, "summary", "reviewText"), scene)


def _old_meta(row: Row) -> Item:
    categories = row.get("categories") or row.get("category")
    return item(identity(row["asin"]), row.get("title"), _prose(row.get("description")), categories)


def _new(row: Row, scene: str, scale: Scale) -> Event:
    name = identity(row["parent_asin"] if row.get("parent_asin") else row["asin"])
    time = instant(str(row["timestamp"]), 1)
    return Event(
        identity(row["user_id"]), name, COMMENT, time, rating(row["rating"], scale), _text(row, "title", "text"), scene
    )


def _new_meta(row: Row) -> Item:
    categories = [row.get("main_category"), row.get("categories")]
    return item(identity(row["parent_asin"]), row.get("title"), _prose(row.get("description")), categories)


def _prose(found: Any) -> str:
    """Return a description, given as a text or a list of texts; "" for none."""
    parts = [found] if isinstance(found, str) else found or []
    return " ".join(part for part in parts if isinstance(part, str))


def _read_flat(source: Source) -> DataSet:
    """Read lines with a review and the item's title and category.

    There is no metadata file, and the category is the scene.
    """
    path = _flat_path(source) or source.path
    scale = source.scale(SCALE)
    pairs = list(_rows(source, path, lambda row: _flat(row, scale)))
    if not pairs:
        raise DataError(f"{path}: found no reviews; expected at least one")
    return collected(source, [event for event, _ in pairs], (one for _, one in pairs), SCALE)


def _flat(row: Row, scale: Scale) -> tuple[Event, Item]:
    user, name, scene = identity(row["user_id"]), identity(row["item_id"]), str(row.get("category") or "")
    time = instant(str(row["timestamp_ms"]), 1)
    text = _text(row, "review_title", "review_text")
    event = Event(user, name, COMMENT, time, rating(row["rating"], scale), text, scene)
    return event, item(name, row.get("title"), categories=[scene, row.get("main_category")])


def _flat_path(source: Source) -> Path | None:
    """Return reviews.jsonl, or the only file if it has the fields of this form.

    Returns None if there is no such file, or if reviews.jsonl has the fields of another form.
    """
    named = source.find("reviews.jsonl")
    if named:
        row = set(first_row(source, named))
        return None if row >= _OLD or row >= _NEW else named
    found, _ = _files(source)
    return found[0] if len(found) == 1 and set(first_row(source, found[0])) >= _FLAT else None


_OLD: Final = {"reviewerID", "asin", "overall", "unixReviewTime"}
_NEW: Final = {"user_id", "rating", "timestamp"}
_FLAT: Final = {"user_id", "item_id", "rating", "timestamp_ms"}

FORMS: Final[tuple[Form, ...]] = (
    Form(
        "Amazon reviews 2014 and 2018",
        "lines of JSON or Python dicts (reviewerID, asin, overall, unixReviewTime, reviewText, summary), optionally meta_*.json",
        TERMS,
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html; McAuley et al., SIGIR 2015; Ni et al., EMNLP 2019",
        lambda source: _fits(source, _OLD),
        lambda source: _read(source, _old, _old_meta),
        named("*.json", "*.jsonl"),
        ("reviewerID", "asin", "overall", "unixReviewTime", "reviewText", "summary"),
    ),
    Form(
        "Amazon reviews 2023",
        "lines of JSON (user_id, parent_asin or asin, rating, timestamp in ms, title, text), optionally meta_*.jsonl",
        TERMS,
        "https://amazon-reviews-2023.github.io; Hou et al., arXiv 2403.03952",
        lambda source: _fits(source, _NEW | {"parent_asin"}) or _fits(source, _NEW | {"asin"}),
        lambda source: _read(source, _new, _new_meta),
        named("*.json", "*.jsonl"),
        ("user_id", "parent_asin", "asin", "rating", "timestamp", "title", "text"),
    ),
    Form(
        "reviews.jsonl",
        "reviews.jsonl with user_id, item_id, rating, timestamp_ms, optionally category, title, review_title, review_text",
        TERMS,
        "freshet's own; fields of Amazon Reviews 2023",
        lambda source: _flat_path(source) is not None,
        _read_flat,
        lambda source: [plain_name(path).lower() for path in [_flat_path(source)] if path],
        ("user_id", "item_id", "rating", "timestamp_ms", "category", "title", "review_title", "review_text"),
    ),
)
