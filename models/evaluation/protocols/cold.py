"""Protocols of cold start: items or users that training has not seen at all."""

from __future__ import annotations

from typing import Final

import numpy as np

from models.data import DataSet
from models.data.histories import Encode
from models.evaluation.protocols.parts import left_out, ordered, share_of, training_and_rows, with_validation
from models.interfaces import EvalTask
from stream.core.errors import DataError

SHARE: Final = 0.1
AFTER: Final = (1, 2, 3, 5)  # events of a new user


def cold_items(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[EvalTask, ...]:
    """Take a tenth of the catalogue out of training, with all its events.

    Each choice of such an item is ranked twice: among the cold items only, and among all. A user's first event is not
    evaluated. The draw depends on the catalogue and the seed, not on events.
    """
    order = ordered(data)
    cold = np.zeros(len(data.items) + 1, np.bool_)
    cold[share_of(np.arange(1, len(cold)), SHARE, seed)] = True
    held = cold[order.item]
    use, watched = with_validation(order, ~held)
    positions = np.flatnonzero(order.choice & held & (order.position() > 0))
    if not len(positions):
        raise DataError(f"{data.name}: no choice of a cold item to judge")
    training, rows = training_and_rows(order, held, use, watched, encode)
    about = {"share": SHARE, "seed": seed, "cold items": int(cold.sum())}
    first = order.choice & held & (order.position() == 0), "first events of users: nothing is known about them yet"
    without = (
        order.choice & (order.number(order.choice & held) == 0),
        "users without a choice of a cold item: training only",
    )
    left = left_out(order, without, first)
    return tuple(
        EvalTask(
            "cold-items", {**about, "part": part}, training, rows, positions, filter_seen, candidates, left_out=left
        )
        for part, candidates in (("among cold items", cold), ("among all items", None))
    )


def cold_users(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[EvalTask, ...]:
    """Take a tenth of the users out of training. Their next choice is ranked after 1, 2, 3 and 5 events.

    Only those of them are evaluated whose next event is a choice each time. The figures are then of the same users and
    can be compared.
    """
    order = ordered(data)
    users = np.arange(len(order.starts) - 1)
    if len(users) < 2:
        raise DataError(f"{data.name}: found {len(users)} users; cold-users needs at least two")
    new = np.zeros(len(users), np.bool_)
    new[share_of(users, SHARE, seed)] = True
    held = new[order.owner]
    use, watched = with_validation(order, ~held)
    asked = held & order.choice & np.isin(order.position(), AFTER)
    asked &= order.number(asked) == len(AFTER)
    if not asked.any():
        raise DataError(f"{data.name}: no new user with a choice after {', '.join(map(str, AFTER))} events to judge")
    training, rows = training_and_rows(order, held, use, watched, encode)
    after = ", ".join(map(str, AFTER))
    missing = (
        held & order.choice & (order.number(asked) == 0),
        f"new users without a choice after each of {after} events",
    )
    left = left_out(order, missing)
    return tuple(
        EvalTask(
            "cold-users",
            {"share": SHARE, "seed": seed, "part": f"after {count} event{'s' * (count > 1)}"},
            training,
            rows,
            np.flatnonzero(asked & (order.position() == count)),
            filter_seen,
            left_out=left,
        )
        for count in AFTER
    )
