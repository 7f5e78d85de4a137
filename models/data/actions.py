"""Which actions of clicks the recurrent network reads: those that it can learn from."""

from __future__ import annotations

from typing import Final

import polars as pl

ENOUGH: Final = 100
SHARE: Final = 0.01
"""A name is read from so many events on, or from this share of all events on, whichever is less. What is learned of a name that
stands there a few times is those users' taste rather than what the name means, and `action` takes any name: typing errors and
ids must not become rows of the network. A small set has no name a hundred times, so a share counts there."""


def often(events: pl.DataFrame) -> tuple[str, ...]:
    """The actions in at least ENOUGH events of the training part, or in SHARE of them, sorted; "" is none and not among them."""
    least = min(ENOUGH, SHARE * len(events))
    found = events.filter(pl.col("action") != "").group_by("action").len()
    return tuple(sorted(found.filter(pl.col("len") >= least)["action"].to_list()))
