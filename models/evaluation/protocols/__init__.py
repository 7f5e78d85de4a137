"""Splits a data set into what models learn from and what they are evaluated on.

Each protocol gives one or more EvalTasks that share one TrainingData.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from models.data import DataSet
from models.data.histories import Encode
from models.evaluation.protocols.cold import cold_items, cold_users
from models.evaluation.protocols.held import last_choices, leave_one_out, time_split
from models.evaluation.protocols.transfer import scene_transfer
from models.interfaces import EvalTask
from stream.core.errors import DataError

__all__ = ["PROTOCOLS", "RATING", "WORDS", "Encode", "make_tasks"]

PROTOCOLS: Final[dict[str, Callable[..., tuple[EvalTask, ...]]]] = {
    "last-8": last_choices,
    "leave-one-out": leave_one_out,
    "time-split": time_split,
    "cold-items": cold_items,
    "cold-users": cold_users,
    "scene-transfer": scene_transfer,
}
RATING: Final = "rating"  # predicts values and ranks nothing: models/rating_prediction

WORDS: Final = {
    "last-8": "The last 8 choices of every user with 12 or more are the test, each ranked against the state before it and then "
    "folded in; the 3 choices before them are for validation.",
    "leave-one-out": "The last choice of every user with 3 or more is the test, the one before it validation. At the test, "
    "models know the validation choice too.",
    "time-split": "One cut in time for all: models learn from the first 80 % of the events and choose settings on the next "
    "10 %; each choice in the last 10 % is ranked against the state before it and then folded in. Models are not refitted. A "
    "user's first event is not judged; users first seen in the test part are judged from their second event on.",
    "cold-items": "A tenth of the catalogue is kept out of training with all its events; choices of these items are ranked "
    "among these items only, and among all. Validation is the last other choice of each user.",
    "cold-users": "A tenth of the users is kept out of training; their next choice is ranked after 1, 2, 3 and 5 of their "
    "events, of the same users each time. Validation is the last choice of each other user.",
    "scene-transfer": "A fifth of the users is kept out of training. When one of them, after 3 choices or more elsewhere, "
    "enters a scene for the first time, the first 3 choices in it are ranked among the items of that scene: once with the "
    "whole history, once with the events of that scene alone. Validation is the last choice of each other user.",
}


def make_tasks(
    name: str, data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True
) -> tuple[EvalTask, ...]:
    """Make the tasks of a protocol, the main one first. All share one TrainingData.

    Raises DataError if there is no such protocol, or it does not fit the data.

    Args:
        name: Name of the protocol.
        data: The data set.
        encode: Texts -> f32 [n, X].
        seed: Seed of what is drawn.
        filter_seen: Leave out items that the user has already interacted with.
    """
    if name not in PROTOCOLS:
        raise DataError(f"protocol {name}: expected one of {', '.join([*PROTOCOLS, RATING])}")
    return PROTOCOLS[name](data, encode, seed=seed, filter_seen=filter_seen)
