"""The protocol scene-transfer: does what users did in other scenes help where they are new?

A fifth of the users is taken out of training. Each time one of them enters a scene for the first time, after three or
more choices in others, the first three choices in it are ranked among the items of that scene: once with the whole
history, and once as if the user had been in that scene only. Both tasks have the same positions in the same order. An item
that the user has already interacted with in another scene is not evaluated: only one of the two tasks would leave it
out as seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from models.data import DataSet
from models.data.histories import Encode, Flags, Histories, Rows, histories
from models.evaluation.protocols.parts import (
    Ordered,
    left_out,
    ordered,
    remembering,
    share_of,
    training_and_rows,
    with_validation,
)
from models.interfaces import EvalTask, TrainingData
from stream.core.errors import DataError

SHARE: Final = 0.2
ELSEWHERE: Final = 3  # choices in other scenes before
UP_TO: Final = 3  # choices that are evaluated in the new scene
WHOLE: Final = "whole history"
ALONE: Final = "that scene alone"


@dataclass(frozen=True)
class Entries:
    """First visits to scenes.

    Attributes:
        positions: i64 [Q].
        scene: i64 [Q].
        visit: i64 [Q], number of the visit.
        events: i64 [V][n], the visit's events in the scene.
    """

    positions: Rows
    scene: Rows
    visit: Rows
    events: list[Rows]


def scene_transfer(data: DataSet, encode: Encode, *, seed: int = 0, filter_seen: bool = True) -> tuple[EvalTask, ...]:
    """Make the two tasks.

    Scenes are those of the events. If there are fewer than two, the rarest category of an item is its *simulated*
    scene. Choices of items that neither training events nor the catalogue place in the scene are not evaluated.
    """
    simulated = len(data.scenes) < 2
    named: list[tuple[str, ...]] = [item.categories or () for item in data.items]
    if simulated:
        data, named = simulated_scenes(data)
    order, encode = ordered(data), remembering(encode)
    users = np.arange(len(order.starts) - 1)
    away = np.zeros(len(users), np.bool_)
    away[share_of(users, SHARE, seed)] = True
    held = away[order.owner]
    use, watched = with_validation(order, ~held)
    training, rows = training_and_rows(order, held, use, watched, encode)
    inside = scene_items(training, named)
    found = entries(order, rows, away, inside)
    if not len(found.positions):
        raise DataError(f"{data.name}: no user enters a new scene after {ELSEWHERE} choices in others")
    alone, positions = as_if_alone(order, found, training, encode)
    about = {"share": SHARE, "seed": seed, "scenes": "simulated: rarest genre" if simulated else "of the events"}
    owners = order.owner[found.positions]
    stay = held & order.choice & ~np.isin(order.owner, owners)
    left = left_out(order, (stay, f"new users who enter no new scene after {ELSEWHERE} choices in others"))
    return tuple(
        EvalTask(
            "scene-transfer", {**about, "part": part}, training, of, at, filter_seen, inside, found.scene, owners, left
        )
        for part, of, at in ((WHOLE, rows, found.positions), (ALONE, alone, positions))
    )


def simulated_scenes(data: DataSet) -> tuple[DataSet, list[tuple[str, ...]]]:
    """Put each event in the scene of its item's rarest category in the catalogue.

    Return the events and each item's scene.

    Raises DataError if there are fewer than two categories.
    """
    often = Counter(name for item in data.items for name in item.categories or ())
    if len(often) < 2:
        raise DataError(
            f"{data.name}: found neither scenes nor categories; scene-transfer needs at least two of either"
        )
    named = [tuple(sorted(item.categories or (), key=lambda name: (often[name], name))[:1]) for item in data.items]
    scene = {item.item: names[0] for item, names in zip(data.items, named, strict=True) if names}
    names = [scene.get(item, "") for item in data.events["item"].to_list()]
    return replace(data, events=data.events.with_columns(scene=pl.Series(names, dtype=pl.String))), named


def scene_items(training: TrainingData, named: Sequence[Sequence[str]]) -> Flags:
    """Return bool [S + 1, N + 1]: items with training events in each scene, or put there by the catalogue.

    `named` holds the scenes of each of the N items in the catalogue. Names that are not scenes of the training part are
    ignored.
    """
    inside = np.zeros((len(training.spec.scenes) + 1, len(training.items) + 1), np.bool_)
    inside[training.rows.scene, training.rows.item] = True
    number = {name: at for at, name in enumerate(training.spec.scenes, start=1)}
    for row, names in enumerate(named, start=1):
        inside[[number.get(name, 0) for name in names], row] = True
    inside[0] = False
    inside[:, 0] = False
    return inside


def entries(order: Ordered, rows: Histories, away: Flags, inside: Flags) -> Entries:
    """Return all first visits of the users `away` to scenes, in order."""
    positions: list[int] = []
    scenes: list[int] = []
    visits: list[int] = []
    events: list[Rows] = []
    for user in np.flatnonzero(away).tolist():
        begin, end = int(rows.starts[user]), int(rows.starts[user + 1])
        scene, chosen = rows.scene[begin:end], rows.choice[begin:end]
        for one in np.unique(scene[scene > 0]).tolist():
            here = scene == one
            first = int(here.argmax())
            if chosen[:first].sum() < ELSEWHERE:
                continue
            new = ~np.isin(rows.item[begin:end], rows.item[begin:end][~here])
            wanted = begin + np.flatnonzero(here & chosen & new & inside[one, rows.item[begin:end]])[:UP_TO]
            if not len(wanted):
                continue
            positions += wanted.tolist()
            scenes += [one] * len(wanted)
            visits += [len(events)] * len(wanted)
            events.append(begin + np.flatnonzero(here[: int(wanted[-1]) + 1 - begin]))
    return Entries(np.array(positions, np.int64), np.array(scenes, np.int64), np.array(visits, np.int64), events)


def as_if_alone(order: Ordered, found: Entries, training: TrainingData, encode: Encode) -> tuple[Histories, Rows]:
    """Make every visit a separate user with only that scene's events.

    Return their rows, and the same positions in them.
    """
    taken = np.concatenate(found.events)
    counts = np.array([len(events) for events in found.events])
    names = [f"{visit:09d}" for visit in np.repeat(np.arange(len(counts)), counts).tolist()]
    table = order.data.events[order.at[taken]].with_columns(user=pl.Series(names))
    rows = histories(table, None, training.item_ids, training.spec, encode, timed=order.data.timed)
    positions = [
        int(rows.starts[visit]) + int(np.searchsorted(found.events[visit], position))
        for visit, position in zip(found.visit.tolist(), found.positions.tolist(), strict=True)
    ]
    return rows, np.array(positions, np.int64)
