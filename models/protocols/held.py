"""Protocols that hold back the end of histories: leave-one-out, the last 8 choices, and a cut in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from models.data import DataSet
from models.data.split import held_last, judged
from models.protocols.parts import Encode, Ordered, ordered, training_and_rows
from models.rows import Flags
from models.task import Task
from stream.errors import DataError

LAST: Final = 8
VALIDATION: Final = 3  # last choices before these
LEARN: Final = 0.8
LEARN_AND_WATCH: Final = 0.9


def leave_one_out(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[Task, ...]:
    """The last choice of every user with three or more is the test, the one before it validation. The seed decides nothing here.

    W.-C. Kang and J. McAuley, Self-attentive sequential recommendation, ICDM 2018.
    """
    order = ordered(data)
    enough = order.number(order.choice) >= 3
    back = order.backwards(order.choice)
    test, watched = (order.choice & enough & (back == place) for place in (1, 2))
    return (_task("leave-one-out", {}, order, order.since(test), test, watched, encode, filter_seen),)


def last_choices(
    data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True, last: int = LAST
) -> tuple[Task, ...]:
    """The split of models.data.split_last, prequential; validation is the three choices before, of users with six or more.

    What `freshet train` learns from with the same holdout. The seed decides nothing here.
    """
    order = ordered(data)
    held = held_last(data, last).to_numpy()[order.at]
    test = held & judged(data.events).to_numpy()[order.at] & (order.item > 0)
    chosen = order.choice & ~held
    enough = order.number(chosen) >= VALIDATION + 3
    watched = chosen & enough & (order.backwards(chosen) <= VALIDATION)
    return (_task(f"last-{last}", {"last": last}, order, held, test, watched, encode, filter_seen),)


def time_split(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[Task, ...]:
    """The first 80 % of all events to learn from, the next 10 % for validation, the last 10 % the test, prequential: A. Dawid,
    Present position and potential developments, JRSS A 147 (2), 1984. The seed decides nothing here.

    A user's first event is no place, since no model knows anything then. Raises DataError where the data has no times.
    """
    if not data.timed:
        raise DataError(f"{data.name}: the file gives an order within each user and no times; time-split needs times")
    order = ordered(data)
    first, second = int(LEARN * len(order.at)), int(LEARN_AND_WATCH * len(order.at))
    held, known = order.at >= second, order.choice & (order.position() > 0)
    watched = known & (order.at >= first) & ~held
    settings = {"parts": [LEARN, LEARN_AND_WATCH]}
    return (_task("time-split", settings, order, held, known & held, watched, encode, filter_seen, order.at < first),)


def _task(
    name: str,
    settings: Mapping[str, object],
    order: Ordered,
    held: Flags,
    test: Flags,
    watched: Flags,
    encode: Encode,
    filter_seen: bool,
    use: Flags | None = None,
) -> Task:
    if not test.any():
        raise DataError(f"{order.data.name}: {name} finds no choice to judge: too few events a user")
    use = ~held & ~order.since(watched) if use is None else use
    training, rows = training_and_rows(order, held, use, watched, encode)
    return Task(name, settings, training, rows, np.flatnonzero(test), filter_seen)
