"""Files (reviews.jsonl in a folder) of Amazon Reviews 2023 fields: a review is a comment with a value and a text, its
category is the scene. Y. Hou et al., Bridging Language and Items for Retrieval and Recommendation, arXiv 2403.03952.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.data.dataset import DataSet, Event, dataset
from models.data.rows import cut, identity, json_rows, moment, rating
from stream.events import COMMENT, Item

SCALE = (1.0, 5.0)


def read_reviews(path: Path, name: str = "") -> DataSet:
    """The text is the review's title and body. An item is described by the first review that gives its title."""
    pairs = list(json_rows(path, _review))
    items: dict[str, Item] = {}
    for _, item in pairs:
        if item.item not in items or not items[item.item].title:
            items[item.item] = item
    return dataset(name or path.stem, [event for event, _ in pairs], list(items.values()), SCALE)


def _review(row: dict[str, Any]) -> tuple[Event, Item]:
    user, item, scene = identity(row["user_id"]), identity(row["item_id"]), str(row.get("category") or "")
    texts = (str(row.get(name) or "").strip() for name in ("review_title", "review_text"))
    text = cut(". ".join(text for text in texts if text))
    event = Event(user, item, COMMENT, moment(row["timestamp_ms"]), rating(row["rating"], SCALE), text, scene)
    categories = dict.fromkeys(str(name) for name in (scene, row.get("main_category")) if name)
    return event, Item(item, str(row.get("title") or "")[:1024], categories=tuple(categories))
