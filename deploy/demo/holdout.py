"""The held-out events as the replay sends them, each with a text for people."""

from __future__ import annotations

import math

from deploy.demo.closed_loop import Held
from models.data import DataSet, Split, event_messages
from models.data.choices import choices
from stream.core.messages import BEHAVIOURS, COMMENT

SAID = 60  # characters of a comment that are shown


def held_events(data: DataSet, split: Split) -> list[Held]:
    """Return the held-out events in time order. Only choices (models.data.choices) are counted for the hit rate."""
    titles = {item.item: item.title for item in data.items}
    return [
        Held(row["user"], row["item"], counted, message, words(row, titles.get(row["item"]) or row["item"]))
        for row, counted, message in zip(
            split.held.iter_rows(named=True),
            choices(split.held, data.choices, data.weights).to_list(),
            event_messages(split.held),
            strict=True,
        )
    ]


def words(row: dict[str, object], title: str) -> str:
    """Describe an event in words. row: as in models.data.dataset."""
    behaviour, value, text = row["behaviour"], row["value"], str(row["text"])
    stars = "" if not isinstance(value, float) or math.isnan(value) else f" {value:g}★"
    if behaviour == COMMENT:
        short = text if len(text) <= SAID else text[: SAID - 1] + "…"
        return f"comment{stars} “{short}” on {title}"
    return f"{row.get('action') or BEHAVIOURS[int(str(behaviour))]}{stars} {title}"


def spot_user(split: Split) -> str:
    """Return the user whose slate is shown: of the users with held-out events, the one with the shortest history.

    Ties go to the first user by name. Each event changes a short history the most.
    """
    lengths = split.train.group_by("user").len().join(split.held.select("user").unique(), on="user", how="inner")
    first = lengths.sort("len", "user").head(1)["user"].to_list()
    return str(first[0]) if first else ""
