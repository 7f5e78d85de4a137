"""What a model receives and what it returns: the one interface between models and the harness that compares them."""

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
"""Maps positions i64 [Q] of events to f32 [Q, N + 1]: how well every item suits the user right before each event.

It may look at the user's earlier events and at nothing else, unless its ranker follows the stream (`Ranker`). Column 0
(UNKNOWN) is ignored."""

ProgressCallback = Callable[[str, int, int, str], None]
"""Takes (stage, done, total, text to show next to them). It is called often and must be quick."""


def silent(stage: str, done: int, total: int, text: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that fitting may look at. It contains no test events.

    Attributes:
        items: The N items of the catalogue. items[i] owns row i + 1.
        spec: How events become inputs.
        text: f32 [N + 1, X], the items' BERT vectors. Row 0 is zeros.
        rows: Events of the training and the validation part.
        use: bool [E], the events to learn from (the training part).
        watched: i64 [V], positions of the validation choices, for early stopping and for choosing settings.
        learned: bool [N + 1], rows that the run has learned from which training starts; None if it starts from nothing.
    """

    items: tuple[Item, ...]
    spec: InputSpec
    text: Floats
    rows: Histories
    use: Flags
    watched: Rows
    learned: Flags | None = None

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """The items' ids, in the order of their rows."""
        return tuple(item.item for item in self.items)

    @cached_property
    def known(self) -> Flags:
        """bool [N + 1]: rows that are learned, here or before. The other items are served from their text alone."""
        known = np.zeros(len(self.items) + 1, np.bool_) if self.learned is None else self.learned.copy()
        known[self.rows.item[self.use]] = True
        known[0] = False
        return known


class Ranker(Protocol):
    """A fitted model.

    It is one of two kinds. A frozen one looks at the user's earlier events and at what it was fitted with. One that
    follows the stream also looks at the events of all users in `rows` whose time is before that of the scored event,
    and at none at the same time or later; its model says so in `tables` (models.training.regimes.every).
    """

    def scorer(self, rows: Histories) -> Scorer:
        """Prepare to score any positions of `rows`. Item rows, texts and spec are as in training; users may differ.

        Raises DataError if the ranker follows the stream and `rows` have no times.
        """
        ...


class Model(Protocol):
    """A kind of model with its settings, not yet fitted.

    Attributes:
        name: The model's name on the command line.
        settings: Everything that decides the result besides data and seed. JSON values only. Results are cached under
            them.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Ranker:
        """Learn from `training.use` and choose by `training.watched`.

        `checkpoint` is a file to resume a long fit from.
        """
        ...


class LeftOut(NamedTuple):
    """Events that could have been evaluated and are not.

    Attributes:
        why: The reason, in words.
        users: Number of users that the events belong to.
        events: Number of events.
    """

    why: str
    users: int
    events: int


@dataclass(frozen=True)
class EvalTask:
    """What a model is evaluated on.

    Attributes:
        name: The protocol's name.
        settings: Whatever else decides the positions (JSON values).
        training: See `TrainingData`.
        rows: All events: those of `training.rows`, followed by the test part.
        positions: i64 [Q], the positions of the test choices in `rows`.
        filter_seen: Leave out items that the user has already interacted with.
        candidates: Which items are ranked: bool [N + 1] for all positions, or [G, N + 1] together with `groups`.
            None means all items.
        groups: i64 [Q], the line of `candidates` for each position.
        owners: i64 [Q], the unit that is drawn for intervals. None means the user of each position.
        left_out: Events that are not evaluated, and why.
    """

    name: str
    settings: Mapping[str, Any]
    training: TrainingData
    rows: Histories
    positions: Rows
    filter_seen: bool = True
    candidates: Flags | None = None
    groups: Rows | None = None
    owners: Rows | None = None
    left_out: tuple[LeftOut, ...] = ()
