"""Trainings and evaluations that say nothing are refused, or named beside the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.data import DataSet, generate
from models.data.dataset import Event, dataset, in_order
from models.data.histories import Floats
from models.evaluation.evaluate import Question, evaluate
from models.evaluation.protocols import make_tasks
from models.evaluation.protocols.cold import SHARE
from models.evaluation.protocols.parts import share_of
from models.evaluation.sequential_baselines import sasrec
from models.interfaces import TrainingData
from models.metrics.ranks import MISSED
from models.network.text import TEXT_DIM
from models.training.degenerate import notes, rankable
from models.training.sequential.freshet import Freshet
from models.training.train import TrainSettings, train
from stream.core.errors import DataError
from stream.core.messages import CLICK, RATING, Item


class Encoder:
    """Stands for models.network.text.TextEncoder where texts do not matter."""

    def encode(self, texts: Sequence[str], progress: Any = None) -> Floats:
        return np.zeros((len(texts), TEXT_DIM), np.float32)


ENCODER: Any = Encoder()
QUICK = TrainSettings(epochs=1, preset="dense")


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=80, items=90, events=24)


def at_once(data: DataSet) -> DataSet:
    """The same events, all at one time."""
    return replace(data, events=in_order(data.events.with_columns(time=pl.lit(1_700_000_000_000, pl.Int64))))


def clicks(*sequences: str) -> DataSet:
    rows = [
        Event(f"u{user:03d}", item, CLICK, 1000 * at)
        for user, items in enumerate(sequences)
        for at, item in enumerate(items)
    ]
    return dataset("letters", rows, [], (0.5, 5.0))


def test_a_cut_in_time_needs_times(world: DataSet) -> None:
    with pytest.raises(
        DataError, match=r"generated: field `time`: .*Found the same time, 1700000000000 ms.*expected.*leave-one-out"
    ):
        make_tasks("time-split", at_once(world), ENCODER.encode)


def test_a_cut_in_time_within_one_moment_is_none(world: DataSet) -> None:
    """The last quarter was loaded in one go."""
    events = world.events.with_row_index("place")
    late = pl.when(pl.col("place") < 0.75 * len(events)).then(pl.col("time")).otherwise(world.events["time"].max())
    data = replace(world, events=in_order(events.with_columns(time=late).drop("place")))
    with pytest.raises(DataError, match="do not follow one another"):
        make_tasks("time-split", data, ENCODER.encode)
    make_tasks("time-split", world, ENCODER.encode)


def test_training_without_an_order_is_refused(world: DataSet) -> None:
    with pytest.raises(
        DataError, match=r"generated: field `time`: .*their order is unknown\. Found 1 times in \d+ events"
    ):
        train(at_once(world), QUICK, ENCODER)


@pytest.mark.parametrize("holdout", [0, 8])
def test_training_on_users_of_one_event_is_refused(holdout: int) -> None:
    """It ran through all epochs, and its run could be exported."""
    data = clicks(*(chr(97 + number % 26) for number in range(60)))
    with pytest.raises(DataError, match=r"freshet: nothing to learn from: .*Found 60 events of 60 users.*expected"):
        train(data, replace(QUICK, holdout=holdout), ENCODER)


@pytest.mark.parametrize("model", [Freshet("dense"), sasrec("dense")])
def test_no_network_is_fitted_to_nothing(model: Any) -> None:
    task = make_tasks("leave-one-out", clicks("abc", *"abcdefgh"), ENCODER.encode)[0]
    with pytest.raises(DataError, match=f"{model.name}: nothing to learn from"):
        model.fit(task.training, 0)


def test_a_training_that_hits_nothing_ends_with_an_error(
    world: DataSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import models.training.train

    def missed(*_: Any, **__: Any) -> Any:
        return np.full(world.events["user"].n_unique(), MISSED)

    monkeypatch.setattr(models.training.train, "ranks", missed)
    with pytest.raises(
        DataError, match=r"generated: training ended with NDCG@10 0 on the \d+ validation choices\. Found 1 epochs"
    ):
        train(world, QUICK, ENCODER, checkpoints=tmp_path)
    assert not list(tmp_path.iterdir()), "the next training would end at once in the same way"


def test_training_without_a_validation_part_says_so() -> None:
    data = clicks(*("abcde" if number % 2 else "fghij" for number in range(40)))
    steps: list[tuple[str, int, int, str]] = []
    trained = train(data, QUICK, ENCODER, lambda *step: steps.append(step))
    assert trained.run.metrics == {}
    note = next(at for at, step in enumerate(steps) if step[0] == "note")
    assert "validation part is empty" in steps[note][3]
    assert note < next(at for at, step in enumerate(steps) if step[0].startswith("epoch")), "the note comes first"
    assert not any("@10" in step[3] for step in steps), "figures of nothing are left out"
    assert "validation part is empty" in trained.notes[0]
    assert train(generate(users=30, items=60, events=30), QUICK, ENCODER).notes == ()


def test_an_evaluation_without_a_validation_part_says_so() -> None:
    (task,) = make_tasks("last-8", clicks(*("abcdefghijklm" for _ in range(5))), ENCODER.encode)
    assert not len(task.training.watched)
    assert any("validation part is empty" in note for note in notes(task))


def test_ten_items_or_fewer_are_no_test() -> None:
    """HR@10 was 1 for any model."""
    few = clicks(*("abcdefghi" for _ in range(5)))
    with pytest.raises(DataError, match=r"leave-one-out: at most 1 of 9 items are left to rank.*Expected more than 10"):
        evaluate(few, Question("leave-one-out", ("popularity",)), ENCODER)


def test_places_with_ten_items_or_fewer_are_counted(world: DataSet) -> None:
    for task in make_tasks("scene-transfer", world, ENCODER.encode):
        left = rankable(task)
        owner = task.rows.owner()
        for position, found, group in zip(
            task.positions.tolist(), left.tolist(), np.asarray(task.groups).tolist(), strict=True
        ):
            seen = set(task.rows.item[task.rows.starts[owner[position]] : position].tolist())
            assert found == len(set(np.flatnonzero(np.asarray(task.candidates)[group]).tolist()) - seen - {0})
    (task,) = make_tasks("leave-one-out", clicks("abcdefghijklmnopqrstuvwxyz"[:13], "abc", "xyz"), ENCODER.encode)
    assert notes(task) == ["at 1 of 3 choices, at most 10 items were left to rank: a hit there shows nothing"]


@pytest.mark.parametrize(
    ("protocol", "sequences", "why"),
    [
        ("leave-one-out", ("ab", "cd", "e"), "finds no choice to judge"),
        ("last-8", ("abcdefghijk",), "finds no choice to judge"),
        ("cold-users", ("abc", "abc", "abc"), "no new user with a choice after"),
        ("scene-transfer", ("abc", "abc"), "neither scenes nor categories"),
        ("leave-one-out", ("aaaa", "aaa"), "1 items"),
    ],
)
def test_too_few_events_or_items_are_refused(protocol: str, sequences: tuple[str, ...], why: str) -> None:
    with pytest.raises(DataError, match=f"letters.*{why}"):
        make_tasks(protocol, clicks(*sequences), ENCODER.encode)


def test_cold_items_that_nobody_takes_are_refused() -> None:
    data = clicks("abc", "bca")
    more = replace(data, items=(*data.items, *(Item(f"new{number}", "") for number in range(400))))
    rows = np.arange(1, len(more.items) + 1)
    spared = next(seed for seed in range(99) if share_of(rows, SHARE, seed).min() > len(data.items))
    with pytest.raises(DataError, match="letters: no choice of a cold item"):
        make_tasks("cold-items", more, ENCODER.encode, seed=spared)


def ratings(value: float | None, *, timed: bool = True) -> DataSet:
    draw = np.random.default_rng(0)
    rows = [
        Event(f"u{user}", f"i{item}", RATING, 1000 * (12 * user + item) * timed, value or float(draw.integers(1, 6)))
        for user in range(20)
        for item in range(12)
    ]
    return dataset("rated", rows, [], (1.0, 5.0))


def test_ratings_that_are_all_equal_are_refused() -> None:
    with pytest.raises(DataError, match="rated: field `value`: all 240 ratings are 4"):
        evaluate(ratings(4.0), Question("rating", ("mean",)), ENCODER)


def test_ratings_of_one_time_are_not_split_in_time() -> None:
    pytest.importorskip("surprise")
    found = evaluate(ratings(None, timed=False), Question("rating", ("mean",)), ENCODER)
    assert found["also"] == []
    assert "no split in time: rated: field `time`" in found["notes"][0]
    assert len(evaluate(ratings(None), Question("rating", ("mean",)), ENCODER)["also"]) == 1


def test_predictions_that_are_no_numbers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("surprise")
    import models.rating_prediction.protocol

    def broken(name: str, *args: Any) -> Any:
        return np.full(len(args[2]), np.nan if name == "bias" else 3.0)

    monkeypatch.setattr(models.rating_prediction.protocol, "library_predictions", broken)
    found = evaluate(ratings(None), Question("rating", ("bias", "mean")), ENCODER)
    assert found["models"]["bias"] == {"not run": "predictions that are not finite numbers"}
    assert found["models"]["mean"]["RMSE"] > 0
    with pytest.raises(DataError, match="no model ran: bias: predictions that are not finite"):
        evaluate(ratings(None), Question("rating", ("bias",)), ENCODER)


def test_a_training_is_whole(world: DataSet) -> None:
    """The checks pass over what is sound."""
    task = make_tasks("leave-one-out", world, ENCODER.encode)[0]
    assert isinstance(task.training, TrainingData)
    assert notes(task) == []
