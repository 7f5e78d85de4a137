"""Tables that follow the stream: the sums of the tally at every moment, nothing of the future, better when tastes drift."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.baselines.popularity import Popularity
from models.data.dataset import DataSet, Event, dataset
from models.data.histories import Floats, Histories, histories
from models.evaluation.compare import compare
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.protocols import make_tasks
from models.evaluation.registry import Wanted, make
from models.evaluation.summary import earlier_choices, figures
from models.interfaces import EvalTask, TrainingData
from models.metrics.metrics import earlier_groups
from models.network.blend import log_popularity, recent_choices
from models.network.text import TEXT_DIM
from models.training.neighbours import DAY, NeighbourSettings, neighbours
from models.training.regimes import every, named
from models.training.sequential.freshet import Freshet
from models.training.sequential.sequential_knn import SequentialKnn
from models.training.tables import (
    CAP,
    HALF_LIVES,
    TableSettings,
    half_lives,
    heaviest,
    item_amounts,
    live_tables,
    pairs_of,
)
from stream.core.errors import DataError
from stream.core.features import InputSpec
from stream.core.messages import CLICK, Item
from stream.core.tally import ForwardDecay, PairShape, Tally, tally_of

pytestmark = pytest.mark.usefixtures("one_thread")

START = 1_500_000_000_000
ITEMS = "abcdefghij"
SHAPE = PairShape(4, 0.7, CAP)
NEAR = NeighbourSettings(reach=4, decay=0.7, back=0.5, shrink=2.0, keep=100, half_life=200)


def no_text(texts: Sequence[str]) -> Floats:
    return np.zeros((len(texts), TEXT_DIM), np.float32)


def rows_of(data: DataSet) -> Histories:
    spec = InputSpec(data.rating_scale, data.scenes, TEXT_DIM)
    return histories(data.events, None, [item.item for item in data.items], spec, no_text, timed=data.timed)


def learned_from(rows: Histories, until: int) -> TrainingData:
    """Everything before `until` is learned from."""
    assert rows.time is not None
    items = tuple(Item(name, "") for name in ITEMS)
    text = np.zeros((len(items) + 1, TEXT_DIM), np.float32)
    return TrainingData(
        items, InputSpec((0.5, 5.0), (), TEXT_DIM), text, rows, rows.time < until, np.zeros(0, np.int64)
    )


def made_up(seed: int = 0, *, actions: bool = False) -> DataSet:
    """Twelve users over 900 days; days and items repeat."""
    chance = random.Random(seed)
    events = [
        Event(f"u{chance.randrange(12):02d}", chance.choice(ITEMS), CLICK, START + DAY * chance.randrange(900),
              action=chance.choice(["view", "purchase", ""]) if actions else "")
        for _ in range(160)
    ]  # fmt: skip
    return dataset("made up", events, [Item(name, "") for name in ITEMS], (0.5, 5.0))


def tally_before(rows: Histories, time: int, decay: ForwardDecay) -> Tally:
    """Count again, event by event, all choices with an earlier time."""
    assert rows.time is not None
    users = []
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        at = [place for place in range(begin, end) if rows.time[place] < time and rows.choice[place]]
        weight = [1.0 if rows.weight is None else float(rows.weight[place]) for place in at]
        users.append([(int(rows.item[place]), int(rows.time[place]), of) for place, of in zip(at, weight, strict=True)])
    return tally_of(users, SHAPE, decay)


@pytest.mark.parametrize("actions", [False, True])
def test_arrays_hold_the_sums_of_the_tally_to_the_unit(actions: bool) -> None:
    rows = rows_of(made_up(actions=actions))
    decay = ForwardDecay(START + 500 * DAY, 200 * DAY)
    pairs, chosen = pairs_of(rows, SHAPE, decay), np.flatnonzero(rows.choice)
    ours = Tally()
    for first, second, amount in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.amount.tolist(), strict=True):
        ours.ahead.setdefault(first, {})[second] = ours.ahead.get(first, {}).get(second, 0) + amount
    for item, amount in zip(rows.item[chosen].tolist(), item_amounts(rows, chosen, decay).tolist(), strict=True):
        ours.count[item] = ours.count.get(item, 0) + amount
    whole = tally_before(rows, START + 10_000 * DAY, decay)
    assert (ours.ahead, ours.count) == (whole.ahead, whole.count)


@pytest.mark.parametrize("actions", [False, True])
def test_every_event_sees_what_a_tally_of_all_earlier_ones_says(actions: bool) -> None:
    rows = rows_of(made_up(actions=actions))
    assert rows.time is not None
    training = learned_from(rows, START + 500 * DAY)
    live = live_tables(training, TableSettings("streamed", NEAR, 200))
    view, positions = live.of(rows), np.arange(len(rows.item))
    recent = recent_choices(rows, rows.begins(positions), positions, 3)
    near, popular = view.near(positions, recent), view.log_popularity(positions)
    decay = ForwardDecay(live.landmark, 200 * DAY)
    found: dict[int, Tally] = {}
    for time in rows.time.tolist():
        found.setdefault(time, tally_before(rows, time, decay))
    for line, (number, row, _) in enumerate(recent.tolist()):
        time = int(rows.time[positions[number]])
        now = int(rows.time[rows.time < time].max(initial=rows.time.min()))
        expected = found[time].near(row, NEAR.back, NEAR.shrink, decay.weight(now))
        ours = {int(other): float(of) for other, of in zip(near.index[line], near.weight[line], strict=True) if of}
        assert ours == pytest.approx(expected, rel=1e-6)
        counts = np.array([found[time].count.get(item, 0) / decay.weight(now) for item in range(len(ITEMS) + 1)])
        np.testing.assert_allclose(popular[number], log_popularity(counts), atol=1e-6)


def test_frozen_tables_with_a_half_life_are_the_streamed_ones_at_the_end_of_training() -> None:
    draw = random.Random(3)
    events = [  # nobody repeats an item, so that the cap plays no part
        Event(f"u{user:02d}", item, CLICK, START + DAY * (10 * user + at))
        for user in range(40)
        for at, item in enumerate(draw.sample(ITEMS, 6))
    ]
    rows = rows_of(dataset("once each", events, [Item(name, "") for name in ITEMS], (0.5, 5.0)))
    assert rows.time is not None
    last = int(rows.time.max())
    training = learned_from(rows, last)  # all but the last event
    index, weight = neighbours(training, NEAR)
    view = live_tables(training, TableSettings("streamed", NEAR)).of(rows)
    at = np.array([int(rows.time.argmax())])
    items = np.arange(1, len(ITEMS) + 1)
    near = view.near(at, np.stack((np.zeros_like(items), items, np.zeros_like(items)), 1))
    for line, row in enumerate(items.tolist()):
        ours = dict(zip(near.index[line].tolist(), near.weight[line].tolist(), strict=True))
        for other, of in zip(index[row].tolist(), weight[row].tolist(), strict=True):
            assert ours.get(other, 0.0) == pytest.approx(of, rel=2e-3, abs=1e-6)


def test_only_ratios_count_so_the_landmark_does_not() -> None:
    rows = rows_of(made_up())
    positions = np.arange(len(rows.item))
    recent = recent_choices(rows, rows.begins(positions), positions, 3)
    found = [
        replace(live_tables(learned_from(rows, START + 500 * DAY), TableSettings("streamed", NEAR)), landmark=landmark)
        .of(rows).near(positions, recent).weight
        for landmark in (START + 100 * DAY, START + 800 * DAY)
    ]  # fmt: skip
    np.testing.assert_allclose(np.sort(found[0]), np.sort(found[1]), rtol=5e-3, atol=1e-5)


def test_tables_by_epochs_hold_whole_epochs_of_earlier_events() -> None:
    events = [Event("u", item, CLICK, START + 1000 * at) for at, item in enumerate([*ITEMS, *"ab"])]
    tied = [Event("v", "c", CLICK, START + 11_000), Event("w", "c", CLICK, START + 11_000)]
    rows = rows_of(dataset("in a row", [*events, *tied], [Item(name, "") for name in ITEMS], (0.5, 5.0)))
    training = learned_from(rows, START + 5000)
    by_five = live_tables(training, TableSettings("epochs:5")).of(rows)
    assert by_five.seen(np.arange(12)).tolist() == [0] * 5 + [5] * 5 + [10] * 2
    streamed = live_tables(training, TableSettings("streamed")).of(rows)
    assert streamed.seen(np.arange(14)).tolist() == [*range(12), 11, 11]  # nobody sees an event of the same time
    assert by_five.popular(np.array([7]))[0].tolist() == [0, *[1] * 5, *[0] * 5]


def test_the_heaviest_are_kept_and_of_equal_ones_the_first() -> None:
    weight = np.array([1, 3, 2, 3, 2, 2, 0], np.float32)
    assert sorted(heaviest(weight, 3).tolist()) == [1, 2, 3]
    assert sorted(heaviest(weight, 5).tolist()) == [1, 2, 3, 4, 5]


def drifting(seed: int = 0) -> DataSet:
    """Each of 240 users, one every five days, opens six things and what goes with each, which changes after eight tenths."""
    chance = random.Random(seed)
    names = [f"{kind}{number:02d}" for kind in "abc" for number in range(20)]
    events = []
    for user in range(240):
        late = user >= 192
        for at, number in enumerate(chance.sample(range(20), 6)):
            time = START + user * 5 * DAY + 120_000 * at
            events.append(Event(f"u{user:03d}", f"a{number:02d}", CLICK, time))
            events.append(Event(f"u{user:03d}", f"{'c' if late else 'b'}{number:02d}", CLICK, time + 60_000))
    return dataset("drifting", events, [Item(name, "") for name in names], (0.5, 5.0))


@pytest.fixture(scope="module")
def task() -> EvalTask:
    (task,) = make_tasks("time-split", drifting(), no_text)
    return task


def test_streamed_tables_beat_frozen_ones_when_tastes_drift(task: EvalTask) -> None:
    wanted = Wanted(["popularity", "sequential-knn"], tables=("frozen", "streamed", "epochs:100"))
    (found,) = compare([task], make(wanted))
    models = figures(found)["models"]
    assert list(models) == [named(name, tables) for name in wanted.names for tables in wanted.tables]
    for name in wanted.names:
        low, high = models[f"{name} streamed"]["intervals"][f"NDCG@10 - {name}"]
        assert 0 < low <= high
        assert models[f"{name} streamed"]["test"]["NDCG@10"] >= models[f"{name} epochs:100"]["test"]["NDCG@10"]
        assert f"NDCG@10 - {name} epochs:100" in models[f"{name} streamed"]["intervals"]
    assert models["sequential-knn streamed"]["test"]["NDCG@10"] > 0.4


def test_later_events_change_no_score_and_no_setting(task: EvalTask) -> None:
    rows = task.rows
    assert rows.time is not None
    middle = int(np.median(rows.time[task.positions]))
    later = np.flatnonzero(rows.time >= middle)
    other = rows.item.copy()
    other[later] = np.random.default_rng(0).permutation(other[later])
    moved = rows.time.copy()
    moved[later] += 500 * DAY
    altered = replace(rows, item=other, time=moved)
    positions = task.positions[rows.time[task.positions] < middle]
    assert len(positions) > 50
    blend = Freshet(fit={"epochs": 1}, tables="streamed").fit(task.training, 0)
    for ranker in (blend, *(model("streamed").fit(task.training, 0) for model in (SequentialKnn, Popularity))):
        before, after = ranker.scorer(rows)(positions), ranker.scorer(altered)(positions)
        np.testing.assert_array_equal(before.numpy(), after.numpy())
        last = task.positions[-20:]
        assert (ranker.scorer(rows)(last) != ranker.scorer(altered)(last)).any()


def test_streamed_tables_find_new_items_once_somebody_has_chosen_them(task: EvalTask) -> None:
    (found,) = compare([task], make(Wanted(["sequential-knn"], tables=("frozen", "streamed"))))
    models = figures(found)["models"]
    new = {name: {of["group"]: of for of in models[name]["groups"]["new"]} for name in models}
    unseen = [of for of in models["sequential-knn"]["groups"]["items"] if of["group"] == "unseen"]
    assert sum(of["judged"] for of in new["sequential-knn"].values()) == unseen[0]["judged"] > 0
    assert all(of["HR@10"] == 0 for of in new["sequential-knn"].values())
    assert new["sequential-knn streamed"]["6-10"]["HR@10"] > 0.5


def test_earlier_choices_are_counted_event_by_event(task: EvalTask) -> None:
    rows, found = task.rows, earlier_choices(task)
    assert rows.time is not None
    for number, position in enumerate(task.positions.tolist()):
        earlier = (rows.item == rows.item[position]) & (rows.time < rows.time[position]) & rows.choice
        assert found[number] == earlier.sum()
    assert earlier_groups(np.array([0, 1, 2, 3, 5, 6, 10, 11, 20, 21, 999])).tolist() == [
        0,
        1,
        2,
        3,
        3,
        4,
        4,
        5,
        5,
        6,
        6,
    ]


def test_the_whole_sum_follows_the_stream_on_one_fit_of_the_network(task: EvalTask, tmp_path: Path) -> None:
    said: list[str] = []
    models = [Freshet(fit={"epochs": 2}), Freshet(fit={"epochs": 2}, tables="streamed")]
    (found,) = compare([task], models, cache=tmp_path, report=lambda stage, *rest: said.append(stage))
    frozen, streamed = found.outcomes
    assert (streamed.fits[0].test.rank < 10).mean() > (frozen.fits[0].test.rank < 10).mean()
    assert any(stage.startswith("freshet, seed 0: epoch") for stage in said)
    assert not any(stage.startswith("freshet streamed, seed 0: epoch") for stage in said)
    said.clear()
    compare([task], models, cache=tmp_path, report=lambda stage, *rest: said.append(stage))
    assert not said  # both are kept, each under its own key


@pytest.mark.parametrize("tables", ["", "live", "epochs", "epochs:0", "epochs:-1", "epochs:x", "epochs:99999999999"])
def test_tables_that_do_not_exist_are_refused(tables: str) -> None:
    with pytest.raises(DataError, match="expected frozen, undecayed, streamed, or epochs:N"):
        every(tables)


def test_tables_follow_the_stream_only_where_there_is_one() -> None:
    data = drifting()
    with pytest.raises(DataError, match="protocol last-8, expected time-split"):
        evaluate(data, Question("last-8", ("popularity",), tables=("streamed",)), None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="only an order within each user; expected times"):
        evaluate(replace(data, timed=False), Question("time-split", tables=("epochs:5",)), None)  # type: ignore[arg-type]
    rows = replace(rows_of(data), time=None)
    with pytest.raises(DataError, match="need times"):
        SequentialKnn("streamed").fit(replace(learned_from(rows_of(data), START), rows=rows), 0)


def test_without_times_no_half_life_is_tried(task: EvalTask) -> None:
    untimed = replace(task.training, rows=replace(task.training.rows, time=None))
    assert SequentialKnn().fit(untimed, 0).tried == SequentialKnn("undecayed").fit(task.training, 0).tried
    timed = SequentialKnn().fit(task.training, 0)
    assert len(timed.tried) > 8
    with pytest.raises(DataError, match="a half-life needs times"):
        neighbours(untimed, NEAR)


def test_training_keeps_a_half_life_only_if_validation_prefers_it(task: EvalTask) -> None:
    drifted = Freshet(fit={"epochs": 1}).fit(task.training, 0)
    # What goes with what changed right after the training part: no half-life of its choices helps, so none is taken.
    assert drifted.half_life == 0
    assert "half_life" not in drifted.chosen
    rows = task.training.rows
    assert rows.time is not None
    later = np.sort(rows.time)[len(rows.time) * 19 // 20]
    known = replace(
        task.training, use=rows.time < later, watched=np.flatnonzero((rows.time >= later) & rows.choice & ~rows.first())
    )
    found = Freshet(fit={"epochs": 1}).fit(known, 0)
    assert found.half_life in HALF_LIVES
    assert found.chosen["half_life"] == found.half_life
    index, weight = neighbours(known, NeighbourSettings(half_life=found.half_life))
    plain = neighbours(known)
    assert (index != plain[0]).any() or (weight != plain[1]).any()


def test_half_lives_are_tried_only_if_sums_stay_exact() -> None:
    rows = rows_of(made_up())
    assert half_lives(learned_from(rows, START + 500 * DAY)) == HALF_LIVES
    early = learned_from(rows, START + 100 * DAY)  # 800 days follow
    assert half_lives(early) == (3650, 1095, 365)
    found = SequentialKnn("streamed").fit(replace(early, watched=np.flatnonzero(~early.use & rows.choice)), 0)
    assert {of.get("half_life", 0) for of, _ in found.tried} == {0, 3650, 1095, 365}


def test_a_half_life_that_is_too_short_for_the_data_is_said() -> None:
    rows = rows_of(made_up())
    training = learned_from(rows, START + 10 * DAY)
    short = live_tables(training, TableSettings("streamed", replace(NEAR, half_life=1)))
    with pytest.raises(DataError, match="half-life of 1 days"):
        short.of(rows).near(np.array([5]), np.array([[0, 1, 0]]))
