"""The predictors of scikit-surprise with its default settings (N. Hug, JOSS 5 (52), 2020), and the global mean."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import numpy as np
import surprise

from models.data.histories import Doubles, Rows
from models.rating_prediction.table import RatingTable
from stream.core.errors import DataError

KNN_USERS: Final = 20_000  # most users for which a full user-by-user matrix is made
SVDPP_PAIRS: Final = 1_000_000_000
"""Most pairs of ratings of one user. The time of SVD++ grows with them (about 60 s for 60 million)."""


def trainset(
    user: Rows,
    item: Rows,
    value: Doubles,
    user_ids: Rows,
    item_ids: Rows,
    scale: tuple[float, float],
    *,
    by_number: bool = False,
) -> surprise.Trainset:
    """Return ratings as the library takes them.

    Args:
        user: i64 [R], from 0: the library's inner ids.
        item: i64 [R], likewise.
        value: f64 [R].
        user_ids: i64 [U], the id by which predictions ask for each user. One without a rating is unknown to the library.
        item_ids: i64 [I], likewise.
        scale: (min, max).
        by_number: The library reads user after user: by number, or in the order in which they come in `user`.
    """
    by_user: dict[int, list[tuple[int, float]]] = defaultdict(list)  # the library looks up users without a rating, too
    by_item: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for of_user, of_item, rating in zip(user.tolist(), item.tolist(), value.tolist(), strict=True):
        by_user[of_user].append((of_item, rating))
        by_item[of_item].append((of_user, rating))
    if by_number:
        by_user = defaultdict(list, sorted(by_user.items()))
        by_item = defaultdict(list, sorted(by_item.items()))
    inner_users, inner_items = ({number: at for at, number in enumerate(ids.tolist())} for ids in (user_ids, item_ids))
    return surprise.Trainset(
        by_user, by_item, len(user_ids), len(item_ids), len(value), scale, inner_users, inner_items
    )


def training_set(table: RatingTable, train: Rows) -> surprise.Trainset:
    """Return the training part as the library takes it. It knows only users and items that have a training rating."""
    users, user = np.unique(table.user[train], return_inverse=True)
    items, item = np.unique(table.item[train], return_inverse=True)
    return trainset(user, item, table.value[train], users, items, table.scale, by_number=True)


def require_pairs(user: Rows, most: int) -> None:
    """Raise DataError if one user's ratings, i64 [R] with their users, make more than `most` pairs in all."""
    pairs = int((np.bincount(user).astype(np.int64) ** 2).sum())
    if pairs > most:
        raise DataError(f"svdpp: not run: found {pairs:,} pairs of ratings of one user, expected at most {most:,}")


def library_predictions(name: str, table: RatingTable, train: Rows, test: Rows, seed: int) -> Doubles:
    """Predict f64 [len(test)], clipped to the scale. Raises DataError if the data is above a model's size limit."""
    if name == "mean":
        return np.full(len(test), table.value[train].mean())
    model = _model(name, table, train, seed)
    model.fit(training_set(table, train))
    pairs = zip(table.user[test].tolist(), table.item[test].tolist(), strict=True)
    return np.array([model.predict(user, item).est for user, item in pairs])


def _model(name: str, table: RatingTable, train: Rows, seed: int) -> Any:
    if name == "svd":
        return surprise.SVD(random_state=seed)
    if name == "svdpp":
        require_pairs(table.user[train], SVDPP_PAIRS)
        return surprise.SVDpp(random_state=seed, cache_ratings=True)
    if name == "user-knn":
        if table.users > KNN_USERS:
            raise DataError(f"user-knn: not run: found {table.users:,} users, expected at most {KNN_USERS:,}")
        return surprise.KNNWithMeans(verbose=False)
    if name == "bias":
        return surprise.BaselineOnly(verbose=False)
    raise DataError(f"rating model {name}: there is no such model")
