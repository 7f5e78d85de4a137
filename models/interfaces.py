"""What a model is given and what it gives back: the one seam between models and the harness that compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from models.data.histories import Flags, Floats, Histories, Rows
from stream.core.features import InputSpec
from stream.core.messages import Item

Scorer = Callable[[Rows], Tensor]
"""Places i64 [Q] of events -> f32 [Q, N + 1]: how well every item suits the user right before each of these events.

It may look at the user's earlier events and at nothing else. Column 0 (UNKNOWN) is ignored."""

ProgressCallback = Callable[[str, int, int, str], None]
"""(stage, done, total, what to show beside): called often, must be quick."""


def silent(stage: str, done: int, total: int, text: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class TrainingData:
    """All that fitting may look at. Test events are not in it at all.

    items: the N items of the catalogue, items[i] owns row i + 1; text: f32 [N + 1, X], their BERT vectors, row 0 zeros;
    rows: events of the training and the validation part; use: bool [E], those to learn from (the training part);
    watched: i64 [V], places of the validation choices, for early stopping and for choosing settings.
    """

    items: tuple[Item, ...]
    spec: InputSpec
    text: Floats
    rows: Histories
    use: Flags
    watched: Rows

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """The items' ids, in the order of their rows."""
        return tuple(item.item for item in self.items)

    @cached_property
    def known(self) -> Flags:
        """bool [N + 1]: rows that occur in the training part. The others are served from their text alone."""
        known = np.zeros(len(self.items) + 1, np.bool_)
        known[self.rows.item[self.use]] = True
        known[0] = False
        return known


class Ranker(Protocol):
    """A fitted model."""

    def scorer(self, rows: Histories) -> Scorer:
        """Ready to score any places of `rows` (item rows, texts and spec as in its training; users may be others)."""
        ...


class Model(Protocol):
    """A kind of model with its settings, not yet fitted.

    name: as on the command line; settings: everything that decides the result besides data and seed, JSON values only:
    results are cached under them.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Ranker:
        """Learn from `training.use`, choose by `training.watched`. checkpoint: a file to resume a long fit from."""
        ...


class LeftOut(NamedTuple):
    """Events that could have been judged and are not. why: in words; users: whose they are; events: how many."""

    why: str
    users: int
    events: int


@dataclass(frozen=True)
class EvalTask:
    """What a model is judged on.

    name: of the protocol; settings: what else decides the places (JSON values); training: see there; rows: all events,
    those of `training.rows` and the test part behind them; places: i64 [Q] of the test choices in `rows`; filter_seen: leave
    out items that the user has had; candidates: which items are ranked, bool [N + 1] for all places alike or [G, N + 1]
    with groups, i64 [Q], the line of each place; None for all items; owners: i64 [Q], what is drawn as one for intervals, None
    for the user of each place; left_out: what is not judged, and why.
    """

    name: str
    settings: Mapping[str, Any]
    training: TrainingData
    rows: Histories
    places: Rows
    filter_seen: bool = True
    candidates: Flags | None = None
    groups: Rows | None = None
    owners: Rows | None = None
    left_out: tuple[LeftOut, ...] = ()
