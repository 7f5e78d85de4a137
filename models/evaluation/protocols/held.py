"""Protocols that hold out the end of histories: leave-one-out, the last 8 choices, and a cut in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from models.data import DataSet
from models.data.histories import Encode, Flags
from models.data.split import LEAST, held_last
from models.evaluation.protocols.parts import Ordered, left_out, ordered, training_and_rows
from models.interfaces import EvalTask
from stream.core.errors import DataError

LAST: Final = 8
ONE_OUT: Final = 3  # choices that a user must have for leave-one-out
VALIDATION: Final = 3  # last choices before these
LEARN: Final = 0.8
LEARN_AND_WATCH: Final = 0.9


def leave_one_out(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[EvalTask, ...]:
    """The last choice of every user with three or more is the test, the one before it validation.

    The seed has no effect.

    W.-C. Kang and J. McAuley, Self-attentive sequential recommendation, ICDM 2018.
    """
    order = ordered(data)
    enough = order.number(order.choice) >= ONE_OUT
    back = order.backwards(order.choice)
    test, watched = (order.choice & enough & (back == number) for number in (1, 2))
    why = (order.choice & ~enough, f"users with fewer than {ONE_OUT} choices: training only")
    return (_task("leave-one-out", {}, order, order.since(test), test, watched, encode, filter_seen, why),)


def last_choices(
    data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True, last: int = LAST
) -> tuple[EvalTask, ...]:
    """Split as models.data.split_last does, prequentially.

    With the same holdout, `freshet train` learns from the same part.

    Validation is the three choices before the test, for users with six or more. The seed has no effect.
    """
    order = ordered(data)
    held = held_last(data, last).to_numpy()[order.at]
    test = held & order.choice
    chosen = order.choice & ~held
    enough = order.number(chosen) >= VALIDATION + 3
    watched = chosen & enough & (order.backwards(chosen) <= VALIDATION)
    why = few_choices(order, held, last)
    return (_task(f"last-{last}", {"last": last}, order, held, test, watched, encode, filter_seen, why),)


def few_choices(order: Ordered, held: Flags, last: int) -> tuple[Flags, str]:
    """Return, for `left_out`, the choices of users of whom nothing is `held`."""
    return order.choice & (order.number(held) == 0), f"users with fewer than {last + LEAST} choices: training only"


def time_split(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[EvalTask, ...]:
    """Learn from the first 80 % of all events, validate on the next 10 %, and test on the last 10 %, prequentially.

    A. Dawid, Present position and potential developments, JRSS A 147 (2), 1984. The seed has no effect. A user's first
    event is not evaluated, since no model knows anything then. Raises DataError if the data has no times, or if the
    parts do not follow one another in time.
    """
    if not data.timed:
        raise DataError(f"{data.name}: the file gives only an order within each user; time-split needs times")
    order = ordered(data)
    first, second = int(LEARN * len(order.at)), int(LEARN_AND_WATCH * len(order.at))
    time = data.events["time"].to_numpy()
    if first and time[first - 1] >= time[second]:
        raise DataError(
            f"{data.name}: field `time`: the parts do not follow one another. Found the same time, {time[second]} ms, at both "
            f"cuts ({len(np.unique(time))} different times in {len(time)} events); expected a test part later than the training "
            "part. Give each event its own time, or use --protocol leave-one-out"
        )
    held, known = order.at >= second, order.choice & (order.position() > 0)
    watched = known & (order.at >= first) & ~held
    settings = {"parts": [LEARN, LEARN_AND_WATCH]}
    absent = (
        order.choice & (order.number(held) == 0),
        "users without an event in the last 10 %: training or validation only",
    )
    new = held & order.choice & (order.position() == 0), "first events of users: nothing is known about them yet"
    use = order.at < first
    return (
        _task("time-split", settings, order, held, known & held, watched, encode, filter_seen, absent, new, use=use),
    )


def _task(
    name: str,
    settings: Mapping[str, object],
    order: Ordered,
    held: Flags,
    test: Flags,
    watched: Flags,
    encode: Encode,
    filter_seen: bool,
    *reasons: tuple[Flags, str],
    use: Flags | None = None,
) -> EvalTask:
    if not test.any():
        raise DataError(f"{order.data.name}: {name} finds no choice to judge: too few events per user")
    use = ~held & ~order.since(watched) if use is None else use
    training, rows = training_and_rows(order, held, use, watched, encode)
    return EvalTask(
        name, settings, training, rows, np.flatnonzero(test), filter_seen, left_out=left_out(order, *reasons)
    )
