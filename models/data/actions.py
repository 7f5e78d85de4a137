"""Select the click actions that the recurrent network reads: those that it can learn from."""

from __future__ import annotations

from typing import Final

import polars as pl

ENOUGH: Final = 100
SHARE: Final = 0.01
"""The network reads an action that occurs in at least ENOUGH events or in SHARE of all events, whichever is less. From
a name that occurs only a few times it would learn the taste of those users, not the meaning of the name. `action`
accepts any name, and typos and ids must not become rows of the network. In a small data set no name occurs a hundred
times, so the share applies."""


def often(events: pl.DataFrame) -> tuple[str, ...]:
    """Return the actions in at least ENOUGH events of the training part, or in SHARE of them, sorted.

    "" means no action and is left out.
    """
    least = min(ENOUGH, SHARE * len(events))
    found = events.filter(pl.col("action") != "").group_by("action").len()
    return tuple(sorted(found.filter(pl.col("len") >= least)["action"].to_list()))
