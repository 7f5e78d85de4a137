"""The rating protocol: nothing of a target's own rating or review, hand-worked features, figures that repeat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

pytest.importorskip("surprise")

from models.data import DataSet, generate
from models.data.dataset import Event, dataset
from models.data.histories import Floats
from models.metrics.errors import drawn_errors
from models.rating_prediction import MODELS, rating_protocol
from models.rating_prediction.features import ITEM, NAMES, PULL, USER, Context, features, statistics
from models.rating_prediction.library import library_predictions, training_set
from models.rating_prediction.residual import ResidualModel
from models.rating_prediction.table import RatingTable, folds, rating_table
from stream.core.errors import DataError
from stream.core.messages import COMMENT, RATING, Item

QUICK = ("mean", "bias", "svd", "user-knn", "freshet", "freshet-folded", "bias-folded")


def letter_vectors(texts: Sequence[str]) -> Floats:
    """A stand-in for BERT, quick: how often each letter occurs."""
    return np.array([[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts], np.float32)


@pytest.fixture(scope="module")
def world() -> DataSet:
    return generate(users=60, items=60, events=24)


@pytest.fixture(scope="module")
def table(world: DataSet) -> RatingTable:
    return rating_table(world, letter_vectors)


def test_ratings_and_reviews_count_and_remarks_do_not(world: DataSet, table: RatingTable) -> None:
    assert len(table.value) == world.events["value"].is_not_nan().sum()
    assert table.category.shape == (60, 8)
    assert (np.diff(table.time) >= 0).all()


def test_folds_cover_every_rating_once(table: RatingTable) -> None:
    parts = list(folds(table, "random", 3))
    assert sorted(np.concatenate([test for _, test in parts]).tolist()) == list(range(len(table.value)))
    assert all(not set(train.tolist()) & set(test.tolist()) for train, test in parts)
    ((train, test),) = folds(table, "time", 0)
    assert table.time[train].max() <= table.time[test].min()
    assert len(test) == pytest.approx(0.2 * len(table.value), abs=1)


@pytest.mark.parametrize("split", ["random", "time"])
def test_no_value_of_the_test_part_reaches_a_prediction(table: RatingTable, split: str) -> None:
    train, test = next(folds(table, split, 0))
    spoilt = table.value.copy()
    spoilt[test] = np.random.default_rng(0).permutation(spoilt[test])[::-1]
    other = replace(table, value=spoilt)
    one, two = (ResidualModel(of, train, causal=split == "time").predict(test)[0] for of in (table, other))
    assert (one == two).all()
    for name in ("bias", "svd", "user-knn"):
        assert (
            library_predictions(name, table, train, test, 0) == library_predictions(name, other, train, test, 0)
        ).all()


def test_folding_reads_the_past_and_never_the_rating_itself_or_later_ones(table: RatingTable) -> None:
    train, test = next(folds(table, "time", 0))
    middle = len(test) // 2
    spoilt = table.value.copy()
    spoilt[test[middle:]] = 0.5
    one, two = (
        ResidualModel(of, train, causal=True).predict(test, folding=True)[0]
        for of in (table, replace(table, value=spoilt))
    )
    assert (one[: middle + 1] == two[: middle + 1]).all()
    assert (one[middle + 1 :] != two[middle + 1 :]).any()


def test_a_training_rating_is_not_among_its_own_features(table: RatingTable) -> None:
    """Changing one training rating leaves its own row as it was, but for the mean of all and the items' text bias."""
    train, _ = next(folds(table, "random", 0))
    at = int(train[7])
    spoilt = table.value.copy()
    spoilt[at] = 0.5 if spoilt[at] > 2 else 5.0
    context = Context(causal=False, folding=False)
    rows = []
    for of in (table, replace(table, value=spoilt)):
        made = replace(
            statistics(of, train), mean=3.0
        )  # one rating moves the mean of all by its share: held still here
        x = of.value - 3.0
        total = np.bincount(of.item[train], x[train], of.items).astype(np.float64)
        x = x - (total / (made.count + ITEM))[of.item]
        rows.append(features(of, replace(made, total=total, x=x), np.array([at]), context)[1][0])
    kept = [
        NAMES.index(name) for name in ("item bias", "item count", "user bias", "similar text", "as popular", "last 2")
    ]
    np.testing.assert_allclose(rows[0][kept], rows[1][kept], atol=1e-12)


def test_biases_and_kernels_by_hand() -> None:
    events = [
        Event("u", "a", RATING, 1, 5.0),
        Event("u", "b", RATING, 2, 1.0),
        Event("v", "a", RATING, 3, 4.0),
        Event("v", "b", RATING, 4, 2.0),
        Event("u", "c", RATING, 5, 3.0),  # the target
    ]
    items = [Item("a", "aa", categories=("X",)), Item("b", "b", categories=("Y",)), Item("c", "a", categories=("X",))]
    data = dataset("hand", events, items, (1.0, 5.0))
    with pytest.raises(DataError, match="needs at least"):
        rating_table(data, letter_vectors)
    table = RatingTable(
        np.array([0, 0, 1, 1, 0]),
        np.array([0, 1, 0, 1, 2]),
        np.arange(5),
        np.array([5.0, 1.0, 4.0, 2.0, 3.0]),
        np.eye(3, dtype=np.float32)[[0, 1, 0]],
        np.eye(2, dtype=np.float32)[[0, 1, 0]],
        (1.0, 5.0),
    )
    made = statistics(table, np.arange(4))
    bias_a, bias_b = 3 / (2 + ITEM), -3 / (2 + ITEM)  # mu = 3; deviations 2 and 1, -2 and -1
    x_a, x_b = 2 - bias_a, -2 - bias_b
    user = (x_a + x_b) / (2 + USER)
    base, read = features(table, made, np.array([4]), Context(causal=False, folding=False))
    row = dict(zip(NAMES, read[0], strict=True))
    assert base[0] == pytest.approx(3 + 0 + user)
    assert row["user bias"] == pytest.approx(user)
    assert row["similar text"] == pytest.approx((x_a - user) / (1 + PULL))
    assert row["same categories"] == pytest.approx((x_a - user) / (1 + PULL))
    assert row["last 2"] == pytest.approx(((x_b - user) + 0.5 * (x_a - user)) / (1.5 + PULL))
    assert row["correlated items"] == 0  # c has no training rating
    first, _ = features(table, made, np.array([0]), Context(causal=True, folding=False))
    assert first[0] == pytest.approx(3 + 1 / (1 + ITEM))  # nothing before it; its own rating taken out of a's bias


def test_the_library_does_not_know_whom_it_has_not_seen(table: RatingTable) -> None:
    train = np.flatnonzero(table.user != 0)
    test = np.flatnonzero(table.user == 0)
    assert training_set(table, train).n_users == len(np.unique(table.user[train]))
    predicted = library_predictions("user-knn", table, train, test, 0)
    np.testing.assert_allclose(predicted, table.value[train].mean())
    assert np.isfinite(library_predictions("svdpp", table, train, test, 0)).all()


def test_a_review_says_nothing_about_its_own_rating(world: DataSet) -> None:
    """Other texts, the same figures: reviews are not read at all."""
    reviewed = pl.when(pl.col("text") != "").then(pl.lit("five stars")).otherwise(pl.col("text"))
    other = replace(world, events=world.events.with_columns(text=reviewed))
    assert (world.events["behaviour"] == COMMENT).any()
    one, two = (rating_protocol(data, "random", ("mean", "freshet"), encode=letter_vectors) for data in (world, other))
    assert all(one["models"][name]["RMSE"] == two["models"][name]["RMSE"] for name in one["models"])


@pytest.mark.parametrize("split", ["random", "time"])
def test_figures_repeat_and_name_their_split(world: DataSet, split: str) -> None:
    one, two = (rating_protocol(world, split, QUICK, (1,), letter_vectors) for _ in range(2))
    for out in (one, two):
        for model in out["models"].values():
            del model["seconds"]
    assert json.loads(json.dumps(one)) == two
    models = one["models"]
    assert one["split"].startswith(split)
    assert ("freshet-folded" in models) == (split == "time")
    low, high = models["freshet"]["intervals"]["RMSE"]
    assert low < models["freshet"]["RMSE"] < high
    assert (
        sum(any(key.startswith("RMSE - ") for key in model["intervals"]) for model in models.values())
        == len(models) - 1
    )


def test_a_taste_that_only_titles_tell_is_learned() -> None:
    """Half of the users like what is called a, the others b; every item is rated too seldom for more than its title."""
    draw = np.random.default_rng(0)
    items = [Item(str(at), "ab"[at % 2] * 3) for at in range(400)]
    events = [
        Event(f"u{user}", str(item), RATING, at, 5.0 if item % 2 == user % 2 else 2.0)
        for user in range(30)
        for at, item in enumerate(draw.choice(400, 20, replace=False).tolist())
    ]
    models = rating_protocol(
        dataset("tastes", events, items, (1.0, 5.0)), "random", ("svd", "freshet"), (0,), letter_vectors
    )["models"]
    assert models["freshet"]["RMSE"] < 0.5 * models["svd"]["RMSE"]
    low, high = models["freshet"]["intervals"]["RMSE - svd"]
    assert low < high < 0


def test_sizes_that_are_refused_are_told(world: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.rating_prediction.library.KNN_USERS", 3)
    out = rating_protocol(world, "random", ("mean", "user-knn"), encode=letter_vectors)
    assert "found 60 users, expected at most 3" in out["models"]["user-knn"]["not run"]
    assert "RMSE" in out["models"]["mean"]


def test_unknown_names_are_told(world: DataSet) -> None:
    with pytest.raises(DataError, match=f"expected some of {MODELS[0]}"):
        rating_protocol(world, "random", ("lstm",), encode=letter_vectors)
    with pytest.raises(DataError, match="split sideways"):
        rating_protocol(world, "sideways", ("mean",), encode=letter_vectors)
    with pytest.raises(DataError, match="at least one model"):
        rating_protocol(world, "random", (), encode=letter_vectors)


def test_bootstrap_is_over_users() -> None:
    error, user = np.array([1.0, 1.0, 1.0, 3.0]), np.array([0, 0, 0, 1])
    drawn = drawn_errors({"a": error[None]}, user, draws=200)["a"]
    assert set(np.round(drawn["MAE"], 6)) == {1.0, 1.5, 3.0}  # both users, or one of them twice
    assert set(np.round(drawn["RMSE"], 6)) == {1.0, round(3**0.5, 6), 3.0}
