"""Detects training and evaluation that show nothing. It refuses them, or adds a note to the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from models.data.histories import Flags, Rows
from models.interfaces import EvalTask, TrainingData
from models.metrics.ranks import batches, seen_before
from models.training.batching import following
from stream.core.errors import DataError

LIST: Final = 10  # items of the list that the main figures are about
UNWATCHED: Final = (
    "the validation part is empty (too few choices per user): models use their first settings, and networks stop only by "
    "epochs or minutes"
)


def require_order(name: str, events: pl.DataFrame) -> None:
    """Raise DataError if users have several events, but none has two at different times: their order is arbitrary."""
    each = events.group_by("user").agg(count=pl.len(), times=pl.col("time").n_unique()).filter(pl.col("count") > 1)
    if len(each) and (each["times"] == 1).all():
        raise DataError(
            f"{name}: field `time`: the events of each user all have the same time, so their order is unknown. Found "
            f"{events['time'].n_unique()} times in {len(events)} events; expected a different time for each event. If only "
            "the order is known, give `user item item ...` lines"
        )


def require_following(name: str, training: TrainingData) -> None:
    """Raise DataError if no choice follows another event of its user in the training part. `name` is the model's."""
    if following(training.rows, training.use).any():
        return
    users = len(np.unique(training.rows.owner()[training.use]))
    raise DataError(
        f"{name}: nothing to learn from: no choice follows an event of the same user. Found {int(training.use.sum())} events "
        f"of {users} users in the training part; expected users with at least two events before the held-out ones"
    )


def notes(task: EvalTask) -> list[str]:
    """Return what a reader must know before trusting the figures of a task."""
    found = []
    if not len(task.training.watched):
        found.append(UNWATCHED)
    few = int((rankable(task) <= LIST).sum())
    if few:
        found.append(
            f"at {few:,} of {len(task.positions):,} choices, at most {LIST} items were left to rank: a hit there shows nothing"
        )
    return found


def require_ranking(tasks: Sequence[EvalTask]) -> None:
    """Raise DataError if no position of any task has more items to rank than a list holds: any model would always hit."""
    most = max(int(rankable(task).max()) for task in tasks)
    if most > LIST:
        return
    raise DataError(
        f"{tasks[0].name}: at most {most} of {len(tasks[0].training.items)} items are left to rank at any choice. A list of "
        f"{LIST} holds them all, so any model hits. Expected more than {LIST}; use a larger catalogue"
    )


def rankable(task: EvalTask) -> Rows:
    """Return i64 [Q]: how many items are ranked at each position."""
    size = len(task.training.items) + 1
    out = np.empty(len(task.positions), np.int64)
    for batch in batches(task.positions):
        some = task.positions[batch]
        left: Flags = np.ones((len(some), size), np.bool_)
        if task.candidates is not None:
            left &= task.candidates if task.groups is None else task.candidates[task.groups[batch]]
        if task.filter_seen:
            line, seen = seen_before(task.rows, some)
            left[line, seen] = False
        left[:, 0] = False
        out[batch] = left.sum(1)
    return out
