"""Protocols: who is judged where, and that the test part is not in what models are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.data import DataSet, generate, read
from models.data.dataset import Event, dataset, in_order
from models.data.histories import Floats, Histories
from models.evaluation.protocols import PROTOCOLS, make_tasks
from models.evaluation.protocols.transfer import simulated_scenes
from models.interfaces import EvalTask, TrainingData
from models.network.text import TEXT_DIM
from models.training.train import TrainSettings, training_part
from stream.core.errors import DataError
from stream.core.messages import CLICK, COMMENT, RATING, Item
from tests.conftest import data_folder


def encode(texts: Sequence[str], progress: Any = None) -> Floats:
    """A vector of its own for every text, zeros for none."""
    out = np.zeros((len(texts), TEXT_DIM), np.float32)
    for row, text in zip(out, texts, strict=True):
        if text:
            row[:8] = np.frombuffer(blake2b(text.encode(), digest_size=8).digest(), np.uint8)
    return out


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=100, items=120, events=24)


def ids(training: TrainingData, rows: Histories, positions: Any) -> list[tuple[str, str]]:
    """User and item of some places."""
    owner = rows.owner()
    return [(rows.users[owner[at]], training.items[rows.item[at] - 1].item) for at in np.asarray(positions).tolist()]


def clicks(user: str, items: str, start: int = 0) -> list[Event]:
    return [Event(user, item, CLICK, 10 * (start + at)) for at, item in enumerate(items)]


def test_leave_one_out_by_hand() -> None:
    remark = Event("u", "a", COMMENT, 25, text="a remark")  # no value: not a choice
    late = Event("u", "b", COMMENT, 99, text="too late")
    data = dataset("x", [*clicks("u", "abcd"), remark, late, *clicks("v", "ab")], [], (0.5, 5.0))
    (task,) = make_tasks("leave-one-out", data, encode)
    training = task.training
    everything = range(len(training.rows.item))
    assert ids(training, training.rows, everything) == [(u, i) for u, i in zip("uuuuvv", "abcaab", strict=True)]
    assert training.use.tolist() == [True, True, False, False, True, True]
    assert ids(training, training.rows, training.watched) == [("u", "c")]
    assert len(training.rows.vectors) == 2  # none and "a remark": "too late" is not there
    assert ids(training, task.rows, task.positions) == [("u", "d")]
    assert ids(training, task.rows, range(6)) == [(u, i) for u, i in zip("uuuuuu", "abcadb", strict=True)]
    assert (task.candidates, task.filter_seen, task.settings) == (None, True, {})


def test_time_split_by_hand() -> None:
    """Twenty events, one user after the other: 16 to learn from, 2 for validation, 2 for the test."""
    rows = [*clicks("u", "abcdefgh"), *clicks("v", "abcdefgh", 100)]  # 16
    rows += [Event("u", "i", CLICK, 5000), Event("w", "a", CLICK, 5001)]
    rows += [Event("x", "b", CLICK, 6000), Event("w", "c", CLICK, 6001)]
    data = dataset("x", rows, [], (0.5, 5.0))
    (task,) = make_tasks("time-split", data, encode)
    assert task.training.use.sum() == 16
    # w in the validation part and x in the test part are new: nothing is known of them at their first event.
    assert ids(task.training, task.training.rows, task.training.watched) == [("u", "i")]
    assert ids(task.training, task.rows, task.positions) == [("w", "c")]
    with pytest.raises(DataError, match="needs times"):
        make_tasks("time-split", replace(data, timed=False), encode)


def test_the_last_eight_are_those_that_training_holds_back(world: DataSet) -> None:
    class Encoder:
        encode = staticmethod(encode)

    part, _ = training_part(world, TrainSettings(), Encoder())  # type: ignore[arg-type]
    (task,) = make_tasks("last-8", world, encode)
    assert same(task.training, part)
    judged = np.bincount(task.rows.owner()[task.positions])
    assert set(judged.tolist()) <= {0, 8}
    assert set(task.rows.behaviour[task.positions].tolist()) == {CLICK, RATING, COMMENT}


def test_cold_items_are_nowhere_in_training(world: DataSet) -> None:
    among_cold, among_all = make_tasks("cold-items", world, encode)
    assert among_cold.training is among_all.training
    assert among_all.candidates is None
    cold = among_cold.candidates
    assert cold is not None
    assert cold.sum() == 12
    assert not cold[among_cold.training.rows.item].any()
    assert among_cold.training.text[cold].any(1).all()  # their texts are known
    assert cold[among_cold.rows.item[among_cold.positions]].all()
    assert (
        len(among_cold.positions)
        == (cold[among_cold.rows.item] & among_cold.rows.choice & ~among_cold.rows.first()).sum()
    )
    assert len(among_cold.rows.item) == len(world.events)
    other = make_tasks("cold-items", world, encode, seed=1)[0].candidates
    assert other is not None
    assert not (other == cold).all()


def test_cold_users_are_judged_after_so_many_events() -> None:
    world = generate(users=300, items=120, events=10)
    tasks = make_tasks("cold-users", world, encode)
    users = {tuple(task.rows.owner()[task.positions].tolist()) for task in tasks}
    assert len(users) == 1  # the same at every count
    assert not {tasks[0].rows.users[user] for user in next(iter(users))} & set(tasks[0].training.rows.users)
    assert len(tasks[0].training.rows.users) == 270
    for count, task in zip((1, 2, 3, 5), tasks, strict=True):
        assert task.training is tasks[0].training
        assert set((task.positions - task.rows.starts[task.rows.owner()[task.positions]]).tolist()) == {count}
        assert task.rows.choice[task.positions].all()


def scenes_world() -> DataSet:
    """Ten users; all are three times in A, then in B, where d is an item that they had in A already."""
    rows = []
    for number in range(10):
        user = f"u{number}"
        rows += [Event(user, item, CLICK, at, scene="A") for at, item in enumerate("abd")]
        rows += [Event(user, item, CLICK, 10 + at, scene="B") for at, item in enumerate("dxyzw")]
        rows += [Event(user, "c", CLICK, 12, scene="A")]
    return dataset("scenes", rows, [], (0.5, 5.0))


def test_scene_transfer_by_hand() -> None:
    data = scenes_world()
    whole, alone = make_tasks("scene-transfer", data, encode)
    assert whole.training is alone.training
    away = set(data.events["user"].unique().to_list()) - set(whole.training.rows.users)
    assert len(away) == 2
    expected = [(user, item) for user in sorted(away) for item in "xyz"]  # d was had before; three at most
    assert ids(whole.training, whole.rows, whole.positions) == expected
    assert [item for _, item in ids(alone.training, alone.rows, alone.positions)] == [item for _, item in expected]
    before = alone.positions - alone.rows.starts[alone.rows.owner()[alone.positions]]
    assert before.tolist() == [1, 2, 3] * 2  # d, x, y and nothing from A
    assert set(alone.rows.scene.tolist()) == {2}
    assert whole.groups is not None
    assert whole.candidates is not None
    assert whole.owners is not None
    allowed = whole.candidates[whole.groups[0]]
    assert [item.item for row, item in enumerate(whole.training.items, 1) if allowed[row]] == list("dwxyz")
    assert (whole.owners == whole.rows.owner()[whole.positions]).all()
    assert alone.owners is whole.owners


def test_without_scenes_the_rarest_category_is_a_simulated_one() -> None:
    kinds = {"a": ("Drama", "Noir"), "b": ("Drama",), "c": ("Noir", "Drama"), "d": ("Drama",), "e": ()}
    items = [Item(name, name, categories=categories) for name, categories in kinds.items()]
    data = dataset("films", clicks("u", "abcde"), items, (0.5, 5.0))
    made, named = simulated_scenes(data)
    assert made.events["scene"].to_list() == ["Noir", "Drama", "Noir", "Drama", ""]
    assert named == [("Noir",), ("Drama",), ("Noir",), ("Drama",), ()]
    with pytest.raises(DataError, match="neither scenes nor categories"):
        simulated_scenes(dataset("plain", clicks("u", "abc"), [], (0.5, 5.0)))


def test_simulated_scenes_are_called_so(world: DataSet) -> None:
    plain = replace(world, events=world.events.with_columns(scene=pl.lit("")))
    whole, _ = make_tasks("scene-transfer", plain, encode)
    assert whole.settings["scenes"] == "simulated: rarest genre"
    assert len(whole.training.spec.scenes) == 8
    assert make_tasks("scene-transfer", scenes_world(), encode)[0].settings["scenes"] == "of the events"


def same(one: TrainingData, two: TrainingData) -> bool:
    """Equal to the bit."""

    def arrays(of: TrainingData) -> list[Any]:
        rows = of.rows
        return [
            rows.starts, rows.item, rows.behaviour, rows.scene, rows.numbers, rows.comment, rows.vectors, rows.choice,
            of.text, of.use, of.watched,
        ]  # fmt: skip

    pairs = list(zip(arrays(one), arrays(two), strict=True))
    return (
        (one.items, one.spec, one.rows.users) == (two.items, two.spec, two.rows.users)
        and all(left.dtype == right.dtype and np.array_equal(left, right) for left, right in pairs)
        and not one.rows.judged.any()
    )


def spoilt(data: DataSet, held: pl.Series, name: str) -> DataSet:
    """The same data with other items, values, texts and scenes in the events `held`, in the same kind and number."""
    draw = np.random.default_rng(0)
    pool = data.events.filter(held)["item"].unique().sort() if name == "cold-items" else pl.Series(
        [item.item for item in data.items]
    )  # fmt: skip
    rows = data.events.filter(held).with_columns(
        item=pl.Series(draw.choice(pool.to_list(), int(held.sum()))),
        value=pl.when(pl.col("value").is_not_nan()).then(0.5).otherwise(pl.col("value")),
        text=pl.when(pl.col("text") != "").then(pl.lit("spoilt")).otherwise(pl.col("text")),
        scene=pl.Series(draw.choice(["home", "search"], int(held.sum()))),
    )
    return replace(data, events=in_order(pl.concat([data.events.filter(~held), rows])))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_test_part_decides_nothing_of_training(world: DataSet, name: str) -> None:
    task = make_tasks(name, world, encode)[0]
    rows = task.training.rows
    learned = set(ids(task.training, rows, range(len(rows.item))))  # nobody takes an item twice in this world
    pairs = list(zip(world.events["user"].to_list(), world.events["item"].to_list(), strict=True))
    held = pl.Series([pair not in learned for pair in pairs])
    assert len(learned) + held.sum() == len(world.events)
    assert held.sum() > 0
    other = make_tasks(name, spoilt(world, held, name), encode)[0]
    assert same(task.training, other.training)
    assert not np.array_equal(task.rows.item, other.rows.item)
    assert not same(task.training, make_tasks(name, spoilt(world, ~held, name), encode)[0].training)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_task_is_whole(world: DataSet, name: str) -> None:
    tasks = make_tasks(name, world, encode, filter_seen=False)
    for task in tasks:
        rows, positions = task.rows, task.positions
        assert not task.filter_seen
        assert task.name == name
        assert task.training is tasks[0].training
        assert len(positions) > 0
        assert positions.dtype == np.int64
        assert rows.choice[positions].all()
        assert not rows.first()[positions].any() or task.settings.get("part") == "that scene alone"
        assert (np.diff(positions) > 0).all() or name == "scene-transfer"
        training = task.training
        assert training.rows.choice[training.watched].all()
        assert not training.use[training.watched].any()
        assert training.text.shape == (len(world.items) + 1, TEXT_DIM)
        if task.candidates is not None:
            lines = task.candidates if task.groups is None else task.candidates[task.groups]
            assert (
                np.take_along_axis(np.atleast_2d(lines), rows.item[positions][:, None], 1).all() or task.groups is None
            )
            assert not lines[..., 0].any()
    again = make_tasks(name, world, encode, filter_seen=False)
    assert same(tasks[0].training, again[0].training)
    assert [task.settings for task in tasks] == [task.settings for task in again]
    assert all(np.array_equal(one.positions, two.positions) for one, two in zip(tasks, again, strict=True))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_use_is_a_first_part_of_every_history(world: DataSet, name: str) -> None:
    """Fitting cuts histories into pieces from their begin: what is for validation must lie behind."""
    training = make_tasks(name, world, encode)[0].training
    for begin, end in zip(training.rows.starts[:-1], training.rows.starts[1:], strict=True):
        used = training.use[begin:end]
        assert used[: used.sum()].all()


def test_too_little_data_says_so() -> None:
    tiny = dataset("tiny", clicks("u", "a"), [Item("a", ""), Item("b", "")], (0.5, 5.0))
    for name in PROTOCOLS:
        with pytest.raises(DataError, match="tiny"):
            make_tasks(name, tiny, encode)
    for few in (dataset("none", [], [], (0.5, 5.0)), dataset("one", clicks("u", "a"), [], (0.5, 5.0))):
        with pytest.raises(DataError, match=few.name):
            make_tasks("leave-one-out", few, encode)
    with pytest.raises(DataError, match=r"protocol best: expected one of last-8, .*rating"):
        make_tasks("best", tiny, encode)


def test_items_that_the_catalogue_lacks_are_not_judged() -> None:
    items = [Item(name, "") for name in "abcd"]
    data = dataset("x", clicks("u", "abcd?"), items, (0.5, 5.0))
    (task,) = make_tasks("leave-one-out", data, encode)
    assert ids(task.training, task.rows, task.positions) == [("u", "d")]


def counts(tasks: tuple[EvalTask, ...]) -> list[int]:
    return [len(task.positions) for task in tasks]


def test_amazon_beauty_2014() -> None:
    (task,) = make_tasks("leave-one-out", read(data_folder("amazon-beauty-2014")), encode)
    assert (len(task.positions), len(task.training.watched)) == (22_363, 22_363)
    assert len(task.training.rows.item) == 198_502 - 22_363
    assert task.training.use.sum() == 198_502 - 2 * 22_363


@pytest.mark.parametrize(
    ("name", "expected"),
    [("leave-one-out", [610]), ("last-8", [4_880])],
)
def test_ml_latest_small(name: str, expected: list[int], movies: Callable[[], DataSet]) -> None:
    assert counts(make_tasks(name, movies(), encode)) == expected


@pytest.fixture(scope="module")
def movies() -> Callable[[], DataSet]:
    kept: list[DataSet] = []

    def once() -> DataSet:
        if not kept:
            kept.append(read(data_folder("ml-latest-small")))
        return kept[0]

    return once
