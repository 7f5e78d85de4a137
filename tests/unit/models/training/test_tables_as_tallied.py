"""The tally counts what training counts: the same events give the sums of models.training.tables, to the unit."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from models.data.dataset import DataSet, Event, dataset
from models.data.histories import Histories, histories
from models.network.text import TEXT_DIM
from models.training.neighbours import DAY, NeighbourSettings
from models.training.regimes import STREAMED
from models.training.tables import CAP, LiveTables, TableSettings, item_amounts, pairs_of
from stream.core import tables
from stream.core.features import ACTIONS, InputSpec
from stream.core.messages import CLICK, NAN, RATING, Item, SourceEvent
from stream.core.tables import HISTORY
from stream.core.tally import ForwardDecay, PairShape
from stream.tally import epoch
from stream.tally.counting import Sums, TableShape, count

START = 1_500_000_000_000
ITEMS = [f"i{number:02d}" for number in range(15)]
NEAR = NeighbourSettings(reach=4, decay=0.7, back=0.5, shrink=2.0, keep=100, half_life=200)
PRIOR = 90


def made_up(seed: int) -> DataSet:
    chance = random.Random(seed)
    times = sorted(chance.sample(range(900 * 24), 500))
    events = [
        Event(f"u{chance.randrange(12):02d}", chance.choice(ITEMS), behaviour, START + DAY // 24 * time,
              value=3.0 if behaviour == RATING else NAN,
              action=chance.choice(("view", "purchase", "skip", "")) if behaviour == CLICK else "")
        for time in times for behaviour in [chance.choice((CLICK, CLICK, RATING))]
    ]  # fmt: skip
    return dataset("made up", events, [Item(name, "") for name in ITEMS], (0.5, 5.0))


def rows_of(data: DataSet) -> Histories:
    spec = InputSpec(data.rating_scale, data.scenes, TEXT_DIM)
    no_text = np.zeros((0, TEXT_DIM), np.float32)
    return histories(data.events, None, ITEMS, spec, lambda texts: no_text, timed=data.timed)


def tallied(data: DataSet, landmark: int) -> tuple[Sums, epoch.Epoch]:
    shape = TableShape(
        ForwardDecay(landmark, NEAR.half_life * DAY), ForwardDecay(landmark, PRIOR * DAY),
        PairShape(NEAR.reach, NEAR.decay, CAP), frozenset((0, 1, 2)), dict(ACTIONS),
    )  # fmt: skip
    events = [
        SourceEvent(
            row["behaviour"], 0, at, row["time"], row["user"].encode(), row["item"], row["time"], row["value"], "", "", "",
            b"", action=row["action"],
        )
        for at, row in enumerate(data.events.iter_rows(named=True))
    ]  # fmt: skip
    sums, users = Sums(), dict[bytes, bytes | None]()
    random.Random(1).shuffle(events)  # offsets keep the order within a user only by time: no two times are the same
    for at in range(0, len(events), 37):
        changed = count(sums, shape, events[at : at + 37], lambda some: [users.get(user) for user in some])
        users.update(changed.users)
    return sums, epoch.close(sums, epoch.TableSettings(shape, NEAR.back, NEAR.shrink, NEAR.keep, ""), {}, 1, 0)


@pytest.mark.parametrize(("seed", "history"), [(1, HISTORY), (2, HISTORY), (3, 12), (4, 5)])
def test_sums_are_those_of_training(seed: int, history: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """history: how many of a user's newest choices pair."""
    for module in ("stream.tally.counting", "models.training.tables"):
        monkeypatch.setattr(f"{module}.HISTORY", history)
    data = made_up(seed)
    rows = rows_of(data)
    assert rows.time is not None
    landmark = START + 500 * DAY
    sums, closed = tallied(data, landmark)
    near, prior = (ForwardDecay(landmark, days * DAY) for days in (NEAR.half_life, PRIOR))
    chosen = np.flatnonzero(rows.choice)
    counts: Counter[str] = Counter()
    popular: Counter[str] = Counter()
    for decay, total in ((near, counts), (prior, popular)):
        for item, amount in zip(rows.item[chosen].tolist(), item_amounts(rows, chosen, decay).tolist(), strict=True):
            total[ITEMS[item - 1]] += amount
    assert {item: one.amount for item, one in sums.items.items()} == counts
    assert {item: one.popular for item, one in sums.items.items()} == popular
    pairs = pairs_of(rows, PairShape(NEAR.reach, NEAR.decay, CAP), near, history)
    ahead: Counter[tuple[str, str]] = Counter()
    for first, second, amount in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.amount.tolist(), strict=True):
        ahead[ITEMS[first - 1], ITEMS[second - 1]] += amount
    assert {(first, second): total for first, row in sums.ahead.items() for second, total in row.items()} == {
        pair: total for pair, total in ahead.items() if total
    }
    if history < HISTORY:
        assert (pairs.amount < 0).any()
    # what a reader makes of the epoch is what evaluation reads
    live = LiveTables(TableSettings(STREAMED, NEAR, PRIOR), landmark, len(ITEMS) + 1)
    with_end = rows_of(
        dataset("end", [*_events(data), Event("last", ITEMS[0], CLICK, int(rows.time.max()) + 1, action="skip")],
                [Item(name, "") for name in ITEMS], (0.5, 5.0))
    )  # fmt: skip
    view = live.of(with_end)
    assert with_end.time is not None
    end = np.array([int(with_end.time.argmax())])
    found = tables.weights(closed.rows, closed.closed, lambda item: ITEMS.index(item) + 1, len(ITEMS) + 1)
    assert found.popularity == pytest.approx(view.log_popularity(end)[0], abs=1e-6)
    for row in range(1, len(ITEMS) + 1):
        expected = view.near(end, np.array([[0, row, 0]]))
        of_row = dict(zip(expected.index[0].tolist(), expected.weight[0].tolist(), strict=True))
        assert {
            one: weight for one, weight in zip(found.near[row].tolist(), found.weight[row].tolist(), strict=True) if one
        } == (pytest.approx({one: weight for one, weight in of_row.items() if weight}))


def _events(data: DataSet) -> list[Event]:
    return [
        Event(row["user"], row["item"], row["behaviour"], row["time"], value=row["value"], action=row["action"])
        for row in data.events.iter_rows(named=True)
    ]
